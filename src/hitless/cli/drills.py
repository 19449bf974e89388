"""``hitless drills``: list, show and prune the folders of past drills and rollouts.

Problem: every drill leaves a log and reports, which fill a home folder over time. Promise: ``list`` and ``show`` only
read. ``prune`` lists the folders to remove, asks, and removes nothing else: folders of running drills and rollouts, and
folders with other files, are kept and named; ``--dry-run`` changes nothing. Exit codes: 0 done (``show``: the verdict),
3 invalid input.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from hitless.cleaning import clean
from hitless.cli import folders, report, rollout_folders, rollout_report
from hitless.cli.exits import HELP, Exit
from hitless.cli.folders import Folder
from hitless.cli.groups import Group
from hitless.cli.numbers import number
from hitless.cli.rollout_folders import RolloutFolder
from hitless.cli.sections import Sections
from hitless.errors import InputError

__all__ = ["command"]

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@click.group(cls=Group, help="List, show and prune the folders of past drills (of this user).\n\n" + HELP)
def command() -> None:
    pass


@command.command(
    "list",
    cls=Sections,
    help="List the drills and rollouts, the newest first: when, verdict, size.",
    examples={
        "hitless drills list": "all of this user",
        "hitless drills list --json": "for machines, with the logs' paths",
    },
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def list_(as_json: bool) -> int:
    there = folders.found()[::-1]
    if as_json:
        place = folders.home()
        result = {
            "schema": 1,
            "folder": str(place) if place else None,
            "drills": [_described(one) for one in there],
            "rollouts": [_described_rollout(one) for one in rollout_folders.found()[::-1]],
        }
        click.echo(json.dumps(result, indent=2))
        return Exit.PASS
    for rollout in rollout_folders.found()[::-1]:
        click.echo(f"{rollout.path.name}   rollout  {clean(_state(rollout), 200)}")
    if not there:
        click.echo(f"there is no drill in {folders.home() or 'a home of this user'}")
        return Exit.PASS
    width = max(len(one.path.name) for one in there)
    for one in there:
        click.echo(f"{one.path.name:{width}}  {_size(one.size):>8}  {clean(_state(one), 200)}")
    total = sum(one.size for one in there)
    click.echo(f"{_count(there)}, {_size(total)}, in {folders.home()}", err=True)
    return Exit.PASS


@command.command(
    "show",
    cls=Sections,
    help="Show the report of a drill or rollout on the terminal, and its files; without NAME of the newest drill.",
    examples={
        "hitless drills show": "the newest",
        "hitless drills show 20260131T": "the only one whose name begins so",
    },
)
@click.argument("name", required=False)
def show(name: str | None) -> int:
    found = _named(name)
    code: int
    if isinstance(found, RolloutFolder):
        code = _show_rollout(found)
    else:
        code = report.command.callback(found.log, None, None, False)  # type: ignore[misc]
    click.echo("")
    for path in sorted(found.path.iterdir()):
        click.echo(str(path))
    return code


def _show_rollout(found: RolloutFolder) -> int:
    """Its report; the exit code is that of ``hitless rollout``."""
    if not found.report:
        click.echo(f"{found.path.name}: {_state(found)}; see hitless rollout status, and the reports of its steps")
        return Exit.INCONCLUSIVE
    click.echo(rollout_report.table(found.report))
    ended = found.report.get("state") == "ended"
    if found.verdict == "fail":
        return Exit.FAIL
    return Exit.PASS if ended and found.verdict in ("pass", "") else Exit.INCONCLUSIVE


@command.command(
    "prune",
    cls=Sections,
    help="Remove the folders of old drills and rollouts, after a question. Running ones, and folders with other files, "
    "are spared.",
    examples={
        "hitless drills prune --keep 10 --dry-run": "what would go, but for the ten newest",
        "hitless drills prune --older-than 30d --yes": "on a schedule",
    },
)
@number("--keep", limits=(0, 1_000_000), unset="", help="Keep so many, the newest.")
@click.option("--older-than", metavar="AGE", help="Only what is older: 45m, 12h, 30d, 8w.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def prune(keep: int | None, older_than: str | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    if keep is None and older_than is None:
        raise InputError("nothing says what is old", where="drills prune", expected="--keep N or --older-than AGE")
    if dry_run and yes:
        raise InputError("contradicts --dry-run, which removes nothing", where="--yes", expected="one of the two")
    before = datetime.now(UTC) - _age(older_than) if older_than is not None else None
    there: list[Folder | RolloutFolder] = [*folders.found(), *rollout_folders.found()]
    there.sort(key=lambda one: one.begun)
    old = there[: max(0, len(there) - (keep or 0))]
    old = [one for one in old if before is None or one.begun < before]
    spared = {one.path.name: why for one in old if (why := _why_spared(one))}
    doomed = [one for one in old if one.path.name not in spared]
    for one in doomed:
        click.echo(f"{one.path}  {_size(one.size)}  {clean(_state(one), 200)}", err=as_json)
    for name, why in spared.items():
        click.echo(f"{name} is left alone: {clean(why)}", err=as_json)
    gone = doomed if doomed and not dry_run and _agreed(doomed, yes=yes) else []
    removed: list[str] = []
    try:
        for one in gone:
            if isinstance(one, RolloutFolder):
                rollout_folders.remove(one)
            else:
                folders.remove(one)
            removed.append(str(one.path))
    finally:
        _report_result(doomed, removed, spared, dry_run=dry_run, as_json=as_json)
    return Exit.PASS


def _report_result(
    doomed: Sequence[Folder | RolloutFolder],
    removed: Sequence[str],
    spared: dict[str, str],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if as_json:
        result = {
            "schema": 1,
            "dry_run": dry_run,
            "to_be_removed": [str(one.path) for one in doomed],
            "removed": removed,
            "spared": spared,
        }
        click.echo(json.dumps(result, indent=2))
    elif removed:
        size = sum(one.size for one in doomed if str(one.path) in removed)
        click.echo(f"removed {_count(removed)}, {_size(size)}")
    else:
        click.echo("dry run: nothing was removed" if dry_run else "nothing was removed")


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"([0-9]{1,5})([mhdw])", text, re.ASCII)
    if found is None:
        raise InputError(f"{clean(text, 60)!r} is not an age", where="--older-than", expected="45m, 12h, 30d or 8w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def _named(name: str | None) -> Folder | RolloutFolder:
    there: list[Folder | RolloutFolder] = list(folders.found())
    newest = there[-1] if there else None
    there += rollout_folders.found()
    if not there or (name is None and newest is None):
        raise InputError(
            f"there is no drill in {folders.home() or 'a home of this user'}",
            where="drills show",
            expected="a drill of this user",
            remedy="run one first: hitless drill",
        )
    wanted = Path(name or "").name
    begun = [one for one in there if wanted and one.path.name.startswith(wanted)]
    exact = [one for one in begun if one.path.name == wanted] or begun
    found = newest if name is None else exact[0] if len(exact) == 1 else None
    if found is None:
        several = [one.path.name for one in begun]
        what = f"{clean(name or '', 100)!r} is {'the begin of several names' if several else 'no drill or rollout'}"
        raise InputError(what, where="NAME", expected=", ".join((several or [one.path.name for one in there])[-3:]))
    return found


def _why_spared(one: Folder | RolloutFolder) -> str:
    kind = "rollout" if isinstance(one, RolloutFolder) else "drill"
    if one.running:
        return f"its {kind} is running"
    return f"it holds files that no {kind} wrote: {', '.join(one.other_files[:3])}" if one.other_files else ""


def _agreed(doomed: Sequence[Folder | RolloutFolder], *, yes: bool) -> bool:
    question = f"Remove {_count(doomed)} ({_size(sum(one.size for one in doomed))})?"
    if yes:
        return True
    if not sys.stdin.isatty():
        raise InputError(
            "cannot ask for confirmation without a terminal",
            where="--yes",
            expected=f"--yes, which answers yes to: {question}",
        )
    return click.confirm(question, err=True)


def _state(one: Folder | RolloutFolder) -> str:
    if one.running:
        return "running"
    if isinstance(one, RolloutFolder):
        return one.headline or "cut off, no report"
    return one.headline or one.verdict or f"cut off, no report (hitless report {one.path.name})"


def _described_rollout(one: RolloutFolder) -> dict[str, object]:
    known = ("agent", "change", "direction", "state", "verdict")
    return {"folder": str(one.path), **{key: one.report[key] for key in known if key in one.report}}


def _described(one: Folder) -> dict[str, object]:
    return {
        "name": one.path.name,
        "log": str(one.log),
        "begun": one.begun.isoformat(),
        "bytes": one.size,
        "verdict": one.verdict or None,
        "headline": one.headline or None,
        "running": one.running,
        "other_files": list(one.other_files),
    }


def _count(several: Sequence[object]) -> str:
    return f"{len(several)} drill{'' if len(several) == 1 else 's'}"


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"
