"""Freeing flows that were bound without translation while the rules were gone.

Problem: a flow whose first packet left during a gap keeps its null binding for as long as it knocks: the outage goes on
after the rules are back. Promise: exactly those entries are deleted: from a pod of this node, never answered, not
translated, to an address outside that is not the node's own, and which the rules *as they stand now* would translate
(asked of the evaluator; "cannot tell" is no). A flow that was ever answered, that a rule exempts on purpose, or that
stays inside the cluster is not touched. ``poisoned`` is pure; ``heal`` reads and deletes by key. Shared with the guard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol as Interface

from hitless.kernel.addresses import Paths
from hitless.kernel.conntrack import SEEN_REPLY, SRC_NAT, Entry
from hitless.model.families import Address, Family, Network, family_of
from hitless.model.packets import Packet
from hitless.model.rules import (
    AddrType,
    AnyOf,
    Destination,
    DestinationPort,
    Element,
    IcmpType,
    OneOf,
    Opaque,
    OpaqueAction,
    Ports,
    Property,
    Protocol,
    Ruleset,
    SetMember,
    Source,
    SourcePort,
    Step,
    TcpFlags,
)
from hitless.semantics import evaluate

__all__ = ["ConntrackPort", "heal", "poisoned"]

_AT_ONCE = 64


class ConntrackPort(Interface):
    """The connection table, as far as healing needs it."""

    def dump(self, family: Family, *, without: int = 0) -> Iterator[Entry]:
        """Entries without these status bits."""

    def delete_all(self, family: Family, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Delete exactly these; those that were still there."""


def heal(
    table: ConntrackPort,
    family: Family,
    pods: Iterable[Network],
    inside: Iterable[Network],
    own: Callable[[], frozenset[Address]],
    rules: Callable[[], Ruleset],
    paths: Callable[[], Paths],
) -> int:
    """Delete every poisoned entry of a family; how many there were.

    ``pods``: this node's pod networks; ``inside``: networks that are no outside. ``own`` (the node's addresses),
    ``rules`` and ``paths`` are asked only when there is a candidate.
    """
    mine, cluster = tuple(pods), tuple(inside)
    candidates = [
        entry for entry in table.dump(family, without=SEEN_REPLY | SRC_NAT) if _candidate(entry, mine, cluster)
    ]
    if not candidates:
        return 0
    judged = poisoned(candidates, own(), rules(), paths())
    freed = 0
    while some := list(islice(judged, _AT_ONCE)):  # the first are freed while the last are still being judged
        freed += len(table.delete_all(family, some))
    return freed


def _candidate(entry: Entry, pods: Iterable[Network], inside: Iterable[Network]) -> bool:
    original, reply = entry.original, entry.reply
    if entry.status & (SEEN_REPLY | SRC_NAT) or reply.dst != original.src or reply.dport != _answer_port(entry):
        return False
    target = reply.src  # after destination translation: where the packet really went
    if target.is_multicast or target.is_loopback or target.is_link_local or target.is_unspecified:
        return False
    family = family_of(original.src)
    return any(original.src in network for network in pods if family_of(network) is family) and not any(
        target in network for network in inside if family_of(network) is family
    )


def _answer_port(entry: Entry) -> int:
    """The port to which the answer comes back without source translation (ICMP answers carry no destination port)."""
    return entry.original.sport if entry.reply.dport else 0


def poisoned(entries: Iterable[Entry], own: frozenset[Address], rules: Ruleset, paths: Paths) -> Iterator[Entry]:
    """The candidates that the rules would translate now. One evaluation serves all flows that no rule tells apart: a
    gap under load leaves thousands, and an evaluation takes half a millisecond."""
    known: dict[tuple[object, ...], bool] = {}
    alike = _Alike(rules, paths)
    for entry in entries:
        target = entry.reply.src
        if target in own:
            continue
        key = alike.key(entry)
        if key not in known:
            original = entry.original
            iif, oif = alike.interface(original.src), alike.interface(target)
            packet = Packet(
                original.src, target, original.protocol, original.sport, entry.reply.sport, iif=iif, oif=oif
            )
            # the tuple is what prerouting made of the packet: that is not asked again
            outcome = evaluate(rules, packet, hooks=("forward", "postrouting"))
            if alike.learn(outcome.chains):
                known.clear()  # conditions have come into sight: what was known was too coarse
                key = alike.key(entry)
            known[key] = outcome.state == "carried"
        if known[key]:
            yield entry


class _Alike:
    """Which flows the rules on their way cannot tell apart.

    Two flows that pass the same interfaces, and of which every condition in the chains that the first one passed says
    the same, take the same way. Conditions that are not understood here make every address a case of its own.
    """

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
        """What tells this flow from others, as far as the rules are concerned."""
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
        """Look at chains that took part in an answer; true when keys are finer from now on."""
        new = set(chains) - self._chains
        self._chains |= new
        before = (len(self._networks), self._protocol, self._sport, self._dport, self._exact)
        for table in self._rules.tables:
            for family, name, chain in new:
                if (table.family, table.name) == (family, name) and chain in table.chains:
                    for rule in table.chains[chain].rules:
                        for step in rule.steps:
                            self._see(step)
        if before == (len(self._networks), self._protocol, self._sport, self._dport, self._exact):
            return False
        self._classes.clear()
        return True

    def _see(self, step: Step) -> None:
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
                if any(word in name for word in ("source", "destination", "port", "recent")):
                    self._sport = self._dport = self._exact = True
            case SetMember() | AddrType() | AnyOf() | Element() | Opaque() | OpaqueAction() | OneOf():
                self._protocol = self._sport = self._dport = self._exact = True
            case _:
                pass  # marks, states, interfaces and effects do not look at addresses or ports

    def _class(self, address: Address) -> object:
        if self._exact:
            return address
        if address not in self._classes:
            version = address.version
            self._classes[address] = tuple(
                network.version == version and address in network for network in self._networks
            )
        return self._classes[address]
