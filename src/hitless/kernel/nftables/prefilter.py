"""Which rules of a long chain can match a packet? Read from the bytes of the rule messages, without decoding them.

Problem: kube-proxy has a chain with a rule for each Service, a block list may be written as 50,000 rules, and decoding
them for one packet takes a minute. Promise: ``comparison`` finds the condition of a rule message that excludes most
packets: an address or port that is compared with a value, a network or a range before the rule has any effect.
``RuleIndex`` keeps these comparisons for a block of rules, so that the candidates for a packet are found without
reading the others; a rule without such a comparison is a candidate for every packet. It never decides that a rule
matches. Next stage: ``blocks``.

Comparisons are read from the rule's own expressions, one by one, and never searched for: a comment may contain any
bytes.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from hitless.errors import KernelError
from hitless.kernel import netlink
from hitless.kernel.netlink import attribute, text
from hitless.kernel.nftables import wire
from hitless.model.headers import PacketHeader

__all__ = ["LONG_CHAIN", "ComparedField", "KnownHeader", "RuleIndex", "comparison"]

LONG_CHAIN = 64
"""Chains with more rules are not decoded completely for one packet."""

_NETWORK, _TRANSPORT = 1, 2
_ATTRIBUTE, _LEAST = struct.Struct("=HH"), 12  # the shortest expression: two heads and a name
_EQUAL, _AT_MOST, _AT_LEAST = 0, 3, 5


class ComparedField(NamedTuple):
    """The bytes of a header that are compared: of the network (1) or transport header (2), under a mask (empty: none).
    ``version``: only in packets of that IP version (0: any)."""

    header: int
    offset: int
    length: int
    mask: bytes = b""
    version: int = 0


Found = tuple[ComparedField, bytes, bytes]
"""A compared field, and the lowest and highest value with which the rule may match."""


def _kind(number: int) -> bytes:
    """The second half of an attribute's head, after two bytes of length."""
    return re.escape(attribute(number, b"")[2:4])


def _expression(name: str, *parts: bytes) -> re.Pattern[bytes]:
    """An expression byte for byte as the kernel dumps it, except for lengths and the groups in parentheses."""
    return re.compile(re.escape(text(1, name)) + b".." + _kind(2) + b"".join(parts), re.DOTALL)


def _be32(number: int, value: bytes) -> bytes:
    return b".." + _kind(number) + value


_FIRST = rb"\x00\x00\x00\x01"  # the register that nft and iptables-nft use to compare
_LOAD = _expression(
    "payload",
    _be32(1, _FIRST),
    _be32(2, rb"\0\0\0([\x01\x02])"),
    _be32(3, rb"\0\0\0(.)"),
    _be32(4, rb"\0\0\0(.)"),
)
_COMPARE = _expression("cmp", _be32(1, _FIRST), _be32(2, rb"\0\0\0(.)"), b".." + _kind(3), b"(..)" + _kind(1), b"(.*)")
_MASK = _expression(
    "bitwise",
    *(_be32(1, _FIRST), _be32(2, _FIRST), _be32(3, b"....")),
    b"(?:" + _be32(6, rb"\0\0\0\0") + b")?",
    *(b".." + _kind(4), b"(..)" + _kind(1), b"(.*)"),  # the mask, and after two heads the xor value
)
_META = _expression("meta", _be32(2, rb"\0\0\0(.)"), _be32(1, b"...."))
_LOADS_OF = {text(1, name): keys for name, keys in (("ct", {1, 2, 3}), ("meta", {1, 2}), ("payload", {1, 2, 3, 4}))}
_VERSION, _NFPROTO, _PROTOCOL = 3, 15, 1  # a pseudo header; meta nfproto, meta protocol
_VERSIONS = {b"\x02": 4, b"\x0a": 6, b"\x08\x00": 4, b"\x86\xdd": 6}
_COUNTER = text(1, "counter")
_MATCH = text(1, "match")


def comparison(payload: bytes) -> Found | None:
    """The comparison of a rule message that excludes most packets; ``None`` if there is none."""
    best: Found | None = None
    bits = 0
    try:
        for found in _comparisons(payload):
            field, low, high = found
            if field.mask:
                value = int.from_bytes(field.mask, "big").bit_count()
            else:
                value = 8 * field.length
                if low != high:
                    value -= (int.from_bytes(high, "big") - int.from_bytes(low, "big")).bit_length()
            if value > bits:
                best, bits = found, value
    except (KernelError, IndexError, ValueError, struct.error):
        return None  # decoding it will report the error
    return best


