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
    DestinationPort,
    IcmpType,
    Ports,
    Protocol,
    Ruleset,
    SourcePort,
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
    """The candidates that the rules would translate now. One evaluation serves all flows that no rule tells apart."""
    known: dict[tuple[object, ...], bool] = {}
    tested = _Tested()
    for entry in entries:
        target = entry.reply.src
        if target in own:
            continue
        original = entry.original
        key = tested.key(entry)
        if key not in known:
            iif, oif = paths.interface(original.src), paths.interface(target)
            sport, dport = original.sport, entry.reply.sport
            packet = Packet(original.src, target, original.protocol, sport, dport, iif=iif, oif=oif)
            outcome = evaluate(rules, packet)
            if tested.learn(rules, outcome.chains):
                known.clear()  # a condition on ports has come into sight: what was known was too coarse
                key = tested.key(entry)
            known[key] = outcome.state == "carried"
        if known[key]:
            yield entry


class _Tested:
    """Which parts of a flow the rules on its way ask about."""

    def __init__(self) -> None:
        self._chains: set[tuple[str, str, str]] = set()
        self._finer = False

    def key(self, entry: Entry) -> tuple[object, ...]:
        """What tells this flow from others, as far as the rules are concerned."""
        original = entry.original
        if not self._finer:
            return original.src, entry.reply.src
        return original.src, entry.reply.src, original.protocol, original.sport, entry.reply.sport

    def learn(self, rules: Ruleset, chains: Iterable[tuple[str, str, str]]) -> bool:
        """Look at chains that took part in an answer; true when a key must be finer from now on."""
        new = set(chains) - self._chains
        self._chains |= new
        if self._finer:
            return False
        asking = Protocol | SourcePort | DestinationPort | Ports | TcpFlags | IcmpType
        for table in rules.tables:
            for family, name, chain in new:
                if (table.family, table.name) == (family, name) and chain in table.chains:
                    steps = (step for rule in table.chains[chain].rules for step in rule.steps)
                    self._finer = self._finer or any(isinstance(step, asking) for step in steps)
        return self._finer
