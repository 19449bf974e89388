"""Does the reply reach the pod?

Problem: a flow whose first packet is carried is still broken when its replies are dropped: a FORWARD policy without an
accept for replies, a DROP of established flows, a NOTRACK at prerouting. Promise: ``evaluate_reply`` walks the first
reply of a carried flow through the same rules: it comes in by the uplink, addressed to the node; conntrack recognises
it from priority -200 on; the NAT core restores the pod's address at -100; then it is forwarded to the pod. ``carried``
means here that it reaches the pod. Next stage: ``hitless.observe``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from hitless.model.families import Address
from hitless.model.packets import Packet
from hitless.model.rules import Ruleset
from hitless.semantics.chain_walk import Assumption, TooMuchError
from hitless.semantics.decisive import find_decisive
from hitless.semantics.outcome import Ending, Outcome, State
from hitless.semantics.reasons import Reasons
from hitless.semantics.walk import Walk
from hitless.semantics.walk_state import unwind

__all__ = ["evaluate_reply", "reply_to"]

_HOOKS = ("prerouting", "forward", "postrouting")
_ANY_ZONE = -1
_UNKNOWN: dict[int, Address] = {4: IPv4Address("0.0.0.0"), 6: IPv6Address("::")}
"""Stands for an address of the node that is not known."""


def reply_to(packet: Packet) -> Packet:
    """The first reply to a pod's first packet, as it is forwarded to the pod."""
    return replace(
        packet,
        src=packet.dst,
        dst=packet.src,
        sport=packet.dport,
        dport=packet.sport,
        iif=packet.oif,
        oif=packet.iif,
        mark=0,
        state="ESTABLISHED",
        reply=True,
    )


def evaluate_reply(
    ruleset: Ruleset,
    packet: Packet,
    hooks: Sequence[str] = _HOOKS,
    address: Address | None = None,
    carried: Outcome | None = None,
    *,
    explain: bool = True,
) -> Outcome:
    """The outcome for the first reply to ``packet``, which was carried.

    ``address`` is the node's address to which the flow was translated, where it is known. ``carried`` is the outcome
    for the packet itself: rules may have set its connection's mark and zone.
    """
    reply = reply_to(packet)
    arriving = replace(reply, dst=address or _UNKNOWN[packet.dst.version], own=True)

    sent = [ending for ending in (carried.endings if carried is not None else ()) if ending.kind != "dropped"]
    marks = dict.fromkeys(ending.connection for ending in sent)

    def walk_rules(assumed: Assumption | None) -> tuple[Walk, tuple[Ending, ...]]:
        walk = Walk(ruleset, reply, nat=False, arriving=arriving, assumed=assumed)
        flow = walk.start(hooks[0] if hooks else "", marks)
        for hook in hooks:
            if flow:
                flow = walk.hook(hook, flow)
        arrived = [
            Ending("arrived", unwind(trace), None, at.mark, at.unknown, zone=at.zone) for at, trace in flow.items()
        ]
        return walk, (*walk.endings.values(), *_in_zones(arrived, sent))

    try:
        walk, endings = walk_rules(None)
        kinds = {ending.kind for ending in endings}
        state: State = "cannot_tell"
        if kinds == {"arrived"}:
            state = "carried"
        elif kinds == {"dropped"}:
            state = "not_carried"
        if not explain:
            return Outcome(state, "", endings[0].path, frozenset(walk.chains), endings)
        shown, splitter = endings[0], None
        if state == "cannot_tell":
            shown, splitter = find_decisive(endings, lambda assumed: {ending.kind for ending in walk_rules(assumed)[1]})
    except TooMuchError as error:
        return Outcome("cannot_tell", "there are too many rules to follow", (), error.chains, ())
    reason = Reasons(ruleset, reply).answer(endings, state, shown, splitter)
    return Outcome(state, reason, shown.path, frozenset(walk.chains), endings)


def _in_zones(arrived: Iterable[Ending], sent: Sequence[Ending]) -> Iterator[Ending]:
    """The endings by conntrack zone: conntrack looks a reply up in the zone that rules choose for it. In a zone other
    than its connection's it finds none, and the reply is not forwarded to the pod."""
    zones = {ending.zone: ending.path for ending in sent} or {0: ()}
    for reply in arrived:
        for zone, path in zones.items():
            if zone == reply.zone != _ANY_ZONE:
                yield reply
                continue
            chosen = [visit for visit in (*path, *reply.path) if visit.kind == "zone"]
            path = (*reply.path, chosen[-1])  # the reason names this rule
            uncertain = _ANY_ZONE in (zone, reply.zone)
            yield replace(reply, kind="unknown", path=path) if uncertain else replace(reply, kind="dropped", path=path)
