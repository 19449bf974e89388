"""Which agent runs on which node.

Problem: while one agent replaces another node by node, a cluster has both. Promise: a ``Team`` has one agent for every
node, and others for named nodes; ``split`` reads the option's form ``NODE=VALUE`` (nodes of a lab are node0, node1, …)
or ``VALUE`` for all other nodes. A node that the lab does not have, or that is named twice, is refused before anything
is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from hitless.errors import InputError
from hitless.lab.agents import Agent
from hitless.lab.clusters import LabNode
from hitless.lab.plans import LabPlan

__all__ = ["Team", "by_node", "split"]

_T = TypeVar("_T")
_NODE = re.compile(r"(node[0-9]{1,4})=(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Team:
    """``default`` on every node but those of ``others``."""

    default: Agent
    others: Mapping[str, Agent] = field(default_factory=lambda: MappingProxyType({}))

    def on(self, node: LabNode) -> Agent:
        """The node's agent."""
        return self.others.get(node.name, self.default)


def split(text: str) -> tuple[str, str]:
    """Node (empty where none is named) and value."""
    found = _NODE.fullmatch(text)
    return (found[1], found[2]) if found else ("", text)


def by_node(given: Iterable[tuple[str, _T]], plan: LabPlan, where: str) -> dict[str, _T]:
    """Values by node; the empty name is for all others."""
    known = [plan.node_name(number) for number in range(plan.nodes)]
    found: dict[str, _T] = {}
    for node, what in given:
        if node and node not in known:
            most = f"{known[0]} to {known[-1]}" if len(known) > 1 else f"{known[0]}; more with --nodes"
            raise InputError(f"there is no {node} in this lab", where=where, expected=most)
        if node in found:
            raise InputError(
                f"is given twice for {node or 'all nodes'}", where=where, expected="once, or NODE=… for one"
            )
        found[node] = what
    return found
