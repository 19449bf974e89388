"""What a register holds, and what comparing it means in the model's words.

Problem: nf_tables loads bytes into registers and compares bytes; people and the evaluator speak of sources, ports and
marks. Promise: ``within`` says that a loaded field lies between two byte strings, ``masked`` that it equals a value
under a mask, as model conditions that mean exactly that, or ``None`` when the model has no words for it (the caller
then writes ``Opaque``). What it never does: guess. Layouts: RFC 791, RFC 8200, and the kernel's nf_tables.h for the
meta and ct keys. Next stage: ``expressions``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network

from hitless.kernel.nftables.elements import networks_between
from hitless.model.families import Network
from hitless.model.rules import (
    AddrType,
    CtState,
    Destination,
    DestinationPort,
    IcmpType,
    InInterface,
    Mark,
    Match,
    Members,
    OutInterface,
    Ports,
    Protocol,
    ReversePath,
    SetMember,
    Source,
    SourcePort,
    TcpFlags,
)

__all__ = [
    "META_LENGTHS",
    "Constant",
    "Context",
    "Field",
    "Unknown",
    "Value",
    "among",
    "is_destination",
    "masked",
    "membership",
    "within",
]

NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
META_MARK, META_IIF, META_OIF, META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 3, 4, 5, 6, 7, 15, 16
META_PROTOCOL = 1
META_LENGTHS = {META_PROTOCOL: 2, META_IIFNAME: 16, META_OIFNAME: 16, META_NFPROTO: 1, META_L4PROTO: 1}
"""Bytes that a meta key loads, where not four."""
CT_STATE, CT_STATUS = 0, 2
_STATES = ((1, "INVALID"), (2, "ESTABLISHED"), (4, "RELATED"), (8, "NEW"), (64, "UNTRACKED"))
_STATUS = ((16, "SNAT"), (32, "DNAT"))  # IPS_SRC_NAT, IPS_DST_NAT
_ADDRESS_TYPES = (
    *("UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST"),
    *("BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE"),
)
_WITH_PORTS = frozenset({6, 17, 33, 132, 136})  # TCP, UDP, DCCP, SCTP, UDP-Lite
_LOOPBACK_INDEX = 1  # "lo" has index 1 in every network namespace
_EVERYTHING: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
_ETHERTYPES = {0x0800: 4, 0x86DD: 6}
_NFPROTO = {2: 4, 10: 6}


@dataclass(frozen=True, slots=True)
class Constant:
    """A register that holds these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Field:
    """A register that was loaded from the packet: ``kind`` payload, meta, ct or fib; ``key`` the header (payload) or
    the key number; ``value = (field & mask) ^ xor`` where those are set."""

    kind: str
    key: int
    offset: int = 0
    length: int = 4
    mask: bytes = b""
    xor: bytes = b""
    direction: str = ""

    def words(self) -> str:
        """For people."""
        if self.kind == "payload":
            header = {0: "link layer", NETWORK_HEADER: "network", TRANSPORT_HEADER: "transport"}.get(self.key, "inner")
            return f"{self.length} bytes at {header} header + {self.offset}"
        return f"{self.kind} key {self.key}"


@dataclass(frozen=True, slots=True)
class Unknown:
    """A register that holds something that the reader cannot follow."""

    text: str


Value = Constant | Field | Unknown


@dataclass(frozen=True, slots=True)
class Context:
    """What earlier conditions of the rule have established: IP version (4, 6, 0 unknown) and transport protocol."""

    version: int = 0
    protocol: int | None = None

    def after(self, matches: tuple[Match, ...]) -> Context:
        """The context once ``matches`` hold."""
        context = self
        for match in matches:
            if isinstance(match, Protocol) and not match.negated:
                context = replace(context, protocol=match.number)
            elif isinstance(match, Source) and match.network.prefixlen == 0 and not match.negated:
                context = replace(context, version=match.network.version)
        return context


