"""Which flows do the rules on their way not tell apart? They share one evaluation.

Problem: a gap under load leaves thousands of flows, and an evaluation takes half a millisecond. Promise: two flows have
the same key only when they pass the same interfaces and every condition in every chain that an evaluated flow passed
says the same of both. Every kind of step is listed here: the type checker refuses a new one that is not, and a property
that is not known to be the same for all flows makes every flow a case of its own. Pure. Next stage: ``flows``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from hitless.kernel.addresses import Paths
from hitless.kernel.conntrack import Entry
from hitless.model.families import Address, Network
from hitless.model.rules import (
    Accept,
    AddrType,
    AnyOf,
    Comment,
    ConnMark,
    CtState,
    Destination,
    DestinationPort,
    Dnat,
    Drop,
    Element,
    Goto,
    IcmpType,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    MoveMark,
    NoTrack,
    OneOf,
    Opaque,
    OpaqueAction,
    OutInterface,
    Ports,
    Property,
    Protocol,
    Reject,
    Return,
    ReversePath,
    Ruleset,
    SetConnMark,
    SetMark,
    SetMember,
    SetProperty,
    Silent,
    Snat,
    Source,
    SourcePort,
    Step,
    TcpFlags,
    UnknownMark,
)

__all__ = ["Grouping"]

_OF_NO_ADDRESS = frozenset(
    {"ip head", "ip option", "ip option present", "ip length", "ip fragment", "ttl", "ip6 length", "ip6 extensions"}
    | {"ip6 extension", "ip6 extension present", "family", "protocol family", "protocol", "icmp code", "anything"}
    | {"tcp acknowledgement", "tcp urgent", "text", "udp length", "packet type", "mark", "traced", "socket user"}
    | {"socket", "decrypted", "bound socket", "bridged", "ipvs", "master", "ipsec in state", "ipsec out"}
    | {"ipsec out state", "in index", "out index", "in group", "out group", "in kind", "out kind", "ct direction"}
    | {"ct status", "ct state", "ct mark", "ct helper", "ct zone", "ct label", "ct family", "ct protocol"}
)
"""Properties that say the same of all flows of one protocol between the same two interfaces. Of any other a flow's
address or port may be part."""


class Grouping:
    """Grows with every chain that an evaluated flow passed; ``key`` is then finer."""

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
        """Equal for flows that no rule known so far tells apart."""
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
        """Take up the conditions of chains that took part in an answer; true when keys are finer from now on."""
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
            case Source(network) | Destination(network):
                if network not in self._networks:
                    self._networks.append(network)
            case Protocol() | TcpFlags() | IcmpType():
                self._protocol = True
            case SourcePort():
                self._protocol = self._sport = True
            case DestinationPort():
                self._protocol = self._dport = True
            case Ports():
                self._protocol = self._sport = self._dport = True
            case Property(name):
                self._protocol = True
                if name not in _OF_NO_ADDRESS:
                    self._each_alone()
            case SetMember() | AddrType() | AnyOf() | Element() | ReversePath() | OneOf() | Opaque() | OpaqueAction():
                self._each_alone()
            case InInterface() | OutInterface() | Mark() | ConnMark() | CtState() | Comment():
                pass  # interfaces are part of every key; the rest looks at no address and no port
            case Accept() | Drop() | Reject() | Return() | Jump() | Goto() | NoTrack() | Silent():
                pass
            case Masquerade() | Snat() | Dnat():
                pass  # hooks behind a translation ask for what it made, which is not known of any flow
            case SetMark() | SetConnMark() | MoveMark() | UnknownMark() | SetProperty():
                pass  # what reads the mark or the property is listed above
            case _:
                assert_never(step)

    def _each_alone(self) -> None:
        self._protocol = self._sport = self._dport = self._exact = True

    def _class(self, address: Address) -> object:
        if self._exact:
            return address
        if address not in self._classes:
            version = address.version
            self._classes[address] = tuple(
                network.version == version and address in network for network in self._networks
            )
        return self._classes[address]
