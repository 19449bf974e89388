"""What comparing a loaded field means, as conditions of the model.

Problem: nf_tables loads and compares bytes; users and the evaluator need sources, ports and marks. Promise: ``within``
says that a field lies between two byte strings, ``masked`` that it equals a value under a mask, as model conditions
that mean exactly that; ``None`` where the model has no such condition (the caller then adds ``Opaque``). It never
guesses. Layouts: RFC 791, RFC 8200, and the kernel's nf_tables.h for the meta and ct keys. Next stage: ``expressions``.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Network, IPv6Network

from hitless.kernel.nftables.elements import networks_between
from hitless.kernel.nftables.field_names import Part
from hitless.kernel.nftables.register_values import ADDRESS_TYPES, Context, Field, layout
from hitless.model.families import Network
from hitless.model.rules import (
    AddrType,
    AnyOf,
    ConnMark,
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
    Property,
    Protocol,
    ReversePath,
    SetMember,
    Source,
    SourcePort,
    TcpFlags,
)

__all__ = [
    "CT_LENGTHS",
    "META_LENGTHS",
    "among",
    "any_of",
    "masked",
    "membership",
    "within",
]

META_MARK, META_IIF, META_OIF, META_IIFNAME, META_OIFNAME, META_NFPROTO, META_L4PROTO = 3, 4, 5, 6, 7, 15, 16
META_PROTOCOL = 1
META_LENGTHS = {
    **{META_PROTOCOL: 2, META_IIFNAME: 16, META_OIFNAME: 16, META_NFPROTO: 1, META_L4PROTO: 1},
    **{8: 2, 9: 2, 12: 1, 19: 1, 25: 1, 26: 16, 27: 16, 30: 8, 31: 1, 34: 16},
}
"""Bytes that a meta key loads, if not four."""
CT_STATE, CT_STATUS, CT_MARK = 0, 2, 3
CT_LENGTHS = {1: 1, 6: 16, 7: 1, 8: 16, 9: 16, 10: 1, 11: 2, 12: 2, 13: 16, 14: 8, 15: 8, 16: 8, 17: 2, 21: 16, 22: 16}
"""Bytes that a ct key loads, if not four."""
_STATES = ((1, "INVALID"), (2, "ESTABLISHED"), (4, "RELATED"), (8, "NEW"), (64, "UNTRACKED"))
_STATUS = ((16, "SNAT"), (32, "DNAT"))  # IPS_SRC_NAT, IPS_DST_NAT
_LOOPBACK_INDEX = 1  # "lo" has index 1 in every network namespace
_EVERYTHING: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}
_ETHERTYPES = {0x0800: 4, 0x86DD: 6}
_NFPROTO = {2: 4, 10: 6}


def _host(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


def _network(value: bytes, mask: bytes) -> Network | None:
    """The network that ``value`` under ``mask`` is; ``None`` if the mask is not a prefix or the value has other
    bits."""
    bits = len(mask) * 8
    number = int.from_bytes(mask, "big")
    length = number.bit_count()
    if number != ((1 << bits) - 1) ^ ((1 << (bits - length)) - 1) or int.from_bytes(value, "big") & ~number:
        return None
    return IPv4Network((value, length)) if bits == 32 else IPv6Network((value, length))


def _part(name: str, data: bytes, mask: bytes, negated: bool) -> Match | None:
    """The condition that one whole named part equals ``data`` under ``mask``; ``None`` where the model has none."""
    if name in ("source", "destination"):
        network = _network(data, mask)
        if network is None:
            return None
        return Source(network, negated) if name == "source" else Destination(network, negated)
    if name == "flags":
        return TcpFlags(mask[0], data[0], negated)
    if any(byte != 0xFF for byte in mask):
        return None
    plain = int.from_bytes(data, "big")
    if name == "protocol":
        return Protocol(plain, negated)
    if name == "icmp":
        return IcmpType(plain, negated=negated)
    if name == "sport":
        return SourcePort(plain, plain, negated)
    return DestinationPort(plain, plain, negated) if name == "dport" else None


_OWN = frozenset({"source", "destination", "flags", "protocol", "icmp", "sport", "dport"})


def _payload(field: Field, data: bytes, mask: bytes, negated: bool, context: Context) -> tuple[Match, ...] | None:
    """Conditions for a payload compare; nft merges neighbouring fields into one load, which then becomes several
    conditions."""
    found: list[Match] = []
    covered = 0
    for part in layout(field, context):
        first, last = max(part.start, field.offset), min(part.start + part.size, field.offset + len(data))
        if first >= last:
            continue
        lead, tail = first - part.start, part.start + part.size - last
        inner = slice(first - field.offset, last - field.offset)
        part_mask = b"\0" * lead + mask[inner] + b"\0" * tail
        part_data = b"\0" * lead + data[inner] + b"\0" * tail
        covered += last - first
        if not any(part_mask):
            continue
        match = _part(part.kind, part_data, part_mask, negated)
        if match is None:
            number = int.from_bytes(part_data, "big")
            name = part.kind if part.kind not in _OWN else f"bits of the {part.kind}"
            text = _bits(part, part_data, part_mask, negated) or _compared(field, data, negated, context)
            match = Property(name, ((number, number),), _mask_of(part_mask), negated, text)
        found.append(match)
    if covered != len(data) or not found or (negated and len(found) > 1):
        return None
    return tuple(found)


_PARTS_OF_BYTES = {
    ("ip version", 0xF0): ("ip version", 4),
    ("ip version", 0x0F): ("ip hdrlength", 0),
    ("ip dscp", 0xFC): ("ip dscp", 2),
    ("ip dscp", 0x03): ("ip ecn", 0),
    ("ip6 flowlabel", 0x0FC00000): ("ip6 dscp", 22),
    ("ip6 flowlabel", 0x00300000): ("ip6 ecn", 20),
    ("ip6 flowlabel", 0x000FFFFF): ("ip6 flowlabel", 0),
    ("tcp doff", 0xF0): ("tcp doff", 4),
}
"""nft's names for some bits of a part, and by how many bits they are shifted."""


