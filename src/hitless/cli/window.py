"""``hitless window``: the maintenance windows of a file or a ConfigMap.

Problem: "may I start now, and if not, when?" must be one command with one answer, for users and scripts. Promise:
``status`` answers for now (or ``--at``), ``next`` lists what comes, ``wait`` returns when something may begin. It only
reads. Exit codes: 0 open (``wait``: it opened), 1 closed or paused (``wait``: not within ``--timeout``, or it never
opens), 2 could not tell (the API server was not reached), 3 wrong input.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from hitless.cleaning import clean
from hitless.cli.exits import Exit
from hitless.cli.groups import Group
from hitless.cli.numbers import number
from hitless.cli.sections import Sections
from hitless.errors import ApiError, InputError
from hitless.operations.windows import Opening, Windows, WindowSchedule, WindowState, length, moment, read, span, utc
from hitless.operations.windows.configmaps import of_configmap
from hitless.operations.windows.gates import wait as wait_for
from hitless.operations.windows.selectors import labels_of

__all__ = ["command", "given"]

_EXITS = (
    "Exit codes: 0 open, 1 closed or paused (wait: not within --timeout), 2 could not tell (the API server was not "
    "reached), 3 wrong input."
)
_YEARS = 366 * 86400
_F = TypeVar("_F", bound=Callable[..., Any])


def _common(command: _F) -> _F:
    for option in reversed(
        (
            click.option("--file", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file of windows."),
            click.option("--configmap", metavar="NAMESPACE/NAME", help="A ConfigMap with such a file in it."),
            click.option("--kubeconfig", type=click.Path(path_type=Path), help="With --configmap."),
            click.option("--context", metavar="NAME", help="The context of the kubeconfig, with --configmap."),
            click.option("--cluster", metavar="NAME", default="", help="Also the windows that are for this cluster."),
            click.option("--node", metavar="NAME", default="", help="Also the windows that are for this node."),
            click.option("--labels", metavar="KEY=VALUE,…", default="", help="Of the node, for windows by labels."),
            click.option("--needs", metavar="DURATION", help="What is to be done takes so long, e.g. 45m."),
            click.option("--json", "as_json", is_flag=True, help="JSON instead of lines."),
        )
    ):
        command = option(command)
    return command


@click.group(name="window", cls=Group, epilog=_EXITS)
def command() -> None:
    """Maintenance windows: may something begin now, what comes next, wait for it.

    The file is explained in docs/windows.md.
    """


def given(
    file: Path | None,
    configmap: str | None,
    kubeconfig: Path | None,
    context: str | None,
    *,
    at: int,
    flag: str = "--file",
) -> Windows:
    """The windows of the file or the ConfigMap; what should be known of them is written to standard error."""
    if (file is None) == (configmap is None):
        both = "were both given" if file is not None else "are both missing"
        raise InputError(both, where=f"{flag} and --configmap", expected="one of them")
    if configmap is None and (kubeconfig is not None or context is not None):
        raise InputError(
            "cannot be used without --configmap", where="--kubeconfig and --context", expected="--configmap"
        )
    windows = read(file, at=at) if file is not None else of_configmap(str(configmap), kubeconfig, context, at=at)
    for warning in windows.warnings:
        click.echo(f"hitless: warning: {clean(warning)}", err=True)
    return windows


def _schedule(asked: dict[str, Any], at: int) -> WindowSchedule:
    windows = given(
        asked["file"], asked["configmap"], asked["kubeconfig"], asked["context"], at=min(at, int(time.time()))
    )
    needs = length(asked["needs"], where="--needs") if asked["needs"] is not None else 0
    labels = labels_of(asked["labels"], where="--labels")
    schedule = WindowSchedule(windows, (asked["cluster"],) if asked["cluster"] else (), asked["node"], needs, labels)
    if not schedule.entries:
        names = ", ".join(clean(one.name) for one in windows.entries)
        raise InputError(
            f"none of its windows ({names}) is for this place",
            where=clean(windows.source),
            expected="--cluster NAME, --node NAME, --labels KEY=VALUE",
        )
    return schedule


def _exit_code(work: Callable[[], int]) -> int:
    """The exit code of ``work``; 2 where the server did not answer. What the server refuses is an error."""
    try:
        return work()
    except ApiError as error:
        click.echo(f"hitless: {clean(str(error))}", err=True)
        return Exit.INCONCLUSIVE


def _written(one: Opening, needs: int) -> dict[str, str]:
    latest = {"latest_start": utc(one.end - needs)} if needs else {}
    return {"name": one.name, "begin": utc(one.begin), "end": utc(one.end), **latest}


def _echo_json(value: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


@command.command(
    name="status",
    cls=Sections,
    examples={"hitless window status --file windows.toml": "may something begin now?"},
    epilog=_EXITS,
)
@click.option("--at", metavar="INSTANT", help="Instead of now, e.g. 2026-03-29T10:00:00Z.")
@_common
def status(at: str | None, as_json: bool, **asked: Any) -> int:
    """Whether something may begin now, until when, and what comes next."""
    instant = moment(at, where="--at") if at is not None else int(time.time())

    def work() -> int:
        schedule = _schedule(asked, instant)
        state = schedule.state(instant)
        following = next(schedule.next(state.until if state.until is not None else instant + 1), None)
        if as_json:
            _echo_json(_status(schedule, state, following, instant))
        else:
            _say(schedule, state, following, instant)
        return Exit.PASS if state.open else Exit.FAIL

    return _exit_code(work)


def _status_name(state: WindowState) -> str:
    return "open" if state.open else "paused" if state.paused else "closed"


def _status(schedule: WindowSchedule, state: WindowState, following: Opening | None, at: int) -> dict[str, Any]:
    return {
        "status": _status_name(state),
        "at": utc(at),
        "name": state.name or None,
        "until": utc(state.until) if state.until is not None else None,
        "reason": state.paused or None,
        "next": _written(following, schedule.needs) if following is not None else None,
        "warnings": list(schedule.windows.warnings),
    }


def _say(schedule: WindowSchedule, state: WindowState, following: Opening | None, at: int) -> None:
    status = _status_name(state)
    if state.open and state.until is not None:
        what = "something may begin" if schedule.needs else "open"
        left = state.until - at
        if left > _YEARS:
            click.echo(f"open: {clean(state.name)}; for years without an end")
            return
        click.echo(f"open: {clean(state.name)}; {what} until {utc(state.until)}, for {span(left)} more")
    elif state.paused:
        click.echo(f"paused: {clean(state.paused)}")
    else:
        click.echo(status)
    if following is None:
        click.echo(f"next: none{_short(schedule)}")
    else:
        click.echo(f"next: {_line(following, schedule)}, in {span(following.begin - at)}")


def _short(schedule: WindowSchedule) -> str:
    return f" that is as long as --needs {span(schedule.needs)}" if schedule.needs else ""


def _line(one: Opening, schedule: WindowSchedule) -> str:
    latest = f", latest start {utc(one.end - schedule.needs)}" if schedule.needs else ""
    return f"{clean(one.name)}  {utc(one.begin)}  {utc(one.end)}  ({span(one.end - one.begin)}{latest})"


@command.command(
    name="next",
    cls=Sections,
    examples={"hitless window next --file windows.toml --count 2": "the two windows that open next"},
    epilog=_EXITS.replace("0 open, 1 closed or paused (wait: not within --timeout)", "0 at least one, 1 none"),
)
@click.option("--after", metavar="INSTANT", help="What begins then or later.  [default: now]")
@number("--count", limits=(1, 1000), default=1, help="So many.")
@_common
def next_(after: str | None, count: int, as_json: bool, **asked: Any) -> int:
    """The windows that open next, in UTC."""
    instant = moment(after, where="--after") if after is not None else int(time.time())

    def work() -> int:
        schedule = _schedule(asked, instant)
        found = list(islice(schedule.next(instant), int(count)))
        if as_json:
            _echo_json([_written(one, schedule.needs) for one in found])
        for one in () if as_json else found:
            click.echo(_line(one, schedule))
        if not found:
            paused = schedule.paused(instant)
            why = f": paused, {clean(paused)}" if paused else _short(schedule)
            click.echo(f"hitless: no window opens again{why}", err=True)
        return Exit.PASS if found else Exit.FAIL

    return _exit_code(work)


@command.command(
    name="wait",
    cls=Sections,
    examples={"hitless window wait --file windows.toml --timeout 12h": "go on when it opens"},
    epilog=_EXITS,
)
@click.option("--timeout", metavar="DURATION", help="Give up after so long, e.g. 12h.  [default: never]")
@_common
def wait(timeout: str | None, as_json: bool, **asked: Any) -> int:
    """Wait until something may begin; progress goes to standard error."""
    within = length(timeout, where="--timeout") if timeout is not None else None

    def work() -> int:
        schedule = _schedule(asked, int(time.time()))
        state = wait_for(schedule, timeout=within, tell=lambda line: click.echo(f"hitless: {clean(line)}", err=True))
        now = int(time.time())
        if as_json:
            _echo_json(_status(schedule, state, next(schedule.next(now + 1), None), now))
        elif state.open and state.until is not None:
            click.echo(f"open: {clean(state.name)}, until {utc(state.until)}")
        else:
            why = f"paused: {clean(state.paused)}" if state.paused else "closed"
            click.echo(why if state.until is None else f"{why}; not open within {timeout}")
        return Exit.PASS if state.open else Exit.FAIL

    return _exit_code(work)