def _host(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _network(value: bytes, mask: bytes) -> Network | None:
    """The network that ``value`` under ``mask`` stands for; ``None`` for a mask with holes or stray bits."""
    bits = len(mask) * 8
    number = int.from_bytes(mask, "big")
    length = number.bit_count()
    if number != ((1 << bits) - 1) ^ ((1 << (bits - length)) - 1) or int.from_bytes(value, "big") & ~number:
        return None
    return IPv4Network((value, length)) if bits == 32 else IPv6Network((value, length))


def _layout(field: Field, context: Context) -> tuple[tuple[str, int, int], ...]:
    """The named parts (name, start, size) of the header that a payload field was loaded from."""
    if field.key == NETWORK_HEADER:
        if context.version == 4:
            return (("protocol", 9, 1), ("source", 12, 4), ("destination", 16, 4))
        if context.version == 6:
            return (("protocol", 6, 1), ("source", 8, 16), ("destination", 24, 16))
    elif field.key == TRANSPORT_HEADER:
        if context.protocol in _WITH_PORTS:
            flags = (("flags", 13, 1),) if context.protocol == 6 else ()
            return (("sport", 0, 2), ("dport", 2, 2), *flags)
        if context.protocol in (1, 58):
            return (("icmp", 0, 1),)
    return ()


def _part(name: str, value: bytes, mask: bytes, negated: bool) -> Match | None:
    """The condition that one whole named part equals ``value`` under ``mask``."""
    if name in ("source", "destination"):
        network = _network(value, mask)
        if network is None:
            return None
        return Source(network, negated) if name == "source" else Destination(network, negated)
    if name == "flags":
        return TcpFlags(mask[0], value[0], negated)
    if any(byte != 0xFF for byte in mask):
        return None
    plain = int.from_bytes(value, "big")
    if name == "protocol":
        return Protocol(plain, negated)
    if name == "icmp":
        return IcmpType(plain, negated=negated)
    return SourcePort(plain, plain, negated) if name == "sport" else DestinationPort(plain, plain, negated)


def _payload(field: Field, value: bytes, mask: bytes, negated: bool, context: Context) -> tuple[Match, ...] | None:
    """Conditions for a payload compare; nft merges neighbouring fields into one load, so one may become several."""
    found: list[Match] = []
    covered = 0
    for name, start, size in _layout(field, context):
        first, last = max(start, field.offset), min(start + size, field.offset + len(value))
        if first >= last:
            continue
        lead, tail = first - start, start + size - last
        inner = slice(first - field.offset, last - field.offset)
        part_mask = b"\0" * lead + mask[inner] + b"\0" * tail
        covered += last - first
        if not any(part_mask):
            continue
        match = _part(name, b"\0" * lead + value[inner] + b"\0" * tail, part_mask, negated)
        if match is None:
            return None
        found.append(match)
    if covered != len(value) or not found or (negated and len(found) > 1):
        return None
    return tuple(found)


def _states(value: int, table: tuple[tuple[int, str], ...]) -> frozenset[str] | None:
    names = frozenset(name for bit, name in table if value & bit)
    return names if names and value == sum(bit for bit, name in table if name in names) else None


def _interface(field: Field, value: bytes, negated: bool) -> tuple[Match, ...] | None:
    if field.mask:
        return None
    if field.key in (META_IIF, META_OIF):
        if _host(value) != _LOOPBACK_INDEX:
            return None
        name = "lo"
    else:
        # a compare of all 16 bytes, or one with the NUL, is the whole name; a shorter one is a prefix
        name = value.split(b"\0", 1)[0].decode("utf-8", "replace")
        if b"\0" not in value and len(value) < 16:
            name += "+"
    incoming = field.key in (META_IIF, META_IIFNAME)
    return (InInterface(name, negated) if incoming else OutInterface(name, negated),)


def _meta(field: Field, value: bytes, mask: bytes, negated: bool) -> tuple[Match, ...] | None:
    if field.key == META_MARK:
        return (Mark(_host(value), _host(mask), negated),)
    if field.key in (META_IIF, META_OIF, META_IIFNAME, META_OIFNAME):
        return _interface(field, value, negated)
    if field.mask:
        return None
    if field.key == META_L4PROTO:
        return (Protocol(value[0], negated),)
    if field.key in (META_NFPROTO, META_PROTOCOL):
        versions = _NFPROTO if field.key == META_NFPROTO else _ETHERTYPES
        version = versions.get(int.from_bytes(value, "big"))
        return None if version is None else (Source(_EVERYTHING[version], negated),)
    return None


def masked(field: Field, value: bytes, negated: bool, context: Context) -> tuple[Match, ...] | None:
    """Conditions that hold when the field (with its own mask and xor) equals ``value`` (``negated``: does not)."""
    mask = field.mask or b"\xff" * len(value)
    if field.xor and any(field.xor):
        if len(field.xor) != len(value):
            return None
        value = bytes(a ^ b for a, b in zip(value, field.xor, strict=True))
    if len(mask) < len(value):
        return None
    mask = mask[: len(value)]
    if field.kind == "payload":
        return _payload(field, value, mask, negated, context)
    if field.kind == "meta":
        return _meta(field, value, mask, negated)
    if field.kind == "ct" and field.key in (CT_STATE, CT_STATUS):
        table = _STATES if field.key == CT_STATE else _STATUS
        if field.mask and not any(value):  # "& bits == 0" is how "not one of" is written; "!= 0" is "one of"
            names = _states(_host(mask), table)
            return None if names is None else (CtState(names, not negated),)
        if field.key == CT_STATE and not field.mask:  # the state is one bit: equality is membership
            names = _states(_host(value), table)
            return (CtState(names, negated),) if names is not None and len(names) == 1 else None
        return None
    if field.kind == "fib" and not field.direction:
        # the interface of the route back to the source, if it is the one that the packet came by: 0 where it is not
        exists = negated if not any(value) else not negated if field.length == 1 else None
        return None if exists is None or field.mask else (ReversePath(not exists),)
    if field.kind == "fib" and not field.mask and _host(value) < len(_ADDRESS_TYPES):
        return (AddrType(field.direction, frozenset({_ADDRESS_TYPES[_host(value)]}), negated),)
    return None


def _direction(field: Field, context: Context) -> tuple[str, int, int] | None:
    """The part's name, start and size when the field is exactly one part of a header."""
    for name, start, size in _layout(field, context):
        if field.offset == start and field.length == size:
            return name, start, size
    return None


def is_destination(field: Field, context: Context) -> bool:
    """Whether the field is the packet's destination address, whole and as it stands."""
    part = _direction(field, context) if field.kind == "payload" and not field.mask else None
    return part is not None and part[0] == "destination"


def within(field: Field, low: bytes, high: bytes, negated: bool, context: Context) -> tuple[Match, ...] | None:
    """Conditions that hold when ``low <= field <= high`` in network byte order (``negated``: when it does not)."""
    if low == high:
        return masked(field, low, negated, context)
    if field.kind != "payload" or field.mask or low > high:
        return None
    part = _direction(field, context)
    if part is None:
        return None
    name = part[0]
    if name in ("sport", "dport"):
        port = SourcePort if name == "sport" else DestinationPort
        return (port(int.from_bytes(low, "big"), int.from_bytes(high, "big"), negated),)
    if name in ("source", "destination"):
        networks = networks_between(low, high)
        if len(networks) == 1:
            return (Source(networks[0], negated) if name == "source" else Destination(networks[0], negated),)
        side = "src" if name == "source" else "dst"
        return (SetMember("", side, frozenset(networks), negated),)
    return None


def membership(
    field: Field, name: str, intervals: tuple[tuple[bytes, bytes], ...], negated: bool, context: Context
) -> tuple[Match, ...] | None:
    """One condition for an address or port in any of ``intervals``; ``None`` when the field is neither."""
    part = _direction(field, context) if field.kind == "payload" and not field.mask else None
    if part is None or any(low > high for low, high in intervals):
        return None
    if part[0] in ("sport", "dport"):
        ranges = tuple(sorted((int.from_bytes(low, "big"), int.from_bytes(high, "big")) for low, high in intervals))
        return (Ports("src" if part[0] == "sport" else "dst", ranges, negated),)
    if part[0] not in ("source", "destination"):
        return None
    networks = frozenset(network for low, high in intervals for network in networks_between(low, high))
    return (SetMember(name, "src" if part[0] == "source" else "dst", networks, negated),)


def among(field: Field, name: str, members: Members, negated: bool, context: Context) -> tuple[Match, ...] | None:
    """One condition for an address that is among ``members``; ``None`` when the field is no address."""
    part = _direction(field, context) if field.kind == "payload" and not field.mask else None
    if part is None or part[0] not in ("source", "destination"):
        return None
    return (SetMember(name, "src" if part[0] == "source" else "dst", members, negated),)
