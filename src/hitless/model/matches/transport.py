"""Conditions on the transport protocol and its header: ports, TCP's flags, ICMP's types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hitless.model.matches.base import NOTHING, Distinctions, Match, MatchContext, nft_list, span
from hitless.model.matches.native import Compare, Form, meta, transport_header
from hitless.model.packets import ICMP, ICMPV6, TCP

__all__ = ["MODULES", "PROTOCOLS", "DestinationPort", "IcmpType", "Ports", "Protocol", "SourcePort", "TcpFlags"]

PROTOCOLS = {
    **{1: "icmp", 2: "igmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre", 50: "esp", 51: "ah"},
    **{58: "ipv6-icmp", 132: "sctp", 136: "udplite"},
}
MODULES = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
"""The protocols with ports: iptables' match module, and nft's keyword before ``dport``."""
_IPTABLES_ALONE = {103: "pim", 112: "vrrp"}
_L4PROTO = 16  # NFT_META_L4PROTO
_WITH_PORTS = frozenset(MODULES)
_SYN, _SYN_ACK = 0x02, 0x12
_ECHO_REQUEST, _ECHO_REPLY = {ICMP: 8, ICMPV6: 128}, {ICMP: 0, ICMPV6: 129}
_FLAGS = ("fin", "syn", "rst", "psh", "ack", "urg", "ecn", "cwr")
_XTABLES_FLAGS = 6
_BOTH_PORTS = Distinctions(protocol=True, sport=True, dport=True)
_PROTOCOL = Distinctions(protocol=True)


def _port(source: bool, first: int, last: int, negated: bool) -> Compare:
    low, high = first.to_bytes(2, "big"), last.to_bytes(2, "big")
    return Compare(transport_header(0 if source else 2, 2), low, negated, high=None if low == high else high)


@dataclass(frozen=True, slots=True)
class Protocol(Match):
    """The transport protocol number (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6)."""

    number: int
    negated: bool = False

    def check(self, context: MatchContext) -> bool | None:
        """Always known."""
        return (context.packet.protocol == self.number) is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """An option in the rule's head."""
        name = {**PROTOCOLS, **_IPTABLES_ALONE}.get(self.number, self.number)
        return "", f"{'! ' if self.negated else ''}-p {name}"

    def nft(self, protocol: int) -> str:
        """By its name where it has one."""
        return f"meta l4proto {'!= ' if self.negated else ''}{PROTOCOLS.get(self.number, self.number)}"

    def distinguishes_flows(self) -> Distinctions:
        """By the protocol."""
        return _PROTOCOL

    def distinguishes_pods(self) -> Distinctions:
        """All pods are evaluated with the same protocols."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """Also behind IPv6's extension headers."""
        return [(Compare(meta(_L4PROTO), bytes((self.number,)), self.negated),)]


