"""Groups flows that one evaluation can decide together.

Problem: a gap under load leaves thousands of flows, and an evaluation takes half a millisecond. Promise: two flows have
the same key only when they pass the same interfaces and every condition in every chain that an evaluated flow passed
has the same result for both. Each kind of condition names the fields by which it distinguishes flows
(``Match.distinguishes_flows``); the kinds of effects are listed here, and the type checker refuses a new one that is
not. Pure. Next stage: ``flows``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from hitless.kernel.addresses import Paths
from hitless.kernel.conntrack import Entry
from hitless.model.families import Address, Network
from hitless.model.matches.base import ALONE, Distinctions
from hitless.model.rules import (
    Accept,
    ConntrackTemplate,
    Dnat,
    Drop,
    Goto,
    Jump,
    Masquerade,
    Match,
    MoveMark,
    NoTrack,
    OneOf,
    OpaqueAction,
    Reject,
    Return,
    Ruleset,
    SetConnMark,
    SetMark,
    SetProperty,
    Silent,
    Snat,
    Step,
    UnknownMark,
)

__all__ = ["Grouping"]


class Grouping:
    """Learns every chain that an evaluated flow passed, which makes ``key`` finer."""

    def __init__(self, rules: Ruleset, paths: Paths) -> None:
        self._rules, self._paths = rules, paths
        self._chains: set[tuple[str, str, str]] = set()
        self._networks: list[Network] = []
        self._protocol = self._sport = self._dport = self._exact = False
        self._interfaces: dict[Address, str] = {}
        self._classes: dict[Address, object] = {}

    def interface(self, address: Address) -> str:
        """The interface that leads to an address."""
        if address not in self._interfaces:
            self._interfaces[address] = self._paths.interface(address)
        return self._interfaces[address]

    def key(self, entry: Entry) -> tuple[object, ...]:
        """Equal for flows that no rule known so far distinguishes."""
        original, target = entry.original, entry.reply.src
        return (
            self.interface(original.src),
            self.interface(target),
            self._class(original.src),
            self._class(target),
            original.protocol if self._protocol else None,
            original.sport if self._sport else None,
            entry.reply.sport if self._dport else None,
        )

    def learn(self, chains: Iterable[tuple[str, str, str]]) -> bool:
        """Add the conditions of chains that took part in an evaluation; true if keys are finer from now on."""
        new = set(chains) - self._chains
        self._chains |= new
        before = (len(self._networks), self._protocol, self._sport, self._dport, self._exact)
        for table in self._rules.tables:
            for family, name, chain in new:
                if (table.family, table.name) == (family, name) and chain in table.chains:
                    for rule in table.chains[chain].rules:
                        for step in rule.steps:
                            self._take(step)
        if before == (len(self._networks), self._protocol, self._sport, self._dport, self._exact):
            return False
        self._classes.clear()
        return True

    def _take(self, step: Step) -> None:
        match step:
            case Match():
                self._distinguish(step.distinguishes_flows())
            case OneOf() | OpaqueAction():
                self._distinguish(ALONE)
            case Accept() | Drop() | Reject() | Return() | Jump() | Goto() | NoTrack() | Silent():
                pass
            case Masquerade() | Snat() | Dnat():
                pass  # later hooks compare translated addresses, which are not known of any flow
            case SetMark() | SetConnMark() | MoveMark() | UnknownMark() | SetProperty() | ConntrackTemplate():
                pass  # a condition that reads the mark or the property is covered by Match
            case _:
                assert_never(step)

    def _distinguish(self, by: Distinctions) -> None:
        self._networks += [network for network in by.networks if network not in self._networks]
        self._protocol |= by.protocol
        self._sport |= by.sport
        self._dport |= by.dport
        # interfaces are part of every key
        self._exact |= by.alone or bool(by.members)

    def _class(self, address: Address) -> object:
        if self._exact:
            return address
        if address not in self._classes:
            self._classes[address] = tuple(address in network for network in self._networks)
        return self._classes[address]
