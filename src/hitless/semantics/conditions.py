"""Does a condition hold for this packet? Yes, no, or cannot tell.

Problem: a rule set may ask about things that a witness packet does not say, or that the reader of the rules did not
understand. Promise: ``holds`` answers ``True``, ``False`` or ``None`` (cannot tell), and ``None`` whenever the answer
would depend on something that is not in the packet. The packet is one that the node *forwards*: neither of its
addresses is the node's own. Written from the manuals (iptables-extensions(8), nft(8)) and the kernel's xt_*.c.
Marks change during the walk, so they are ``walk``'s business; within a group they are only looked at. What is known of
other properties is ``properties``' business. Next stage: ``walk``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from hitless.model.families import Family
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP
from hitless.model.rules import (
    AddrType,
    AnyOf,
    Comment,
    ConnMark,
    CtState,
    Destination,
    DestinationPort,
    Element,
    IcmpType,
    InInterface,
    Mark,
    Match,
    Opaque,
    OutInterface,
    Ports,
    Property,
    Protocol,
    ReversePath,
    SetMember,
    Source,
    SourcePort,
    TcpFlags,
)
from hitless.semantics.positions import with_mark
from hitless.semantics.properties import ABSENT, Possible, possible
from hitless.semantics.sight import Sight, addresses

__all__ = ["CHECKS", "Check"]

Check = Callable[[Any, Sight], bool | None]
"""``check(condition, sight)``. The first parameter's type is the key under which the check stands in ``CHECKS``."""

_WITH_PORTS = frozenset({TCP, UDP, 33, 132, 136})  # DCCP, SCTP, UDP-Lite
_SYN, _SYN_ACK = 0x02, 0x12
_ECHO_REQUEST, _ECHO_REPLY = {ICMP: 8, ICMPV6: 128}, {ICMP: 0, ICMPV6: 129}


def _source(step: Source, sight: Sight) -> bool | None:
    if step.network.version != sight.packet.src.version:
        return step.negated
    if step.network.prefixlen == 0:
        return not step.negated
    known = addresses(sight)
    if known is None:
        return None
    first, last = (int(address) for address in known)
    low, high = int(step.network.network_address), int(step.network.broadcast_address)
    if low <= first and last <= high:
        return not step.negated
    return step.negated if last < low or high < first else None


def _hidden(sight: Sight) -> bool:
    """Whether it goes to one of the node's own addresses, and to which one is not known."""
    return sight.packet.own and sight.packet.dst.is_unspecified


def _destination(step: Destination, sight: Sight) -> bool | None:
    if _hidden(sight):
        return None
    return (sight.packet.dst in step.network) is not step.negated


def _interface(name: str, step: InInterface | OutInterface) -> bool | None:
    if not name:
        return None
    pattern = step.name
    matched = name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern
    return matched is not step.negated


def _in_interface(step: InInterface, sight: Sight) -> bool | None:
    return _interface(sight.packet.iif, step)


def _out_interface(step: OutInterface, sight: Sight) -> bool | None:
    return _interface(sight.packet.oif, step)


def _protocol(step: Protocol, sight: Sight) -> bool | None:
    return (sight.packet.protocol == step.number) is not step.negated


def _source_port(step: SourcePort, sight: Sight) -> bool | None:
    if sight.packet.protocol not in _WITH_PORTS or sight.translated:
        return None
    return (step.first <= sight.packet.sport <= step.last) is not step.negated


def _destination_port(step: DestinationPort, sight: Sight) -> bool | None:
    if sight.packet.protocol not in _WITH_PORTS or sight.packet.own:  # a translation may have changed the port
        return None
    return (step.first <= sight.packet.dport <= step.last) is not step.negated


def _ports(step: Ports, sight: Sight) -> bool | None:
    packet = sight.packet
    if packet.protocol not in _WITH_PORTS or (sight.translated and step.direction != "dst"):
        return None
    if packet.own and step.direction != "src":
        return None
    ports = {"src": (packet.sport,), "dst": (packet.dport,), "either": (packet.sport, packet.dport)}[step.direction]
    return any(first <= port <= last for first, last in step.ranges for port in ports) is not step.negated


