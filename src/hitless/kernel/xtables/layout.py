"""The layout of a legacy table's entries: ``struct ipt_entry`` and ``struct ip6t_entry``.

Shared by the decoder (``tables``) and the comparison (``polling``). Offsets are in bytes, numbers in the machine's byte
order, from include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from hitless.model.families import Family
from hitless.model.headers import PacketHeader

__all__ = ["LAYOUTS", "AddressIndex", "Layout", "compared_address", "entry_offsets", "same_entries"]


@dataclass(frozen=True, slots=True)
class Layout:
    """The offsets of the fields of an entry."""

    address: int  # bytes of an address
    protocol_at: int
    flags_at: int
    inverted_at: int
    sizes_at: int  # target_offset, next_offset
    counters_at: int  # packets and bytes, 16 bytes
    head: int  # bytes before the matches
    goto: int  # the flag that makes a jump a goto
    opaque_flags: int  # flags that the model cannot express
    protocol_flag: int  # the flag that says that the protocol counts; 0: it counts when it is not 0


LAYOUTS: Mapping[Family, Layout] = MappingProxyType(
    {
        Family.IPV4: Layout(4, 80, 82, 83, 88, 96, 112, goto=0x02, opaque_flags=0xFD, protocol_flag=0),
        Family.IPV6: Layout(16, 128, 131, 132, 140, 152, 168, goto=0x04, opaque_flags=0xFA, protocol_flag=0x01),
    }
)

_COUNTERS = 16
_INVERTED_SOURCE, _INVERTED_DESTINATION = 0x08, 0x10  # IPT_INV_SRCIP, IPT_INV_DSTIP, and IP6T's
_NOTHING = {4: bytes(4), 16: bytes(16)}
_PLACE = struct.Struct(">II")
_BLOCK = 128  # entries that are compared at once: about 25 kB, which memcmp does in microseconds


class AddressIndex:
    """The entries of one chain, indexed by the address that each compares: the source or the destination, whichever
    excludes more. ``count``: their number, with the RETURN that ends a user chain. Each has a number, from 1, and an
    offset."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self._width = width
        self._by_address: dict[tuple[int, bytes], list[bytes]] = {}  # by field (0 source, 1 destination) and mask
        self._rest: list[tuple[int, int]] = []

    def add(self, at: int, key: tuple[int, bytes] | None, value: bytes) -> None:
        """Add an entry; ``key`` ``None``: it may match any address."""
        self.count += 1
        if key is None:
            self._rest.append((self.count, at))
        else:
            self._by_address.setdefault(key, []).append(value + _PLACE.pack(self.count, at))

    def finish(self) -> AddressIndex:
        """Sort the index when all entries are added."""
        for records in self._by_address.values():
            records.sort()
        return self

    @property
    def offsets(self) -> Iterator[int]:
        """Of all entries, in no particular order."""
        yield from (at for _, at in self._rest)
        for records in self._by_address.values():
            yield from (_PLACE.unpack(record[self._width :])[1] for record in records)

    def candidates(self, header: PacketHeader) -> list[tuple[int, int]]:
        """The entries that a packet may match, in order."""
        found = self.specific_rules(header)
        return sorted((*found, *self._rest)) if found else self._rest

    def specific_rules(self, header: PacketHeader) -> list[tuple[int, int]]:
        """Those of them that compare an address."""
        found: list[tuple[int, int]] = []
        for (field, mask), records in self._by_address.items():
            address = header.destination if field else header.source
            if address is None or len(address) != self._width:
                found += (_PLACE.unpack(record[self._width :]) for record in records)
                continue
            masked = int.from_bytes(address, "big") & int.from_bytes(mask, "big")
            value = masked.to_bytes(self._width, "big")
            for number in range(bisect_left(records, value), len(records)):
                if not records[number].startswith(value):
                    break
                found.append(_PLACE.unpack(records[number][self._width :]))
        return found


def compared_address(layout: Layout, entries: bytes, at: int) -> tuple[tuple[int, bytes] | None, bytes]:
    """The address that the entry at ``at`` compares (arguments of ``AddressIndex.add``)."""
    width, inverted = layout.address, entries[at + layout.inverted_at]
    best: tuple[int, bytes] | None = None
    bits, value = 0, b""
    for field, inversion in ((1, _INVERTED_DESTINATION), (0, _INVERTED_SOURCE)):
        mask = entries[at + (field + 2) * width : at + (field + 3) * width]
        if inverted & inversion or mask == _NOTHING[width]:
            continue
        bits_compared = int.from_bytes(mask, "big").bit_count()
        if bits_compared > bits:
            best, bits, value = (field, mask), bits_compared, entries[at + field * width : at + (field + 1) * width]
    return best, value


def entry_offsets(family: Family, entries: bytes) -> Sequence[int]:
    """Where each entry begins, and the end; an entry of size 0 is the last one."""
    after_at = LAYOUTS[family].sizes_at + 2
    offsets = array("I")  # 50,000 of them at 5,000 Services
    at, end = 0, len(entries)
    while at + LAYOUTS[family].head <= end:
        offsets.append(at)
        size = struct.unpack_from("=H", entries, at + after_at)[0]
        if not size:
            break
        at += size
    offsets.append(end)
    return offsets


def same_entries(family: Family, offsets: Sequence[int], old: bytes, new: bytes) -> bool:
    """Whether two reads of a table differ only in counters; ``offsets`` are the entry offsets of ``old``."""
    if len(old) != len(new):
        return False
    if old == new:
        return True
    first, behind = LAYOUTS[family].counters_at, LAYOUTS[family].counters_at + _COUNTERS
    for block in range(0, len(offsets) - 1, _BLOCK):
        marks = offsets[block : block + _BLOCK + 1]
        if old[marks[0] : marks[-1]] == new[marks[0] : marks[-1]]:
            continue
        for at, end in pairwise(marks):
            if old[at : at + first] != new[at : at + first] or old[at + behind : end] != new[at + behind : end]:
                return False
    return True