@dataclass(frozen=True, slots=True)
class SourcePort(Match):
    """The transport source port lies in ``first``..``last``, both included."""

    first: int
    last: int
    negated: bool = False
    names_protocol: ClassVar[bool] = True

    def check(self, context: MatchContext) -> bool | None:
        """A source translation may have changed the port."""
        if context.packet.protocol not in _WITH_PORTS or context.translated:
            return None
        return (self.first <= context.packet.sport <= self.last) is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """The protocol's own module."""
        ports = span(self.first, self.last, ":")
        return MODULES.get(protocol, "tcp"), f"{'! ' if self.negated else ''}--sport {ports}"

    def nft(self, protocol: int) -> str:
        """With the protocol, if the rule has one."""
        ports = span(self.first, self.last)
        return f"{MODULES.get(protocol, 'th')} sport {'!= ' if self.negated else ''}{ports}"

    def distinguishes_flows(self) -> Distinctions:
        """By the source port."""
        return Distinctions(protocol=True, sport=True)

    def distinguishes_pods(self) -> Distinctions:
        """All pods are evaluated with the same ports."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """Two bytes of the header."""
        return [(_port(True, self.first, self.last, self.negated),)]


@dataclass(frozen=True, slots=True)
class DestinationPort(Match):
    """The transport destination port lies in ``first``..``last``, both included."""

    first: int
    last: int
    negated: bool = False
    names_protocol: ClassVar[bool] = True

    def check(self, context: MatchContext) -> bool | None:
        """The port of a reply to the node itself may have been translated."""
        if context.packet.protocol not in _WITH_PORTS or context.packet.own:
            return None
        return (self.first <= context.packet.dport <= self.last) is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """The protocol's own module."""
        ports = span(self.first, self.last, ":")
        return MODULES.get(protocol, "tcp"), f"{'! ' if self.negated else ''}--dport {ports}"

    def nft(self, protocol: int) -> str:
        """With the protocol, if the rule has one."""
        ports = span(self.first, self.last)
        return f"{MODULES.get(protocol, 'th')} dport {'!= ' if self.negated else ''}{ports}"

    def distinguishes_flows(self) -> Distinctions:
        """By the destination port."""
        return Distinctions(protocol=True, dport=True)

    def distinguishes_pods(self) -> Distinctions:
        """All pods are evaluated with the same ports."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """Two bytes of the header."""
        return [(_port(False, self.first, self.last, self.negated),)]


@dataclass(frozen=True, slots=True)
class Ports(Match):
    """A transport port lies in one of ``ranges`` (both ends included): the source's (``direction`` "src"), the
    destination's ("dst"), or one of the two ("either"). For several ranges; for one use ``DestinationPort``."""

    direction: str
    ranges: tuple[tuple[int, int], ...]
    negated: bool = False
    names_protocol: ClassVar[bool] = True

    def check(self, context: MatchContext) -> bool | None:
        """Unknown if a compared port may have been translated."""
        packet, direction = context.packet, self.direction
        if packet.protocol not in _WITH_PORTS or (context.translated and direction != "dst"):
            return None
        if packet.own and direction != "src":
            return None
        ports = {"src": (packet.sport,), "dst": (packet.dport,), "either": (packet.sport, packet.dport)}[direction]
        return any(first <= port <= last for first, last in self.ranges for port in ports) is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_multiport."""
        option = {"src": "sports", "dst": "dports"}.get(self.direction, "ports")
        ranges = ",".join(span(*pair, ":") for pair in self.ranges)
        return "multiport", f"{'! ' if self.negated else ''}--{option} {ranges}"

    def nft(self, protocol: int) -> str:
        """An anonymous set."""
        which = {"src": "sport", "dst": "dport"}.get(self.direction, "port")
        ranges = nft_list([span(*pair) for pair in self.ranges])
        return f"{MODULES.get(protocol, 'th')} {which} {'!= ' if self.negated else ''}{ranges}"

    def distinguishes_flows(self) -> Distinctions:
        """By the ports."""
        return _BOTH_PORTS

    def distinguishes_pods(self) -> Distinctions:
        """All pods are evaluated with the same ports."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """One range must hold; negated, all must fail."""
        sides = {"src": (True,), "dst": (False,), "either": (True, False)}[self.direction]
        parts = [_port(side, first, last, self.negated) for side in sides for first, last in self.ranges]
        return [tuple(parts)] if self.negated else [(part,) for part in parts]


@dataclass(frozen=True, slots=True)
class TcpFlags(Match):
    """``TCP flags byte & mask == value`` (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32)."""

    mask: int
    value: int
    negated: bool = False
    names_protocol: ClassVar[bool] = True

    def check(self, context: MatchContext) -> bool | None:
        """Known for a flow's first packet, a plain SYN, and its reply. ECN adds ECE and CWR, bits 0x40 and 0x80."""
        packet = context.packet
        if packet.protocol != TCP or not (packet.state == "NEW" or packet.reply) or self.mask & 0xC0:
            return None
        return ((_SYN_ACK if packet.reply else _SYN) & self.mask == self.value) is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_tcp."""

        def names(bits: int) -> str:
            named = [name.upper() for bit, name in enumerate(_FLAGS[:_XTABLES_FLAGS]) if bits >> bit & 1]
            return ",".join(named) or "NONE"

        return "tcp", f"{'! ' if self.negated else ''}--tcp-flags {names(self.mask)} {names(self.value)}"

    def nft(self, protocol: int) -> str:
        """With the mask, as nft writes several flags."""

        def names(bits: int) -> str:
            return " | ".join(name for bit, name in enumerate(_FLAGS) if bits >> bit & 1) or "0x0"

        return f"tcp flags & ({names(self.mask)}) {'!=' if self.negated else '=='} {names(self.value)}"

    def distinguishes_flows(self) -> Distinctions:
        """First packets of one protocol have the same flags."""
        return _PROTOCOL

    def distinguishes_pods(self) -> Distinctions:
        """The same for all pods."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """A byte of the header."""
        return [(Compare(transport_header(13, 1), bytes((self.value,)), self.negated, bytes((self.mask,))),)]


@dataclass(frozen=True, slots=True)
class IcmpType(Match):
    """The ICMP or ICMPv6 type is ``type`` and its code lies in ``codes`` (both ends included)."""

    type: int
    codes: tuple[int, int] = (0, 255)
    negated: bool = False
    names_protocol: ClassVar[bool] = True

    def check(self, context: MatchContext) -> bool | None:
        """The first packet of an ICMP flow is an echo request with code 0, its reply an echo reply."""
        packet = context.packet
        if packet.protocol not in _ECHO_REQUEST or not (packet.state == "NEW" or packet.reply):
            return None
        kind = (_ECHO_REPLY if packet.reply else _ECHO_REQUEST)[packet.protocol]
        return (self.type == kind and self.codes[0] <= 0 <= self.codes[1]) is not self.negated

    def iptables(self, protocol: int) -> tuple[str, str]:
        """xt_icmp, xt_icmp6."""
        code = "" if self.codes == (0, 255) else f"/{span(*self.codes, ':')}"
        module, option = ("icmp6", "icmpv6-type") if protocol == ICMPV6 else ("icmp", "icmp-type")
        return module, f"{'! ' if self.negated else ''}--{option} {self.type}{code}"

    def nft(self, protocol: int) -> str:
        """Type and code are two conditions."""
        family = "icmpv6" if protocol == ICMPV6 else "icmp"
        code = "" if self.codes == (0, 255) else f" {family} code {span(*self.codes)}"
        return f"{family} type {'!= ' if self.negated else ''}{self.type}{code}"

    def distinguishes_flows(self) -> Distinctions:
        """First packets of one protocol have the same type."""
        return _PROTOCOL

    def distinguishes_pods(self) -> Distinctions:
        """The same for all pods."""
        return NOTHING

    def native(self, version: int) -> list[Form]:
        """Type and code are adjacent."""
        if self.codes == (0, 255):
            return [(Compare(transport_header(0, 1), bytes((self.type,)), self.negated),)]
        low, high = (bytes((self.type, code)) for code in self.codes)
        return [(Compare(transport_header(0, 2), low, self.negated, high=high),)]