def _tcp_flags(step: TcpFlags, sight: Sight) -> bool | None:
    # Known are a flow's first packet, a plain SYN, and its answer. ECN set-up adds ECE and CWR, bits 0x40 and 0x80.
    packet = sight.packet
    if packet.protocol != TCP or not (packet.state == "NEW" or packet.reply) or step.mask & 0xC0:
        return None
    return ((_SYN_ACK if packet.reply else _SYN) & step.mask == step.value) is not step.negated


def _icmp_type(step: IcmpType, sight: Sight) -> bool | None:
    # The first packet of an ICMP flow is an echo request with code 0, its answer an echo reply.
    packet = sight.packet
    if packet.protocol not in _ECHO_REQUEST or not (packet.state == "NEW" or packet.reply):
        return None
    kind = (_ECHO_REPLY if packet.reply else _ECHO_REQUEST)[packet.protocol]
    return (step.type == kind and step.codes[0] <= 0 <= step.codes[1]) is not step.negated


def _ct_state(step: CtState, sight: Sight) -> bool | None:
    state, reply = sight.position.state, sight.packet.reply
    known = state not in ("INVALID", "UNTRACKED")
    matched: bool | None = state in step.states or ("SNAT" in step.states and (sight.translated or (reply and known)))
    if reply and known:  # of a flow whose source was translated, and nothing else
        return matched is not step.negated
    if not matched and step.states & {"SNAT", "DNAT"} and state not in ("NEW", "UNTRACKED", "INVALID"):
        matched = None  # an older flow may have been translated when it was new
    if step.negated and step.states & {"SNAT", "DNAT"} and state in ("INVALID", "UNTRACKED"):
        return None  # without a connection nft's expression ends the rule, whatever it asks for; xtables' does not
    return None if matched is None else matched is not step.negated


def _reverse_path(step: ReversePath, sight: Sight) -> bool | None:
    # A witness is a pod's own packet: it comes by the interface that leads to its address. After a translation the
    # source is the node's.
    return None if sight.translated else not step.negated


def _addr_type(step: AddrType, sight: Sight) -> bool | None:
    address = sight.packet.src if step.direction == "src" else sight.packet.dst
    if step.direction == "src" and sight.translated:
        return None
    # A forwarded packet's addresses are neither the node's own nor broadcast: the kernel would deliver or refuse it.
    kind = "MULTICAST" if address.is_multicast else "UNICAST"
    if sight.packet.own and step.direction == "dst":
        kind = "LOCAL"
    matched = kind in step.types
    if sight.packet.family is Family.IPV6 and len(step.types) > 1:
        # xt_addrtype's IPv6 side (match_type6) wants all of several types at once, nft's fib one of them.
        every = step.types == {kind}
        if every is not matched:
            return None
    return matched is not step.negated


def _set_member(step: SetMember, sight: Sight) -> bool | None:
    if step.name and step.name in sight.position.touched:
        return None  # a rule on the way has added to it
    directions = step.direction.split(",")
    if "dst" in directions and _hidden(sight):
        return None
    if step.elements is None:
        return _in_ipset(step, directions, sight)
    if directions == ["src"]:
        known = addresses(sight)
        if known is None or known[0] != known[1]:
            return None
        address = known[0]
    elif directions == ["dst"]:
        address = sight.packet.dst
    else:
        return None
    if isinstance(step.elements, frozenset):
        return any(address in network for network in step.elements) is not step.negated
    return step.elements.covers(address) is not step.negated


def _in_ipset(step: SetMember, directions: list[str], sight: Sight) -> bool | None:
    if sight.node is None or step.number is None or ("src" in directions and sight.translated):
        return None
    matched = sight.node.in_set(step.number, directions, sight.packet)
    return None if matched is None else matched is not step.negated


_PROTOCOL_WITH_PORTS = frozenset({TCP, UDP})


def _element(step: Element, sight: Sight) -> bool | None:
    if step.name in sight.position.touched or sight.node is None:
        return None
    parts: list[bytes] = []
    for name in step.key:
        part = _part_of(name, sight)
        if part is None:
            return None
        parts.append(part)
    matched = sight.node.has_element(step.family, step.table, step.name, tuple(parts))
    return None if matched is None else matched is not step.negated


