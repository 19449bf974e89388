"""Match blobs: one decoder for each extension and revision.

Each decoder takes the extension's structure and the family, and returns the conditions that must all hold. It may
raise ``struct.error`` or ``ValueError`` on a blob that cannot be; ``extensions.decode_match`` turns that into
``Opaque``. The structures and their semantics are those of the kernel's uapi headers and net/netfilter/xt_*.c,
named at each decoder.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from types import MappingProxyType

from hitless.kernel.xtables.properties import PROPERTIES, Decoder, conntrack_properties, negation
from hitless.kernel.xtables.unpredictable import UNPREDICTABLE
from hitless.model.families import Family, Network
from hitless.model.packets import TCP, UDP
from hitless.model.rules import (
    AddrType,
    AnyOf,
    Comment,
    CtState,
    DestinationPort,
    IcmpType,
    Mark,
    Match,
    Opaque,
    Ports,
    Protocol,
    ReversePath,
    SetMember,
    SourcePort,
    TcpFlags,
)

__all__ = ["MATCHES", "Decoder"]

_ALL_PORTS = (0, 0xFFFF)


def _comment(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_comment.h: a NUL-terminated text of up to 256 bytes.
    return (Comment(data.split(b"\0", 1)[0].decode("utf-8", "replace")),)


def _mark(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_mark_mtinfo1: mark, mask, invert.
    mark, mask, invert = struct.unpack_from("=IIB", data)
    return (Mark(mark, mask, bool(invert)),)


def _port(kind: type[SourcePort | DestinationPort], first: int, last: int, negated: bool) -> tuple[Match, ...]:
    if (first, last) == _ALL_PORTS and not negated:
        return ()
    return (kind(first, last, negated),)


def _tcp(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_tcp: source and destination port ranges in host order, option, flags, inversions.
    s1, s2, d1, d2, option, mask, value, inverted = struct.unpack_from("=HHHHBBBB", data)
    steps: list[Match] = [Protocol(TCP)]
    steps += _port(SourcePort, s1, s2, bool(inverted & 0x01))
    steps += _port(DestinationPort, d1, d2, bool(inverted & 0x02))
    if mask or inverted & 0x04:
        steps.append(TcpFlags(mask, value, bool(inverted & 0x04)))
    if option:
        steps.append(Opaque(f"-m tcp {negation(inverted & 0x08)}--tcp-option {option}"))
    return tuple(steps)


def _udp(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_udp: source and destination port ranges in host order, inversions.
    s1, s2, d1, d2, inverted = struct.unpack_from("=HHHHB", data)
    return (
        Protocol(UDP),
        *_port(SourcePort, s1, s2, bool(inverted & 0x01)),
        *_port(DestinationPort, d1, d2, bool(inverted & 0x02)),
    )


def _icmp(data: bytes, family: Family) -> tuple[Match, ...]:
    # ipt_icmp, ip6t_icmp: type, range of codes, inversion. ICMP's type 255 stands for any (ip_tables.c).
    type_, first, last, inverted = struct.unpack_from("=BBBB", data)
    protocol = Protocol(1 if family is Family.IPV4 else 58)
    if family is Family.IPV4 and type_ == 0xFF:
        return (protocol, AnyOf((), text="-m icmp ! --icmp-type any")) if inverted & 1 else (protocol,)
    return (protocol, IcmpType(type_, (first, last), bool(inverted & 1)))


_PORT_DIRECTIONS = ("src", "dst", "either")


def _multiport(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_multiport_v1: direction, count, ports in host order, flags (1: this port and the next are a range), inversion.
    direction, count = data[0], data[1]
    ports = struct.unpack_from("=15H", data, 2)
    if count > len(ports) or direction >= len(_PORT_DIRECTIONS):
        raise ValueError("multiport")
    flags, inverted = data[32:47], bool(data[47])
    ranges: list[tuple[int, int]] = []
    index = 0
    while index < count:
        if flags[index]:
            if index + 1 >= count:
                raise ValueError("multiport range without an end")
            ranges.append((ports[index], ports[index + 1]))
            index += 2
        else:
            ranges.append((ports[index], ports[index]))
            index += 1
    return _ports(_PORT_DIRECTIONS[direction], tuple(ranges), inverted)


def _multiport_0(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_multiport: direction, count, single ports.
    direction, count = data[0], data[1]
    ports = struct.unpack_from("=15H", data, 2)
    if count > len(ports) or direction >= len(_PORT_DIRECTIONS):
        raise ValueError("multiport")
    return _ports(_PORT_DIRECTIONS[direction], tuple((port, port) for port in ports[:count]), False)


def _ports(direction: str, ranges: tuple[tuple[int, int], ...], negated: bool) -> tuple[Match, ...]:
    if len(ranges) == 1 and direction != "either":
        kind = SourcePort if direction == "src" else DestinationPort
        return (kind(*ranges[0], negated),)
    return (Ports(direction, ranges, negated),)


# Bits of the state mask: XT_CONNTRACK_STATE_BIT(ctinfo) = 1 << (ctinfo % 3 + 1); SNAT, DNAT, UNTRACKED above them.
_STATES = {
    1 << 0: "INVALID",
    1 << 1: "ESTABLISHED",
    1 << 2: "RELATED",
    1 << 3: "NEW",
    1 << 6: "SNAT",
    1 << 7: "DNAT",
    1 << 8: "UNTRACKED",
}
# xt_state.h has UNTRACKED at IP_CT_NUMBER + 1 and knows no SNAT and DNAT.
_OLD_STATES = {1 << 0: "INVALID", 1 << 1: "ESTABLISHED", 1 << 2: "RELATED", 1 << 3: "NEW", 1 << 6: "UNTRACKED"}


def _states(mask: int, names: Mapping[int, str], negated: bool) -> Match:
    known = 0
    for bit in names:
        known |= bit
    if mask & ~known:
        return Opaque(f"-m conntrack --ctstate {mask:#x}")
    return CtState(frozenset(name for bit, name in names.items() if mask & bit), negated)


def _state(data: bytes, family: Family) -> tuple[Match, ...]:
    (mask,) = struct.unpack_from("=I", data)
    return (_states(mask, _OLD_STATES, False),)


# match_flags and state_mask stand behind eight 16-byte addresses and masks, two 32-bit times, the protocol and 4 ports.
_CONNTRACK_AT = 8 * 16 + 8
_XT_STATE = 1 << 0
_XT_KNOWN = (1 << 14) - 1


def _conntrack(data: bytes, family: Family, revision: int) -> tuple[Match, ...]:
    # xt_conntrack_mtinfo1..3: the same head; the masks are 8 bits wide in revision 1, 16 in 2 and 3.
    flags, inverted = struct.unpack_from("=HH", data, _CONNTRACK_AT + 10)
    state_mask = struct.unpack_from("=B" if revision == 1 else "=H", data, _CONNTRACK_AT + 14)[0]
    steps: list[Match] = []
    if flags & _XT_STATE:
        steps.append(_states(state_mask, _STATES, bool(inverted & _XT_STATE)))
    steps += conntrack_properties(data, family, flags, inverted, revision)
    if unknown := flags & ~_XT_KNOWN:
        steps.append(Opaque(f"-m conntrack (flags {unknown:#x})"))
    return tuple(steps)


def _conntrack_of(revision: int) -> Decoder:
    return lambda data, family: _conntrack(data, family, revision)


_ADDRESS_TYPES = (
    "UNSPEC",
    "UNICAST",
    "LOCAL",
    "BROADCAST",
    "ANYCAST",
    "MULTICAST",
    "BLACKHOLE",
    "UNREACHABLE",
    "PROHIBIT",
    "THROW",
    "NAT",
    "XRESOLVE",
)
_LOCAL_ONLY = frozenset({"LOCAL"})


def _address_type(direction: str, mask: int, negated: bool, limited: bool) -> tuple[Match, ...]:
    if not mask:
        return ()
    types = frozenset(name for bit, name in enumerate(_ADDRESS_TYPES) if mask >> bit & 1)
    if mask >> len(_ADDRESS_TYPES) or (limited and types != _LOCAL_ONLY):
        return (Opaque(f"-m addrtype --{direction}-type {mask:#x}{' --limit-iface' if limited else ''}"),)
    # An address that is not the node's own is not LOCAL on any one interface either, so for LOCAL the limit to an
    # interface changes nothing for forwarded packets, the only ones that are evaluated.
    return (AddrType(direction, types, negated),)


def _addrtype_1(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_addrtype_info_v1: source and destination masks, flags.
    source, destination, flags = struct.unpack_from("=HHI", data)
    limited = bool(flags & 0x000C)
    return (
        *_address_type("src", source, bool(flags & 0x0001), limited),
        *_address_type("dst", destination, bool(flags & 0x0002), limited),
    )


def _addrtype_0(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_addrtype_info: source and destination masks, an inversion for each.
    source, destination, not_source, not_destination = struct.unpack_from("=HHII", data)
    return (
        *_address_type("src", source, bool(not_source), False),
        *_address_type("dst", destination, bool(not_destination), False),
    )


_SET_INVERTED = 0x01
_SET_RETURN_NOMATCH = 0x80


def _set(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_set_info: index, number of dimensions, flags (bit 0 inverted, bit n: dimension n is the source's). The set's
    # name and elements are ipset's to tell; the blob knows a number only. Bytes behind it are counter conditions.
    index, dimensions, flags = struct.unpack_from("=HBB", data)
    if dimensions > 6 or flags & _SET_RETURN_NOMATCH:
        return (Opaque(f"-m set --match-set #{index} … --return-nomatch"),)
    direction = ",".join("src" if flags >> n & 1 else "dst" for n in range(1, dimensions + 1))
    return (SetMember(f"#{index}", direction, None, bool(flags & _SET_INVERTED)),)


_SET_COUNTS_NOTHING = 1 << 3 | 1 << 4  # IPSET_FLAG_SKIP_(SUB)COUNTER_UPDATE


def _set_counting(data: bytes, operator_at: int) -> tuple[Match, ...]:
    # Revisions 3 and 4 go on with conditions on counters and end in flags; only a plain membership test is understood.
    (flags,) = struct.unpack_from("=I", data, 40)
    if flags & ~_SET_COUNTS_NOTHING or data[operator_at] or data[operator_at + 16]:
        return (Opaque("-m set (with conditions on counters)"),)
    return ()


def _set_3(data: bytes, family: Family) -> tuple[Match, ...]:
    return _set_counting(data, 8) or _set(data, family)


def _set_4(data: bytes, family: Family) -> tuple[Match, ...]:
    return _set_counting(data, 16) or _set(data, family)


def _iprange(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_iprange_mtinfo: first and last source, first and last destination (16 bytes each), flags.
    flags = struct.unpack_from("=B", data, 64)[0]
    steps: list[Match] = []
    for direction, bit, inverse, at in (("src", 0x01, 0x10, 0), ("dst", 0x02, 0x20, 32)):
        if not flags & bit:
            continue
        networks: frozenset[Network]
        if family is Family.IPV4:
            first, last = IPv4Address(data[at : at + 4]), IPv4Address(data[at + 16 : at + 20])
            networks = frozenset(summarize_address_range(first, last))
            name = f"range {first}-{last}"
        else:
            first6, last6 = IPv6Address(data[at : at + 16]), IPv6Address(data[at + 16 : at + 32])
            networks = frozenset(summarize_address_range(first6, last6))
            name = f"range {first6}-{last6}"
        steps.append(SetMember(name, direction, networks, bool(flags & inverse)))
    return tuple(steps)


_RPFILTER_INVERTED = 0x08
_RPFILTER_KNOWN = 0x0F  # loose, validmark and accept-local say how it looks the route up


def _rpfilter(data: bytes, family: Family) -> tuple[Match, ...]:
    # xt_rpfilter_info: flags.
    if data[0] & ~_RPFILTER_KNOWN:
        return (Opaque(f"-m rpfilter (flags {data[0]:#x})"),)
    return (ReversePath(bool(data[0] & _RPFILTER_INVERTED)),)


MATCHES: Mapping[tuple[str, int], Decoder] = MappingProxyType(
    {
        ("comment", 0): _comment,
        ("mark", 1): _mark,
        ("tcp", 0): _tcp,
        ("udp", 0): _udp,
        ("icmp", 0): _icmp,
        ("icmp6", 0): _icmp,
        ("multiport", 0): _multiport_0,
        ("multiport", 1): _multiport,
        ("state", 0): _state,
        ("conntrack", 1): _conntrack_of(1),
        ("conntrack", 2): _conntrack_of(2),
        ("conntrack", 3): _conntrack_of(3),
        ("addrtype", 0): _addrtype_0,
        ("addrtype", 1): _addrtype_1,
        ("set", 1): _set,
        ("set", 2): _set,
        ("set", 3): _set_3,
        ("set", 4): _set_4,
        ("iprange", 1): _iprange,
        ("rpfilter", 0): _rpfilter,
        **PROPERTIES,
        **UNPREDICTABLE,
    }
)
"""Decoders by extension name and revision; what is not here is opaque."""
