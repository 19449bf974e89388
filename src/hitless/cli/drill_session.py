"""What every drill does around its rounds: live view, log, reports, result, exit code.

Problem: ``drill`` in the lab, in a cluster and ``node-drill`` must end alike, also if they are interrupted.
Promise: standard output has the result and nothing else; however the drill ends, the log stays, and the results so far
are reported. Next stages: ``hitless.drill`` (rounds), ``hitless.evidence`` (verdict, reports).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from hitless.cli import folders
from hitless.cli.drill_view import view
from hitless.cli.output_paths import write
from hitless.cli.report import EXITS, show
from hitless.drill import DrillPlan, DrillTarget, run
from hitless.drill.origins import Origin
from hitless.drill.permits import Permit
from hitless.errors import HitlessError, MissingError
from hitless.evidence import RecordedDrill, Verdict, grouped, judge, read
from hitless.evidence.reports import as_json, render
from hitless.model.events import Event

__all__ = ["carry_out", "interruptible", "reports", "run_and_show"]

_T = TypeVar("_T")


def interruptible(work: Coroutine[Any, Any, _T]) -> _T:
    """Run the work; SIGTERM ends it like Ctrl-C: cancelled, cleaned up, ``KeyboardInterrupt``."""

    async def main() -> _T:
        task = asyncio.current_task()
        assert task is not None
        asked = False

        def ask() -> None:
            nonlocal asked
            asked = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ask)
        try:
            return await work
        except asyncio.CancelledError:
            if asked:
                raise KeyboardInterrupt from None
            raise

    return asyncio.run(main())


def run_and_show(
    plan: DrillPlan,
    target: DrillTarget,
    *,
    judged: str | Sequence[str],
    out: Path | None,
    as_object: bool,
    quiet: bool = False,
    progress: str | None = None,
    origin: Origin | None = None,
    permit: Permit | None = None,
) -> int:
    """Run a drill on any target, write its reports, print the result; the exit code is the worst judged agent's."""
    agents = list(dict.fromkeys(name.agent for name in target.subjects()))

    def work(log: Path, observer: Callable[[Event], None]) -> Coroutine[Any, Any, tuple[RecordedDrill, Verdict]]:
        return run(plan, target, log, judged=judged, observer=observer, origin=origin, permit=permit)

    return carry_out(work, agents, plan.rounds, out=out, as_object=as_object, quiet=quiet, progress=progress)


def carry_out(
    work: Callable[[Path, Callable[[Event], None]], Coroutine[Any, Any, tuple[RecordedDrill, Verdict]]],
    agents: list[str],
    rounds: int,
    *,
    out: Path | None,
    as_object: bool,
    quiet: bool = False,
    progress: str | None = None,
) -> int:
    """Do the work into a new log with the live view, write the reports, print the result."""
    folder = out if out is not None else folders.new()
    log = folder / "events.jsonl"
    try:
        with view(agents, rounds, quiet=quiet, progress=progress) as observer:
            recorded, verdict = interruptible(work(log, observer))
    except BaseException as error:
        if log.exists() and log.stat().st_size:
            if isinstance(error, KeyboardInterrupt):
                _so_far(log)
            click.echo(f"what was recorded so far: {log} (hitless report renders it)", err=True)
        elif out is None and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise
    problem = reports(folder, recorded, verdict)
    if as_object:
        click.echo(as_json(recorded, verdict), nl=False)
    else:
        show(recorded, verdict)
        click.echo("" if problem else f"\nReport: {folder / 'report.html'}")
        click.echo(f"Events: {log}")
    if problem:
        raise MissingError(
            f"the log is whole, but {problem}",
            remedy=f"then render it again: hitless report {log} --format html --out FILE",
        )
    return EXITS[verdict.verdict]


def _so_far(log: Path) -> None:
    """Show the results so far of a drill that was interrupted; on standard error, because it is not a result."""
    with contextlib.suppress(HitlessError):  # a log without events
        events = read(log)
        recorded = grouped(events.events, sha256=events.sha256)
        if any(record.attempts for record in recorded.records):
            show(recorded, judge(recorded, path=str(log)), err=True)


def reports(folder: Path, recorded: RecordedDrill, verdict: Verdict) -> str:
    """Write the reports; returns which one could not be written, and why."""
    for name, form in (("report.json", "json"), ("junit.xml", "junit"), ("report.html", "html")):
        try:
            write(folder / name, render(form, recorded, verdict))
        except MissingError as error:
            return str(error)
    return ""