def _part_of(name: str, sight: Sight) -> bytes | None:
    """What the packet has there, as a key of a set holds it."""
    packet, translated = sight.packet, sight.translated
    match name:
        case "source" if not translated:
            return packet.src.packed
        case "destination" if not _hidden(sight):
            return packet.dst.packed
        case "sport" | "transport sport" if packet.protocol in _PROTOCOL_WITH_PORTS and not translated:
            return packet.sport.to_bytes(2, "big")
        case "dport" | "transport dport" if packet.protocol in _PROTOCOL_WITH_PORTS and not packet.own:
            return packet.dport.to_bytes(2, "big")
        case "protocol":
            return bytes((packet.protocol,))
        case "in name" if packet.iif:
            return packet.iif.encode().ljust(16, b"\0")
        case "out name" if packet.oif and sight.hook != "prerouting":
            return packet.oif.encode().ljust(16, b"\0")
        case "mark" if not sight.position.unknown:
            return sight.position.mark.to_bytes(4, sys.byteorder)
    return None


def _property(step: Property, sight: Sight) -> bool | None:
    values = possible(step.name, sight)
    if values == ABSENT and values is not None:
        return False
    matched = _lies_in(values, step)
    return None if matched is None else matched is not step.negated


_MOST_VALUES = 64  # of a property under a mask that are looked at one by one


def _lies_in(values: Possible | None, step: Property) -> bool | None:
    if values is None:
        return None
    if step.mask is None:
        answers = {_within(value, step.ranges) for value in values}
    elif sum(high - low + 1 for low, high in values) <= _MOST_VALUES:
        every = {value & step.mask for low, high in values for value in range(low, high + 1)}
        answers = {_within((value, value), step.ranges) for value in every}
    else:
        return None
    return answers.pop() if len(answers) == 1 else None


def _within(value: tuple[int, int], ranges: tuple[tuple[int, int], ...]) -> bool | None:
    """Whether all of a range of values lies in ``ranges`` (``True``), or none of it does (``False``)."""
    low, high = value
    if any(first <= low and high <= last for first, last in ranges):
        return True
    return None if any(first <= high and low <= last for first, last in ranges) else False


def _any_of(step: AnyOf, sight: Sight) -> bool | None:
    if step.name and step.name in sight.position.touched:
        return None
    matched: bool | None = False
    for group in step.alternatives:
        truth = _all_of(group, sight)
        if truth:
            matched = True
            break
        if truth is None:
            matched = None
    if step.negated and any(_missing(each, sight) for group in step.alternatives[:1] for each in group):
        return False  # what is not there is in no set, and not outside of one either
    return None if matched is None else matched is not step.negated


def _all_of(group: tuple[Match, ...], sight: Sight) -> bool | None:
    whole: bool | None = True
    for step in group:
        truth = _truth(step, sight)
        if truth is False:
            return False
        if truth is None:
            whole = None
    return whole


def _truth(step: Match, sight: Sight) -> bool | None:
    if isinstance(step, Mark | ConnMark):
        holds, fails = with_mark(step, sight.position)
        return None if holds is not None and fails is not None else holds is not None
    return CHECKS[type(step)](step, sight)


def _missing(step: Match, sight: Sight) -> bool:
    if isinstance(step, Property):
        return possible(step.name, sight) == ABSENT
    return isinstance(step, ConnMark) and not sight.position.connected


def _comment(step: Comment, sight: Sight) -> bool | None:
    return True


def _opaque(step: Opaque, sight: Sight) -> bool | None:
    return None


CHECKS: Mapping[type, Check] = {
    Source: _source,
    Destination: _destination,
    InInterface: _in_interface,
    OutInterface: _out_interface,
    Protocol: _protocol,
    SourcePort: _source_port,
    DestinationPort: _destination_port,
    Ports: _ports,
    TcpFlags: _tcp_flags,
    IcmpType: _icmp_type,
    CtState: _ct_state,
    AddrType: _addr_type,
    ReversePath: _reverse_path,
    SetMember: _set_member,
    Property: _property,
    AnyOf: _any_of,
    Element: _element,
    Comment: _comment,
    Opaque: _opaque,
}
"""A check for every kind of condition but marks."""
