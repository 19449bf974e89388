"""Does a condition hold for this packet? Yes, no, or cannot tell.

Problem: a rule set may ask about things that a witness packet does not say, or that the reader of the rules did not
understand. Promise: ``holds`` answers ``True``, ``False`` or ``None`` (cannot tell), and ``None`` whenever the answer
would depend on something that is not in the packet. The packet is one that the node *forwards*: neither of its
addresses is the node's own. Written from the manuals (iptables-extensions(8), nft(8)) and the kernel's xt_*.c.
Marks change during the walk, so they are ``walk``'s business. Next stage: ``walk``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hitless.model.families import Family
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP, Packet
from hitless.model.rules import (
    AddrType,
    Comment,
    CtState,
    Destination,
    DestinationPort,
    IcmpType,
    InInterface,
    Opaque,
    OutInterface,
    Ports,
    Protocol,
    ReversePath,
    SetMember,
    Source,
    SourcePort,
    TcpFlags,
)

__all__ = ["CHECKS", "Check"]

Check = Callable[[Any, Packet, bool], bool | None]
"""``check(condition, packet, translated)``: ``translated`` says that the walk has given the flow a source translation.
The first parameter's type is the key under which the check stands in ``CHECKS``."""

_WITH_PORTS = frozenset({TCP, UDP, 33, 132, 136})  # DCCP, SCTP, UDP-Lite
_SYN, _SYN_ACK = 0x02, 0x12
_ECHO_REQUEST, _ECHO_REPLY = {ICMP: 8, ICMPV6: 128}, {ICMP: 0, ICMPV6: 129}


def _source(step: Source, packet: Packet, translated: bool) -> bool | None:
    # Rules behind a translation, in a later base chain, see the new source, and which one that is the rules do not say.
    return None if translated else (packet.src in step.network) is not step.negated


def _destination(step: Destination, packet: Packet, translated: bool) -> bool | None:
    if _hidden(packet):
        return None
    return (packet.dst in step.network) is not step.negated


def _hidden(packet: Packet) -> bool:
    """Whether it goes to one of the node's own addresses, and to which one is not known."""
    return packet.own and packet.dst.is_unspecified


def _interface(name: str, step: InInterface | OutInterface) -> bool | None:
    if not name:
        return None
    pattern = step.name
    matched = name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern
    return matched is not step.negated


def _in_interface(step: InInterface, packet: Packet, translated: bool) -> bool | None:
    return _interface(packet.iif, step)


def _out_interface(step: OutInterface, packet: Packet, translated: bool) -> bool | None:
    return _interface(packet.oif, step)


def _protocol(step: Protocol, packet: Packet, translated: bool) -> bool | None:
    return (packet.protocol == step.number) is not step.negated


def _source_port(step: SourcePort, packet: Packet, translated: bool) -> bool | None:
    if packet.protocol not in _WITH_PORTS or translated:
        return None
    return (step.first <= packet.sport <= step.last) is not step.negated


def _destination_port(step: DestinationPort, packet: Packet, translated: bool) -> bool | None:
    if packet.protocol not in _WITH_PORTS or packet.own:  # a translation may have changed the port
        return None
    return (step.first <= packet.dport <= step.last) is not step.negated


def _ports(step: Ports, packet: Packet, translated: bool) -> bool | None:
    if packet.protocol not in _WITH_PORTS or (translated and step.direction != "dst"):
        return None
    if packet.own and step.direction != "src":
        return None
    ports = {"src": (packet.sport,), "dst": (packet.dport,), "either": (packet.sport, packet.dport)}[step.direction]
    return any(first <= port <= last for first, last in step.ranges for port in ports) is not step.negated


def _tcp_flags(step: TcpFlags, packet: Packet, translated: bool) -> bool | None:
    # Known are a flow's first packet, a plain SYN, and its answer. ECN set-up adds ECE and CWR, bits 0x40 and 0x80.
    if packet.protocol != TCP or not (packet.state == "NEW" or packet.reply) or step.mask & 0xC0:
        return None
    return ((_SYN_ACK if packet.reply else _SYN) & step.mask == step.value) is not step.negated


def _icmp_type(step: IcmpType, packet: Packet, translated: bool) -> bool | None:
    # The first packet of an ICMP flow is an echo request with code 0, its answer an echo reply.
    if packet.protocol not in _ECHO_REQUEST or not (packet.state == "NEW" or packet.reply):
        return None
    matched = (
        step.type == (_ECHO_REPLY if packet.reply else _ECHO_REQUEST)[packet.protocol]
        and step.codes[0] <= 0 <= step.codes[1]
    )
    return matched is not step.negated


def _ct_state(step: CtState, packet: Packet, translated: bool) -> bool | None:
    known = packet.state not in ("INVALID", "UNTRACKED")
    matched: bool | None = packet.state in step.states or (
        "SNAT" in step.states and (translated or (packet.reply and known))
    )
    if packet.reply and known:  # of a flow whose source was translated, and nothing else
        return matched is not step.negated
    if not matched and step.states & {"SNAT", "DNAT"} and packet.state not in ("NEW", "UNTRACKED", "INVALID"):
        matched = None  # an older flow may have been translated when it was new
    if step.negated and step.states & {"SNAT", "DNAT"} and packet.state in ("INVALID", "UNTRACKED"):
        return None  # without a connection nft's expression ends the rule, whatever it asks for; xtables' does not
    return None if matched is None else matched is not step.negated


def _reverse_path(step: ReversePath, packet: Packet, translated: bool) -> bool | None:
    # A witness is a pod's own packet: it comes by the interface that leads to its address. After a translation the
    # source is the node's.
    return None if translated else not step.negated


def _addr_type(step: AddrType, packet: Packet, translated: bool) -> bool | None:
    address = packet.src if step.direction == "src" else packet.dst
    if step.direction == "src" and translated:
        return None
    # A forwarded packet's addresses are neither the node's own nor broadcast: the kernel would deliver or refuse it.
    kind = "MULTICAST" if address.is_multicast else "UNICAST"
    if packet.own and step.direction == "dst":
        kind = "LOCAL"
    matched = kind in step.types
    if packet.family is Family.IPV6 and len(step.types) > 1:
        # xt_addrtype's IPv6 side (match_type6) wants all of several types at once, nft's fib one of them.
        every = step.types == {kind}
        if every is not matched:
            return None
    return matched is not step.negated


def _set_member(step: SetMember, packet: Packet, translated: bool) -> bool | None:
    if step.elements is None or step.direction not in ("src", "dst") or (step.direction == "src" and translated):
        return None
    if step.direction == "dst" and _hidden(packet):
        return None
    address = packet.src if step.direction == "src" else packet.dst
    if isinstance(step.elements, frozenset):
        return any(address in network for network in step.elements) is not step.negated
    return step.elements.covers(address) is not step.negated


def _comment(step: Comment, packet: Packet, translated: bool) -> bool | None:
    return True


def _opaque(step: Opaque, packet: Packet, translated: bool) -> bool | None:
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
    Comment: _comment,
    Opaque: _opaque,
}
"""A check for every kind of condition but ``Mark``."""