def _comparisons(payload: bytes) -> Iterable[Found]:
    """Every comparison of an address or port before the rule has any effect."""
    loaded: ComparedField | None = None
    low: bytes | None = None
    version = 0
    unpack = _ATTRIBUTE.unpack_from
    at, stop = _expressions(payload)
    while at < stop:
        length, _ = unpack(payload, at)
        end = at + length
        if length < _LEAST or end > stop:
            return
        name, at, begin = payload[at + 8 : at + 12], at + ((length + 3) & ~3), at + 4
        if name == b"payl" and (match := _LOAD.fullmatch(payload, begin, end)) is not None:
            header, offset, width = match.groups()
            loaded, low = ComparedField(header[0], offset[0], width[0], b"", version), None
        elif name == b"cmp\0" and (match := _COMPARE.fullmatch(payload, begin, end)) is not None:
            if loaded is None:
                continue
            operation, value = match[1][0], match[3][: int.from_bytes(match[2], sys.byteorder) - 4]
            if loaded.header == _VERSION:
                version = _VERSIONS.get(value, 0) if operation == _EQUAL else version
            elif operation == _EQUAL and len(value) <= loaded.length:
                if len(value) == loaded.length:
                    yield loaded, value, value
                elif not loaded.mask:
                    yield loaded._replace(length=len(value)), value, value
            elif operation == _AT_LEAST and not loaded.mask and len(value) == loaded.length:
                low = value
            elif operation == _AT_MOST and low is not None and len(value) == len(low) and low <= value:
                yield loaded, low, value
        elif name == b"bitw" and (match := _MASK.fullmatch(payload, begin, end)) is not None:
            loaded, low = _masked(loaded, match), None
        elif name == b"meta" and (match := _META.fullmatch(payload, begin, end)) is not None:
            loaded = ComparedField(_VERSION, 0, 0) if match[1][0] in (_NFPROTO, _PROTOCOL) else None
        elif name == b"matc" and payload.startswith(_MATCH, begin):
            yield from _iprange(payload[0], payload[begin:end])
            return
        elif name != b"coun" or not payload.startswith(_COUNTER, begin):
            keys = next((keys for head, keys in _LOADS_OF.items() if payload.startswith(head, begin)), None)
            data = netlink.attributes(netlink.attributes(payload[begin:end]).get(wire.EXPRESSION_DATA, b""))
            if keys is None or not data.keys() <= keys or 1 not in data:
                return  # it may have an effect
            loaded = None


def _expressions(payload: bytes) -> tuple[int, int]:
    """Where the expressions begin and end; equal if there are none."""
    at, end = 4, len(payload)
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(payload, at)
        if length < 4 or at + length > end:
            break
        if kind & 0x3FFF == wire.RULE_EXPRESSIONS:
            return at + 4, at + length
        at += (length + 3) & ~3
    return 0, 0


def _masked(loaded: ComparedField | None, match: re.Match[bytes]) -> ComparedField | None:
    """A field under a mask, as networks are compared; ``None`` for any other operation."""
    if loaded is None or loaded.mask:
        return None
    width = int.from_bytes(match[1], sys.byteorder) - 4
    mask, xor = match[2][:width], match[2][(width + 3 & ~3) + 8 :]
    return None if width != loaded.length or len(xor) < width or any(xor) else loaded._replace(mask=mask)


_ADDRESSES = {2: (12, 16, 4), 10: (8, 24, 16)}
_RANGES = 16  # bytes of each of iprange's four addresses: source low, high, destination low, high


def _iprange(family: int, expression: bytes) -> Iterable[Found]:
    """iptables' ``-m iprange``, revision 1 (struct xt_iprange_mtinfo)."""
    data = netlink.attributes(netlink.attributes(expression).get(wire.EXPRESSION_DATA, b""))
    blob = data.get(3, b"")
    if netlink.to_text(data.get(1, b"")) != "iprange" or wire.number(data.get(2, b"")) != 1 or family not in _ADDRESSES:
        return
    if len(blob) < 4 * _RANGES + 1:
        return
    *offsets, width = _ADDRESSES[family]
    for number, offset in enumerate(offsets):
        low = blob[2 * number * _RANGES :][:width]
        high = blob[(2 * number + 1) * _RANGES :][:width]
        if blob[4 * _RANGES] & 0x11 << number == 1 << number and low <= high:
            yield ComparedField(_NETWORK, offset, width), low, high


