"""``hitless selftest``: test the measurement itself.

Problem: why should a user believe a drill? Promise: known gaps, known losses, and no fault at all are put into drills
on this machine, and the results are compared with what was done. Exit codes: 0 all found and measured correctly, 1
something was missed or measured wrong, 2 this machine was too busy to tell, 3 error. Nothing outside the lab is
changed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from hitless import lab
from hitless.cli.command_text import typed
from hitless.cli.drill import BACKENDS
from hitless.cli.drill_session import interruptible
from hitless.cli.drill_view import view
from hitless.cli.exits import HELP
from hitless.cli.output_paths import FolderParameter
from hitless.cli.report import EXITS
from hitless.cli.sections import Sections
from hitless.drill import selftest
from hitless.drill.origins import here
from hitless.drill.trials import Finding, trials
from hitless.errors import InputError
from hitless.model.families import Backend

__all__ = ["command"]


def _show(findings: Sequence[Finding], verdict: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("trial", "done", "found", ""):
        table.add_column(name, no_wrap=name in ("trial", ""), overflow="fold")
    before = ""
    for one in findings:
        sign = Text("✓ right", style="green") if one.right else Text("✗ wrong", style="bold red")
        if one.busy and not one.right:
            sign = Text("? too busy", style="yellow")
        table.add_row("" if one.trial == before else one.trial, one.done, one.found, sign)
        before = one.trial
    console = Console(highlight=False, emoji=False, markup=False)
    if console.is_terminal:
        console.print(table)
    else:  # a pipe or a file: no trailing spaces
        console.width = max(console.width, 120)
        with console.capture() as capture:
            console.print(table)
        lines = (line.rstrip() for line in capture.get().splitlines())
        click.echo("\n".join(line for line in lines if line))
    wrong = sum(1 for one in findings if not one.right)
    click.echo(f"selftest: {verdict}, {len(findings) - wrong} of {len(findings)} right")


_EXAMPLES = {
    "hitless selftest --quick": "does this machine measure right? About a minute",
    "hitless selftest --backend legacy --json": "the same for iptables-legacy, for scripts",
}


@click.command(name="selftest", cls=Sections, examples=_EXAMPLES, epilog=HELP)
@click.option("--backend", type=click.Choice(BACKENDS), default="nft", show_default=True)
@click.option("--family", type=click.Choice(["ipv4", "ipv6"]), default="ipv4", show_default=True)
@click.option("--quick", is_flag=True, help="A third of the gaps.")
@click.option("--only", metavar="A,B", help="Only these trials, by name.")
@click.option("--out", type=FolderParameter(), metavar="DIR", help="Keep the event log here.")
@click.option("--json", "as_object", is_flag=True, help="Print one JSON object instead of the table.")
@click.pass_context
def command(
    ctx: click.Context, /, backend: str, family: str, quick: bool, only: str | None, out: Path | None, as_object: bool
) -> int:
    """Test the tester: inject known gaps and losses, stop and kill its tools, and find all of it."""
    place = lab.LabPlan(family=family, backend=Backend(backend))
    chosen = trials(place.backend, quick=quick)
    if only is not None:
        names = {name.strip() for name in only.split(",")}
        unknown = names - {trial.name for trial in chosen}
        if unknown:
            known = ", ".join(trial.name for trial in chosen)
            raise InputError(
                f"there is no trial {', '.join(map(repr, sorted(unknown)))}", where="--only", expected=known
            )
        chosen = [trial for trial in chosen if trial.name in names]
    with tempfile.TemporaryDirectory(prefix="hitless-selftest-") as folder:
        log = (out or Path(folder)) / "events.jsonl"
        with view([trial.name for trial in chosen], 1) as observer:
            findings = interruptible(selftest.run(chosen, place, log, observer=observer, origin=here(typed(ctx))))
    verdict = selftest.overall(findings)
    if as_object:
        found = [asdict(one) for one in findings]
        click.echo(json.dumps({"schema": 1, "verdict": verdict, "findings": found}, indent=2))
    else:
        _show(findings, verdict)
    return EXITS[verdict]
