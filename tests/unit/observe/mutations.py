"""Observers that make a mistake, one each: the comparison has to find every one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from tests.unit.observe.three import OBSERVERS, Node, Says

from hitless.model.packets import TCP
from hitless.model.rules import AnyOf, Chain, Ruleset, SetMember, Table
from hitless.observe import Witnesses, questions
from hitless.semantics import Outcome


@dataclass
class _Seeing(Node):
    """A node whose witnesses are changed for one observer."""

    change: Callable[[Witnesses], Witnesses] = lambda witnesses: witnesses

    def witnesses(self, asking: Any) -> Witnesses:
        return self.change(super().witnesses(asking))


def _reading(says: Says, table: Callable[[Table], Table | None]) -> Says:
    """An observer that reads tables differently."""

    def mistaken(ruleset: Ruleset, network: Any, subnet: Any, node: Node) -> tuple[str, str]:
        found = [table(each) for each in ruleset.tables]
        return says(Ruleset(tuple(each for each in found if each), ruleset.node), network, subnet, node)

    return mistaken


def _evaluating(says: Says, change: Callable[[Witnesses], Witnesses]) -> Says:
    """An observer that evaluates other packets."""
    return lambda ruleset, network, subnet, node: says(ruleset, network, subnet, _Seeing(node.pods, node.way, change))


def _without_answers(says: Says) -> Says:
    """An observer that does not evaluate answers."""

    def arrives(*_: object, **__: object) -> Outcome:
        return Outcome("carried", "", (), frozenset(), ())

    def mistaken(ruleset: Ruleset, network: Any, subnet: Any, node: Node) -> tuple[str, str]:
        with patch.object(questions, "evaluate_reply", arrives):
            return says(ruleset, network, subnet, node)

    return mistaken


def _sure(says: Says) -> Says:
    """An observer that reports what is not known as carried."""

    def mistaken(ruleset: Ruleset, network: Any, subnet: Any, node: Node) -> tuple[str, str]:
        state, why = says(ruleset, network, subnet, node)
        return ("carried" if state == "cannot_tell" else state), why

    return mistaken


def _chains(table: Table, keep: Callable[[Chain], bool]) -> Table:
    return replace(table, chains={name: chain for name, chain in table.chains.items() if keep(chain)})


def _without_rules(table: Table, kind: type) -> Table:
    return replace(
        table,
        chains={
            name: replace(chain, rules=tuple(r for r in chain.rules if not any(isinstance(s, kind) for s in r.steps)))
            for name, chain in table.chains.items()
        },
    )


def _at(hook: str) -> Callable[[Table], Table]:
    return lambda table: _chains(table, lambda chain: chain.hook is None or chain.hook.hook != hook)


def _tcp(witnesses: Witnesses) -> Witnesses:
    return replace(witnesses, packets=tuple(packet for packet in witnesses.packets if packet.protocol == TCP))


def _one_pod(witnesses: Witnesses) -> Witnesses:
    return replace(witnesses, pods=witnesses.pods[:1])


def _one_far_end(witnesses: Witnesses) -> Witnesses:
    return replace(
        witnesses, packets=tuple(packet for packet in witnesses.packets if packet.dst == witnesses.packets[0].dst)
    )


def _assumed(witnesses: Witnesses) -> Witnesses:
    return replace(witnesses, packets=tuple(replace(packet, oif=packet.oif or "up0") for packet in witnesses.packets))


_WATCH, _AGENT, _GUARD = (OBSERVERS[name] for name in ("watch", "agent", "guard"))
MUTATIONS: Mapping[str, tuple[str, Says]] = MappingProxyType(
    {
        "the agent does not read the legacy path": (
            "agent", _reading(_AGENT, lambda table: None if table.legacy else table)
        ),
        "the guard does not read inet tables": (
            "guard", _reading(_GUARD, lambda table: None if table.family == "inet" else table)
        ),
        "the watch does not read chains at prerouting": ("watch", _reading(_WATCH, _at("prerouting"))),
        "the agent does not read chains at forward": ("agent", _reading(_AGENT, _at("forward"))),
        "the guard passes over rules with sets": (
            "guard", _reading(_GUARD, lambda table: _without_rules(table, SetMember))
        ),
        "the agent passes over sets of several fields": (
            "agent", _reading(_AGENT, lambda table: _without_rules(table, AnyOf))
        ),
        "the watch asks about TCP alone": ("watch", _evaluating(_WATCH, _tcp)),
        "the guard asks about one far end": ("guard", _evaluating(_GUARD, _one_far_end)),
        "the agent asks about one pod": ("agent", _evaluating(_AGENT, _one_pod)),
        "the guard assumes an uplink that is not known": ("guard", _evaluating(_GUARD, _assumed)),
        "the watch does not ask about answers": ("watch", _without_answers(_WATCH)),
        "the agent takes for carried what it cannot tell": ("agent", _sure(_AGENT)),
    }
)  # fmt: skip
"""Each mistake: which observer makes it, and what it then reports."""