class KnownHeader:
    """The bytes of a packet's headers that are known."""

    def __init__(self, header: PacketHeader) -> None:
        self.header = header
        self._values: dict[ComparedField, bytes | None] = {}
        if header.version == 4:
            fields = ((9, bytes((header.protocol,))), (12, header.source), (16, header.destination))
            network = _image(20, fields)
        else:  # in IPv6 the protocol may follow extension headers
            network = _image(40, ((8, header.source), (24, header.destination)))
        ports = ((0, header.part("sport")), (2, header.part("dport")))
        self._images = {_NETWORK: network, _TRANSPORT: _image(4, ports)}

    def value(self, field: ComparedField) -> bytes | None:
        """The packet's value of a field, under the mask; ``None``: not known. Empty: the packet has another IP
        version."""
        if field in self._values:
            return self._values[field]
        found = self._values[field] = self._read(field)
        return found

    def _read(self, field: ComparedField) -> bytes | None:
        if field.version and field.version != self.header.version:
            return b""
        image, known = (each[field.offset : field.offset + field.length] for each in self._images[field.header])
        if len(image) < field.length:
            return None
        if not field.mask:
            return image if known == b"\xff" * field.length else None
        mask = int.from_bytes(field.mask, "big")
        if int.from_bytes(known, "big") & mask != mask:
            return None
        return (int.from_bytes(image, "big") & mask).to_bytes(field.length, "big")


def _image(size: int, fields: Iterable[tuple[int, bytes | None]]) -> tuple[bytes, bytes]:
    image, known = bytearray(size), bytearray(size)
    for at, value in fields:
        if value is not None:
            image[at : at + len(value)] = value
            known[at : at + len(value)] = b"\xff" * len(value)
    return bytes(image), bytes(known)


class _Ranges:
    """Ranges of values, and the rules that compare them."""

    def __init__(self, ranges: list[tuple[bytes, bytes, int]]) -> None:
        ranges.sort()
        self._lows = [low for low, _, _ in ranges]
        self._ranges = ranges
        self._highest = list(accumulate((high for _, high, _ in ranges), max))

    def holding(self, value: bytes) -> list[int]:
        found = []
        for number in range(bisect_right(self._lows, value) - 1, -1, -1):
            if self._highest[number] < value:
                break
            if self._ranges[number][1] >= value:
                found.append(self._ranges[number][2])
        return found


class RuleIndex:
    """Some rules indexed by their comparisons. Compact: an address takes its four or sixteen bytes."""

    __slots__ = ("_exact", "_ranges", "_rest", "count")

    def __init__(self, payloads: Iterable[bytes]) -> None:
        exact: dict[ComparedField, tuple[list[bytes], array[int]]] = {}
        ranges: dict[ComparedField, list[tuple[bytes, bytes, int]]] = {}
        rest = array("H")
        number = -1
        for number, payload in enumerate(payloads):
            found = comparison(payload)
            if found is None:
                rest.append(number)
            elif found[1] == found[2]:
                values, numbers = exact.setdefault(found[0], ([], array("H")))
                values.append(found[1])
                numbers.append(number)
            else:
                ranges.setdefault(found[0], []).append((*found[1:], number))
        self.count = number + 1
        self._exact = {field: (b"".join(values), numbers) for field, (values, numbers) in exact.items()}
        self._ranges = {field: _Ranges(listed) for field, listed in ranges.items()}
        self._rest: Sequence[int] = tuple(rest)

    def candidates(self, known: KnownHeader) -> Sequence[int]:
        """The numbers of the rules that the packet may match, in order."""
        found = self.specific_rules(known)
        return sorted((*found, *self._rest)) if found else self._rest

    def specific_rules(self, known: KnownHeader) -> list[int]:
        """Those of them that have a comparison, in any order."""
        found: list[int] = []
        for field, (values, numbers) in self._exact.items():
            value = known.value(field)
            if value is None:
                found += numbers
                continue
            at, length = values.find(value) if value else -1, field.length
            while at >= 0:
                if at % length == 0:
                    found.append(numbers[at // length])
                at = values.find(value, at + 1)
        for field, ranges in self._ranges.items():
            value = known.value(field)
            found += ranges.holding(value) if value is not None else [number for *_, number in ranges._ranges]
        return found
