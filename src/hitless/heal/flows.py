"""Frees flows that were bound without translation while the rules were missing.

Problem: a flow whose first packet left during a gap keeps its null binding as long as it sends packets, so that its
outage goes on after the rules are back. Promise: exactly those conntrack entries are deleted that come from a pod of
this node, were never answered, are not translated, lead to an address outside that is not the node's own, and that the
*current* rules would translate (by the evaluator; "cannot tell" counts as no). A flow that was ever answered, that a
rule exempts on purpose, or that stays inside the cluster is not touched. ``poisoned`` is pure; ``heal`` reads and
deletes by key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol as Interface

from hitless.heal.flow_groups import Grouping
from hitless.kernel.addresses import Paths
from hitless.kernel.conntrack import SEEN_REPLY, SRC_NAT, Entry
from hitless.model.families import Address, Family, Network, in_any
from hitless.model.packets import Packet
from hitless.model.rules import Ruleset
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

    ``pods``: this node's pod networks; ``inside``: networks of the cluster. ``own`` (the node's addresses), ``rules``
    and ``paths`` are called only if there is a candidate.
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
    return in_any(original.src, pods) and not in_any(target, inside)


def _answer_port(entry: Entry) -> int:
    """The port to which the answer comes back without source translation (ICMP answers carry no destination port)."""
    return entry.original.sport if entry.reply.dport else 0


def poisoned(entries: Iterable[Entry], own: frozenset[Address], rules: Ruleset, paths: Paths) -> Iterator[Entry]:
    """The candidates that the rules would translate now. One evaluation serves all flows that no rule distinguishes: a
    gap under load leaves thousands, and an evaluation takes half a millisecond."""
    known: dict[tuple[object, ...], bool] = {}
    alike = Grouping(rules, paths)
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
            # the tuple is the packet after prerouting, which is not evaluated again
            outcome = evaluate(rules, packet, hooks=("forward", "postrouting"))
            if alike.learn(outcome.chains):
                known.clear()  # new conditions: the earlier results were too coarse
                key = alike.key(entry)
            known[key] = outcome.state == "carried"
        if known[key]:
            yield entry
