"""A lab as a list of its namespaces for users, and as one JSON object."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import textwrap
from collections.abc import Iterable

import click

from hitless.lab import supervision
from hitless.lab.clusters import LabCluster
from hitless.lab.states import LabState

__all__ = ["describe", "draw"]

_UNBROKEN = 1_000_000  # characters of a line that programs may read


def draw(cluster: LabCluster) -> None:
    """Print every place with its addresses."""
    for node in cluster.nodes:
        _place(node.name, map(str, node.addresses.values()))
        for pod in node.pods:
            _place(f"  {pod.name}", [*map(str, pod.addresses.values()), f" ({pod.interface})"])
    far = cluster.far_end
    _place(far.name, (str(address) for addresses in far.addresses.values() for address in addresses))


def _place(name: str, parts: Iterable[str]) -> None:
    """A line, broken between addresses on a terminal that is too narrow for it."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNBROKEN
    text = f"{name:<13} {' '.join(parts)}"
    click.echo("\n".join(textwrap.wrap(text, width, subsequent_indent=" " * 14, break_on_hyphens=False)))


def describe(state: LabState) -> dict[str, object]:
    """The object of ``--json`` for a lab."""
    summary: dict[str, object] = {
        "name": state.name,
        "alive": state.alive,
        "created": int(state.created),
        "keeper": state.keep.pid,
        "plan": dataclasses.asdict(state.plan),
        "agent": state.agent,
        "agents": supervision.read_status(state.keep) if state.alive else {},
    }
    if state.alive and state.held:
        cluster = state.cluster()
        summary["nodes"] = [
            {
                "name": node.name,
                "addresses": [str(each) for each in node.addresses.values()],
                "pods": [
                    {"name": pod.name, "addresses": [str(a) for a in pod.addresses.values()]} for pod in node.pods
                ],
            }
            for node in cluster.nodes
        ]
        summary["far_end"] = [str(a) for addresses in cluster.far_end.addresses.values() for a in addresses]
    return summary
