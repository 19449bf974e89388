"""What a packet passes at a hook, in order of priority: base chains, the NAT core, conntrack; and the rule in progress.

Values only, for ``walk``.
"""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple

from hitless.model.rules import Hook, Rule, Step, Table
from hitless.semantics.outcome import Visit, VisitKind
from hitless.semantics.walk_state import Flow

__all__ = [
    "CONNTRACK_PRIORITY",
    "NAT_PRIORITY",
    "BaseStage",
    "ConntrackStage",
    "NatStage",
    "RuleInProgress",
    "Stage",
    "priority_of",
]

NAT_PRIORITY = {"prerouting": -100, "output": -100, "postrouting": 100, "input": 100}
"""The priority of the NAT core at a hook. It calls the NAT base chains, whatever their own priority is: that only
orders them among each other (nf_nat_register_fn).
"""

CONNTRACK_PRIORITY = -200
"""The priority of conntrack at prerouting (NF_IP_PRI_CONNTRACK). Before it, rules see every packet as INVALID, and can
still exclude it from conntrack.
"""


class BaseStage(NamedTuple):
    """A base chain."""

    priority: int
    table: Table
    chain: str
    hook: Hook


class NatStage(NamedTuple):
    """The NAT core at a hook, and the base chains that it calls."""

    priority: int
    bases: list[BaseStage]


class ConntrackStage(NamedTuple):
    """Conntrack at a hook."""

    priority: int


Stage = BaseStage | NatStage | ConntrackStage

priority_of = attrgetter("priority")


class RuleInProgress(NamedTuple):
    """The rule that is being applied, and where its results go."""

    table: Table
    chain: str
    number: int
    rule: Rule
    rest: Flow  # goes on with the next rule
    back: Flow  # goes back to the calling chain
    accepted: Flow  # has ended its base chain
    stack: tuple[str, ...]
    translates: bool  # the base chain is of type nat, at a hook where sources are translated

    @property
    def place(self) -> tuple[str, str, bool, str, int]:
        return self.table.family, self.table.name, self.table.legacy, self.chain, self.number

    def visit(self, kind: VisitKind, text: str = "", step: Step | None = None) -> Visit:
        family, table, legacy, chain, number = self.place
        return Visit(kind, family, table, chain, number, self.rule, text, legacy, self.table.iptables, step)
