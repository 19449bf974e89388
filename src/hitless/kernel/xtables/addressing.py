"""The conditions in the head of an entry: addresses under a mask, names of interfaces. For ``tables``."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hitless.kernel.xtables.layout import LAYOUTS
from hitless.model import reading
from hitless.model.families import Family
from hitless.model.rules import Destination, InInterface, Match, Opaque, OutInterface, Property, Protocol, Source

__all__ = ["head_steps"]

_INTERFACE = 16  # IFNAMSIZ
_INV_IN, _INV_OUT, _INV_SOURCE, _INV_DESTINATION, _INV_PROTOCOL = 0x01, 0x02, 0x08, 0x10, 0x40
_FRAGMENT, _INV_FRAGMENT = 0x01, 0x20
_INV_OPAQUE = 0xFF & ~(_INV_IN | _INV_OUT | _INV_SOURCE | _INV_DESTINATION | _INV_PROTOCOL)


def head_steps(family: Family, entries: bytes, at: int) -> Iterator[Match]:
    """The conditions in the head of the entry at ``at``."""
    layout, size = LAYOUTS[family], LAYOUTS[family].address
    flags, inverted = entries[at + layout.flags_at], entries[at + layout.inverted_at]
    for kind, field, bit in ((Source, 0, _INV_SOURCE), (Destination, 1, _INV_DESTINATION)):
        address = entries[at + field * size : at + (field + 1) * size]
        mask = entries[at + (field + 2) * size : at + (field + 3) * size]
        if any(mask) or inverted & bit:
            network = _network(address, mask)
            if network is None:
                yield _bits(kind, address, mask, bool(inverted & bit))
            else:
                yield kind(network, bool(inverted & bit))
    names = at + 4 * size
    for interface, field, bit in ((InInterface, 0, _INV_IN), (OutInterface, 1, _INV_OUT)):
        name = entries[names + field * _INTERFACE : names + (field + 1) * _INTERFACE]
        mask = entries[names + (field + 2) * _INTERFACE : names + (field + 3) * _INTERFACE]
        if any(mask) or inverted & bit:
            text = _interface(name, mask)
            if text is None:
                yield Opaque(f"interface {name.hex()} mask {mask.hex()}")
            else:
                yield interface(text, bool(inverted & bit))
    (protocol,) = struct.unpack_from("=H", entries, at + layout.protocol_at)
    if flags & layout.protocol_flag or (not layout.protocol_flag and protocol):
        yield Protocol(protocol, bool(inverted & _INV_PROTOCOL))
    opaque = layout.opaque_flags
    if family is Family.IPV4 and (flags | inverted) & (_FRAGMENT | _INV_FRAGMENT):
        if flags & _FRAGMENT:  # "-f": not the first fragment: its offset is not 0
            yield Property("ip fragment", ((0, 0),), 0x1FFF, not inverted & _INV_FRAGMENT)
        opaque, inverted = opaque & ~_FRAGMENT, inverted & ~_INV_FRAGMENT
    if flags & opaque or inverted & _INV_OPAQUE:
        yield Opaque(f"flags {flags:#x}, inverted {inverted:#x}")


def _network(address: bytes, mask: bytes) -> IPv4Network | IPv6Network | None:
    """The network that an address and a mask are; ``None`` if the mask is not a prefix."""
    bits = int.from_bytes(mask, "big")
    width = len(mask) * 8
    length = bits.bit_count()
    if bits != ((1 << length) - 1) << (width - length):
        return None
    # ip_packet_match compares the masked packet address with the stored one: stored bits outside the mask never match.
    if int.from_bytes(address, "big") & ~bits:
        return None
    return IPv4Network((IPv4Address(address), length)) if width == 32 else IPv6Network((IPv6Address(address), length))


def _bits(kind: type[Source | Destination], address: bytes, mask: bytes, negated: bool) -> Property:
    """An address under a mask that is not a prefix."""
    value, option = int.from_bytes(address, "big"), "s" if kind is Source else "d"
    text = f"{'! ' if negated else ''}-{option} {reading.packed(address)}/{reading.packed(mask)}"
    name = f"bits of the {kind.__name__.lower()}"
    return Property(name, ((value, value),), int.from_bytes(mask, "big"), negated, text)


def _interface(name: bytes, mask: bytes) -> str | None:
    """The name, with "+" where it may continue; ``None`` for any other mask."""
    length = len(mask.rstrip(b"\0"))
    if mask[:length] != b"\xff" * length:
        return None
    stem = name[:length]
    if stem.endswith(b"\0"):  # the terminator is compared too: the exact name
        text = stem[:-1]
        return None if b"\0" in text else text.decode("utf-8", "replace")
    if b"\0" in stem:
        return None
    # a full-length name has no room for its terminator and is exact as well
    return stem.decode("utf-8", "replace") + ("" if length == _INTERFACE else "+")