def _bits(part: Part, data: bytes, mask: bytes, negated: bool) -> str:
    """The condition as nft writes it, for bits that have a name of their own; else empty."""
    named = _PARTS_OF_BYTES.get((part.nft, int.from_bytes(mask, "big")))
    if named is None:
        return ""
    text, shift = named
    return f"{text} {'!= ' if negated else ''}{int.from_bytes(data, 'big') >> shift}"


def _mask_of(mask: bytes) -> int | None:
    return None if mask == b"\xff" * len(mask) else int.from_bytes(mask, "big")


def _compared(field: Field, data: bytes, negated: bool, context: Context) -> str:
    """A comparison with one value as nft writes it."""
    values = field.names.values if field.kind == "ct" else {}
    if any(field.mask) and not any(data) and field.kind == "ct" and field.names.name == "ct label":
        bit = int.from_bytes(field.mask, field.order).bit_length() - 1
        return f"ct label {'' if negated else '! '}{bit}"
    if any(field.mask) and not any(data) and values:  # nft writes "one of" as "& bits != 0"
        bits = int.from_bytes(field.mask, field.order)
        listed = ",".join(name for bit, name in values.items() if bits & bit)
        return f"{field.names.nft} {'' if negated else '! '}{listed or hex(bits)}"
    shown = field.shown(data, context)
    if any(field.mask):
        return f"{field.nft(context)} {'!=' if negated else '=='} {shown}"
    return f"{field.nft(context)} {'!= ' if negated else ''}{shown}"


def _states(value: int, table: tuple[tuple[int, str], ...]) -> frozenset[str] | None:
    names = frozenset(name for bit, name in table if value & bit)
    return names if names and value == sum(bit for bit, name in table if name in names) else None


def _interface(field: Field, data: bytes, negated: bool) -> tuple[Match, ...] | None:
    if field.mask:
        return None
    if field.key in (META_IIF, META_OIF):
        if _host(data) != _LOOPBACK_INDEX:
            return None
        name = "lo"
    else:
        # a compare of all 16 bytes, or one with the NUL, is the whole name; a shorter one is a prefix
        name = data.split(b"\0", 1)[0].decode("utf-8", "replace")
        if b"\0" not in data and len(data) < 16:
            name += "+"
    incoming = field.key in (META_IIF, META_IIFNAME)
    return (InInterface(name, negated) if incoming else OutInterface(name, negated),)


