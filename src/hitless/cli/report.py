"""``hitless report``: render a drill's event log again, from the log alone.

Problem: questions about a drill come long after it. Promise: the same verdict and the same pictures as on
the day, from one file; a log that was cut off is rendered as far as it is whole, and says so. Exit codes as the
drill's, so that a script can judge a log. Never: touching the log.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from hitless.cli import folders
from hitless.cli.exits import HELP, Exit
from hitless.cli.output_paths import FileParameter, write
from hitless.cli.sections import Sections
from hitless.errors import InputError
from hitless.evidence import RecordedDrill, Verdict, grouped, judge, read
from hitless.evidence.redaction import Mask, names_of
from hitless.evidence.reports import FORMATS, render

_SUFFIXES = {
    ".html": "html", ".json": "json", ".xml": "junit", ".svg": "svg", ".prom": "prometheus", ".txt": "terminal",
}  # fmt: skip

__all__ = ["EXITS", "command", "show"]

EXITS = {"pass": Exit.PASS, "fail": Exit.FAIL, "inconclusive": Exit.INCONCLUSIVE}
"""The exit code of a verdict."""


def show(recorded: RecordedDrill, verdict: Verdict, *, err: bool = False) -> None:
    """Print the report as text on standard output (or standard error), as wide as it is."""
    from rich.console import Console

    from hitless.evidence.reports import terminal

    console = Console(highlight=False, emoji=False, markup=False, stderr=err)
    if console.is_terminal:
        console.print(terminal.render(recorded, verdict, width=console.width))
    else:  # a pipe or a file: as wide as the table needs, without colours and without blanks at the ends
        click.echo(terminal.text(recorded, verdict, width=max(console.width, 120)), nl=False, err=err)


@click.command(
    name="report",
    cls=Sections,
    help="Render a drill's event log again, from the log alone.\n\n"
    "LOG is an event log (also as .gz), a drill's folder, or the name of a drill as `hitless drills "
    "list` shows it; without it the newest drill of this user is taken.\n\n" + HELP,
    examples={
        "hitless report": "the newest drill, on the terminal",
        "hitless report --out drill.html": "a page to read, or to attach",
        "hitless report results/events.jsonl --out junit.xml": "for CI, from a log",
        "hitless report --anonymous --format json": "for machines, without names of hosts and nodes",
    },
)
@click.argument("log", type=click.Path(path_type=Path), required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(sorted(FORMATS)),
    help=f"[default: by the end of --out's name ({', '.join(_SUFFIXES)}), else terminal]",
)
@click.option("--out", type=FileParameter(), metavar="FILE", help="Write to this file instead of stdout.")
@click.option("--anonymous", is_flag=True, help="Leave out the names of hosts and nodes.")
def command(log: Path | None, form: str | None, out: Path | None, anonymous: bool) -> int:
    form = form or _form(out)
    path = _place(log)
    recorded = read(path)
    mask = Mask(names_of(recorded.events) if anonymous else None)
    drill = grouped((mask.event(event) for event in recorded.events), sha256=recorded.sha256)
    verdict = judge(drill, path=path.name if drill.header and drill.header.anonymous else str(path))
    if recorded.torn:
        click.echo(f"hitless: {path}: the last line is cut in the middle; made from what is whole", err=True)
    if out is not None:
        write(out, render(form, drill, verdict))
        click.echo(f"{verdict.verdict}: {out}", err=True)
    elif form == "terminal":
        show(drill, verdict)
    else:
        click.echo(render(form, drill, verdict), nl=False)
    return EXITS[verdict.verdict]


def _form(out: Path | None) -> str:
    """The format that the name of the file asks for."""
    if out is None or not out.suffix:
        return "terminal"
    if out.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f"{out.name!r} ends with no format's name", where="--out", expected=f"{', '.join(_SUFFIXES)}, or --format"
        )
    return _SUFFIXES[out.suffix.lower()]


def _place(log: Path | None) -> Path:
    """The log that is meant: a file, a folder's, a named drill's, or the newest one."""
    if log is not None:
        if not os.path.lexists(log) and (drill := folders.named(str(log))) is not None:
            return drill.log
        return log / folders.LOG if log.is_dir() else log
    there = folders.found()
    if not there:
        raise InputError(
            f"there is no drill in {folders.home() or 'a home of this user'}",
            where="LOG",
            expected="an event log, or a drill's folder",
            remedy="run one first (hitless drill), or name the log",
        )
    newest = there[-1]
    what = "is still running: what is known so far" if newest.running else f"of {newest.begun:%Y-%m-%d %H:%M:%SZ}"
    click.echo(f"the newest drill: {newest.log} ({what})", err=True)
    return newest.log
