"""``hitless report``: render a drill's event log again, from the log alone.

Problem: the drill is long over and somebody asks what happened. Promise: the same verdict and the same pictures as on
the day, from one file; a log that was cut off is rendered as far as it is whole, and says so. Exit codes as the
drill's, so that a script can judge a log. Never: touching the log.
"""

from __future__ import annotations

from pathlib import Path

import click

from hitless.cli.exits import HELP, Exit
from hitless.cli.places import File, write
from hitless.evidence import Story, Verdict, judge, read, story
from hitless.evidence.masking import Mask, names_of
from hitless.evidence.reports import FORMATS, render

__all__ = ["EXITS", "command", "show"]

EXITS = {"pass": Exit.PASS, "fail": Exit.FAIL, "inconclusive": Exit.INCONCLUSIVE}
"""The exit code of a verdict."""


def show(told: Story, verdict: Verdict, *, err: bool = False) -> None:
    """Print the report for people on standard output (or standard error), as wide as it is."""
    from rich.console import Console

    from hitless.evidence.reports import terminal

    console = Console(highlight=False, emoji=False, markup=False, stderr=err)
    if console.is_terminal:
        console.print(terminal.render(told, verdict, width=console.width))
    else:  # a pipe or a file: as wide as the table needs, without colours and without blanks at the ends
        click.echo(terminal.text(told, verdict, width=max(console.width, 120)), nl=False, err=err)


@click.command(name="report", help="Render a drill's event log again, from the log alone.\n\n" + HELP)
@click.argument("log", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(sorted(FORMATS)), default="terminal", show_default=True)
@click.option("--out", type=File(), metavar="FILE", help="Write to this file instead of stdout.")
@click.option("--anonymous", is_flag=True, help="Leave out the names of hosts and nodes.")
def command(log: Path, form: str, out: Path | None, anonymous: bool) -> int:
    path = log / "events.jsonl" if log.is_dir() else log
    recorded = read(path)
    mask = Mask(names_of(recorded.events) if anonymous else None)
    told = story((mask.event(event) for event in recorded.events), sha256=recorded.sha256)
    verdict = judge(told, path=path.name if told.header and told.header.anonymous else str(path))
    if recorded.torn:
        click.echo(f"hitless: {path}: the last line is cut in the middle; made from what is whole", err=True)
    if out is not None:
        write(out, render(form, told, verdict))
        click.echo(f"{verdict.verdict}: {out}", err=True)
    elif form == "terminal":
        show(told, verdict)
    else:
        click.echo(render(form, told, verdict), nl=False)
    return EXITS[verdict.verdict]