def _meta(field: Field, data: bytes, mask: bytes, negated: bool) -> tuple[Match, ...] | None:
    if field.key == META_MARK:
        return (Mark(_host(data), _host(mask), negated),)
    if field.key in (META_IIF, META_OIF, META_IIFNAME, META_OIFNAME):
        return _interface(field, data, negated)
    if field.mask:
        return None
    if field.key == META_L4PROTO:
        return (Protocol(data[0], negated),)
    if field.key in (META_NFPROTO, META_PROTOCOL):
        versions = _NFPROTO if field.key == META_NFPROTO else _ETHERTYPES
        version = versions.get(int.from_bytes(data, "big"))
        return None if version is None else (Source(_EVERYTHING[version], negated),)
    return None


def _ct(field: Field, data: bytes, mask: bytes, negated: bool) -> tuple[Match, ...] | None:
    if field.key == CT_MARK:
        return (ConnMark(_host(data), _host(mask), negated),)
    if field.key not in (CT_STATE, CT_STATUS):
        return None
    table = _STATES if field.key == CT_STATE else _STATUS
    if field.mask and not any(data):  # "& bits == 0" means none of them, "!= 0" one of them
        names = _states(_host(mask), table)
        return None if names is None else (CtState(names, not negated),)
    if field.key == CT_STATE and not field.mask:  # the state is one bit: equality is membership
        names = _states(_host(data), table)
        return (CtState(names, negated),) if names is not None and len(names) == 1 else None
    return None


def _fib(field: Field, data: bytes, negated: bool) -> tuple[Match, ...] | None:
    if field.mask:
        return None
    if not field.direction:
        # the outgoing interface of the route to the source, or 0 if the packet did not come in by it
        exists = negated if not any(data) else not negated if field.length == 1 else None
        return None if exists is None else (ReversePath(not exists),)
    if _host(data) < len(ADDRESS_TYPES):
        return (AddrType(field.direction, frozenset({ADDRESS_TYPES[_host(data)]}), negated),)
    return None


def masked(field: Field, data: bytes, negated: bool, context: Context) -> tuple[Match, ...] | None:
    """Conditions that hold when the field, with its mask, xor and shift, equals ``data`` (``negated``: does not)."""
    plain = data
    mask = field.mask or b"\xff" * len(data)
    if field.shift:
        data = (int.from_bytes(data, field.order) << field.shift).to_bytes(len(data) + 1, field.order)
        data = data[1:] if field.order == "big" else data[:-1]
    if field.xor and any(field.xor):
        if len(field.xor) != len(data):
            return None
        data = bytes(a ^ b for a, b in zip(data, field.xor, strict=True))
    if len(mask) < len(data):
        return None
    mask = mask[: len(data)]
    found: tuple[Match, ...] | None = None
    if not field.big:
        if field.kind == "payload":
            found = _payload(field, data, mask, negated, context)
        elif field.kind == "meta":
            found = _meta(field, data, mask, negated)
        elif field.kind == "ct":
            found = _ct(field, data, mask, negated)
        elif field.kind == "fib":
            return _fib(field, data, negated)
    if found is not None or field.kind in ("payload", "fib"):
        return found
    if len(data) < field.length and field.order == "big":  # a network of whole bytes is compared as a shorter value
        rest = bytes(field.length - len(data))
        data, mask = data + rest, mask + rest
    number = int.from_bytes(data, field.order)
    whole = all(byte == 0xFF for byte in mask)
    bits = None if whole else int.from_bytes(mask, field.order)
    return (Property(field.names.name, ((number, number),), bits, negated, _compared(field, plain, negated, context)),)


def _whole(field: Field, context: Context) -> Part | None:
    """The part, if the field is exactly one unchanged part of a header."""
    if field.kind != "payload" or field.mask or field.shift:
        return None
    for part in layout(field, context):
        if field.offset == part.start and field.length == part.size:
            return part
    return None


def _prefix(field: Field, low: bytes, high: bytes) -> str:
    """The prefix that all interface names from ``low`` to ``high`` have; empty: there is none, or not exactly these."""
    prefix = low.rstrip(b"\0")
    whole = field.key in (META_IIFNAME, META_OIFNAME) and len(low) == len(high) == field.length
    return prefix.decode("utf-8", "replace") if whole and high == prefix.ljust(len(low), b"\xff") else ""


def _interval(field: Field, low: bytes, high: bytes, context: Context) -> str:
    """An interval as nft writes it in a set."""
    if name := _prefix(field, low, high):
        return f'"{name}*"'
    end = "" if low == high else f"-{field.shown(high, context)}"
    return f"{field.shown(low, context)}{end}"


