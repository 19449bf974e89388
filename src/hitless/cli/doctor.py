"""``hitless doctor``: the first check of a node or a cluster. Nothing is changed.

Promise: findings as a table or one JSON object; the next command to type; a bundle for bug reports. Exit
codes: 0 nothing is wrong, 1 a problem was found, 2 something essential is not known, 3 wrong input or no access.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hitless.cleaning import cleaned
from hitless.cli.exits import Exit
from hitless.errors import InputError
from hitless.model import reading

if TYPE_CHECKING:
    from hitless.doctor import Diagnosis

__all__ = ["command"]

_MARKS = {"ok": ("✓", "green"), "note": ("!", "yellow"), "problem": ("✗", "red"), "unknown": ("?", "magenta")}
_LABELS = {"ok": ("OK", "green"), "problem": ("PROBLEM", "red"), "unknown": ("CANNOT TELL", "magenta")}
_WIDEST, _NARROWEST = 110, 50


@click.command(
    name="doctor",
    help="Check this node or a cluster: what a restart of its network agent costs, whether pods get out now, whether "
    "a guard stands by, and what to type next. Nothing is changed.\n\n"
    "Exit codes: 0 nothing is wrong, 1 a problem, 2 something essential is not known, 3 wrong input or no access."
    "\n\n"
    "Examples:\n\n"
    "\b\n"
    "  hitless doctor                        this node (as root)\n"
    "  hitless doctor --cluster              the cluster of your kubeconfig\n"
    "  hitless doctor --bundle report.tgz --mask   for a bug report, without addresses and names",
)
@click.option("--cluster", "cluster", is_flag=True, help="A cluster, as your kubeconfig names it.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="With --cluster: the kubeconfig file.")
@click.option("--context", metavar="NAME", help="With --cluster: the context of the kubeconfig.")
@click.option(
    "--network", "networks", multiple=True, metavar="CIDR", help="A pod network; repeat.  [default: the rules']"
)
@click.option(
    "--profile", default="", metavar="NAME|FILE", help="Whose rules to check.  [default: those that are found here]"
)
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a .tar.gz for a bug report.",
)
@click.option("--mask", is_flag=True, help="With --bundle: without addresses and names.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(
    cluster: bool,
    kubeconfig: Path | None,
    context: str | None,
    networks: tuple[str, ...],
    profile: str,
    bundle: Path | None,
    mask: bool,
    as_json: bool,
) -> int:
    """See the module's docstring."""
    _check(cluster, {"--kubeconfig": kubeconfig, "--context": context}, {"--network": networks, "--profile": profile})
    if mask and bundle is None:
        raise InputError("is for a bundle", where="--mask", expected="--bundle FILE")
    if bundle is not None and cluster:
        raise InputError("is about one node", where="--bundle", expected="it without --cluster, on the node")
    if cluster:
        from hitless.doctor.cluster import diagnose_cluster

        diagnosis = diagnose_cluster(kubeconfig, context)
    else:
        from hitless.doctor.node import diagnose_node

        diagnosis = diagnose_node(tuple(reading.network(one, where="--network") for one in networks), profile)
    if bundle is not None:
        from hitless.doctor import bundle as bundling

        names = bundling.own_names() if mask else None
        parts = bundling.write(bundle, diagnosis, click.unstyle(text(diagnosis, _WIDEST)), names=names)
        click.echo(f"{bundle}: {parts} parts{', masked' if mask else ''}; read it before you send it", err=True)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(diagnosis), indent=2).decode())
    else:
        width = shutil.get_terminal_size().columns
        click.echo(text(diagnosis, width), color=False if os.environ.get("NO_COLOR") else None)
    return {"ok": Exit.PASS, "problem": Exit.FAIL, "unknown": Exit.INCONCLUSIVE}[diagnosis.verdict]


def _check(cluster: bool, of_cluster: dict[str, object], of_node: dict[str, object]) -> None:
    for flag, given in (of_node if cluster else of_cluster).items():
        if given:
            raise InputError(
                "is about one node" if cluster else "is about a cluster",
                where=flag,
                expected="it without --cluster" if cluster else "it with --cluster",
            )


def text(diagnosis: Diagnosis, width: int) -> str:
    """The diagnosis as text, not wider than ``width``."""
    room = max(_NARROWEST, min(width, _WIDEST))
    shown = cleaned(diagnosis)
    label, colour = _LABELS[shown.verdict]
    lines = [f"{click.style(label, fg=colour, bold=True)}  {shown.subject}"]
    if shown.summary:
        lines += textwrap.wrap(shown.summary, room, break_long_words=False, break_on_hyphens=False)
    lines.append("")
    column = max(len(one.title) for one in shown.findings)
    for one in shown.findings:
        mark, colour = _MARKS[one.state]
        lead = f"{mark} {one.title:{column}}  "
        wrapped = textwrap.wrap(
            one.text,
            room,
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += [click.style(mark, fg=colour) + wrapped[0][1:], *wrapped[1:]]
        if one.command:
            lines.append(f"{' ' * len(lead)}→ {one.command}")
    why = textwrap.wrap(shown.next_why, room, initial_indent="      ", subsequent_indent="      ")
    return "\n".join([*lines, "", f"next  {click.style(shown.next, bold=True)}", *why])