def within(field: Field, low: bytes, high: bytes, negated: bool, context: Context) -> tuple[Match, ...] | None:
    """Conditions that hold when ``low <= field <= high``, compared bytewise (``negated``: when not)."""
    if low == high:
        return masked(field, low, negated, context)
    part = _whole(field, context)
    if field.mask or field.shift or low > high or (field.kind == "payload" and part is None):
        return None
    text = f"{field.nft(context)} {'!= ' if negated else ''}{field.shown(low, context)}-{field.shown(high, context)}"
    first, last = int.from_bytes(low, "big"), int.from_bytes(high, "big")
    if part is None:
        if field.kind == "meta" and (name := _prefix(field, low, high)):
            incoming = field.key == META_IIFNAME
            return (InInterface(f"{name}+", negated) if incoming else OutInterface(f"{name}+", negated),)
        if field.names.text or field.kind == "fib":
            return None
        ordered = field.order == "big" or field.length == 1
        return (Property(field.names.name, ((first, last),), None, negated, text),) if ordered else None
    name = part.kind
    if name in ("sport", "dport"):
        port = SourcePort if name == "sport" else DestinationPort
        return (port(first, last, negated),)
    if name in ("source", "destination"):
        networks = networks_between(low, high)
        if len(networks) == 1:
            return (Source(networks[0], negated) if name == "source" else Destination(networks[0], negated),)
        side = "src" if name == "source" else "dst"
        return (SetMember("", side, frozenset(networks), negated),)
    if name in ("icmp", "protocol"):
        kind = IcmpType if name == "icmp" else Protocol
        return (AnyOf(tuple((kind(number),) for number in range(first, last + 1)), negated, text=text),)
    return None if name in _OWN else (Property(name, ((first, last),), None, negated, text),)


Intervals = tuple[tuple[bytes, bytes], ...]


def membership(
    field: Field, name: str, intervals: Intervals, negated: bool, context: Context
) -> tuple[Match, ...] | None:
    """One condition for an address or port in any of ``intervals``; ``None`` if the field is neither."""
    part = _whole(field, context)
    if part is None or any(low > high for low, high in intervals):
        return None
    if part.kind in ("sport", "dport"):
        ranges = tuple(sorted((int.from_bytes(low, "big"), int.from_bytes(high, "big")) for low, high in intervals))
        return (Ports("src" if part.kind == "sport" else "dst", ranges, negated),)
    if part.kind not in ("source", "destination"):
        return None
    networks = frozenset(network for low, high in intervals for network in networks_between(low, high))
    return (SetMember(name, "src" if part.kind == "source" else "dst", networks, negated),)


def among(field: Field, name: str, members: Members, negated: bool, context: Context) -> tuple[Match, ...] | None:
    """One condition for an address among ``members``; ``None`` if the field is not an address."""
    part = _whole(field, context)
    if part is None or part.kind not in ("source", "destination"):
        return None
    return (SetMember(name, "src" if part.kind == "source" else "dst", members, negated),)


_MOST_SHOWN = 12


def any_of(
    fields: list[tuple[slice, Field]],
    name: str,
    intervals: Intervals,
    negated: bool,
    context: Context,
) -> tuple[Match, ...] | None:
    """One condition for keys of any fields, of which each lies between ``low`` and ``high`` of one of the intervals."""
    groups: list[tuple[Match, ...]] = []
    shown: list[str] = []
    for low, high in intervals:
        group: list[Match] = []
        inner = context
        parts_shown: list[str] = []
        for part, field in fields:
            first, last = low[part], high[part]
            matches = within(field, first, last, False, inner)
            if matches is None:
                return None
            group += matches
            inner = inner.after(matches)
            if len(shown) < _MOST_SHOWN:
                parts_shown.append(_interval(field, first, last, context))
        groups.append(tuple(group))
        shown += [" . ".join(parts_shown)] if parts_shown else []
    more = f", … {len(groups) - len(shown)} more" if len(groups) > len(shown) else ""
    listed = f"@{name}" if name else f"{{ {', '.join(shown)}{more} }}"
    text = f"{' . '.join(field.nft(context) for _, field in fields)} {'!= ' if negated else ''}{listed}"
    return (AnyOf(tuple(groups), negated, name, text),)
