"""The shape of a legacy table's entries: ``struct ipt_entry`` and ``struct ip6t_entry``.

Shared by the decoder (``tables``) and the comparison (``polling``). Offsets are in bytes, numbers in the machine's
byte order, from include/uapi/linux/netfilter_ipv4/ip_tables.h and netfilter_ipv6/ip6_tables.h.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from hitless.model.families import Family

__all__ = ["LAYOUTS", "Layout", "Places", "by_destination", "entry_offsets", "same_entries"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the fields of an entry stand."""

    address: int  # bytes of an address
    protocol_at: int
    flags_at: int
    inverted_at: int
    sizes_at: int  # target_offset, next_offset
    counters_at: int  # packets and bytes, 16 bytes
    head: int  # bytes before the matches
    goto: int  # the flag that makes a jump a goto
    opaque_flags: int  # flags with a meaning that the model has no word for
    protocol_flag: int  # the flag that says that the protocol counts; 0: it counts when it is not 0


LAYOUTS: Mapping[Family, Layout] = MappingProxyType(
    {
        Family.IPV4: Layout(4, 80, 82, 83, 88, 96, 112, goto=0x02, opaque_flags=0xFD, protocol_flag=0),
        Family.IPV6: Layout(16, 128, 131, 132, 140, 152, 168, goto=0x04, opaque_flags=0xFA, protocol_flag=0x01),
    }
)

_COUNTERS = 16
_INVERTED_DESTINATION = 0x10  # IPT_INV_DSTIP, IP6T_INV_DSTIP
_BLOCK = 128  # entries that are compared at once: about 25 kB, which memcmp does in microseconds


@dataclass(frozen=True, slots=True)
class Places:
    """The entries of one user chain, each as (number from 1, offset): those for one destination only, by that address,
    and all others. ``count`` of them, with the RETURN that ends the chain."""

    exact: Mapping[bytes, Sequence[tuple[int, int]]]
    others: Sequence[tuple[int, int]]
    count: int

    def towards(self, destination: bytes) -> Sequence[tuple[int, int]]:
        """Those that may match a packet to ``destination``, in order."""
        found = self.exact.get(destination)
        return sorted((*found, *self.others)) if found else self.others


def by_destination(
    layout: Layout,
    entries: bytes,
    at: int,
    sizes: Callable[[int], tuple[int, int]],
    head_name: Callable[[int, int], str | None],
) -> Places:
    """Sort the entries of the user chain that begins at ``at``, looking at nothing but their destination.

    ``sizes`` gives an entry's checked sizes, ``head_name`` the name of the chain that an entry begins, if it does.
    """
    width = layout.address
    whole, length = b"\xff" * width, struct.Struct("=H").unpack_from
    exact: dict[bytes, list[tuple[int, int]]] = {}
    others: list[tuple[int, int]] = []
    number = 0
    while True:
        single = entries[at + 3 * width : at + 4 * width] == whole
        if single and not entries[at + layout.inverted_at] & _INVERTED_DESTINATION:
            number += 1
            exact.setdefault(entries[at + width : at + 2 * width], []).append((number, at))
            after = length(entries, at + layout.sizes_at + 2)[0]
            if after < layout.head:
                sizes(at)  # says what is wrong
        else:
            target, after = sizes(at)
            if head_name(at, target) is not None:
                return Places(exact, others, number)
            number += 1
            others.append((number, at))
        at += after


def entry_offsets(family: Family, entries: bytes) -> Sequence[int]:
    """Where each entry begins, and the end; what follows an entry without a size is one last entry."""
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
    """Whether two readings of a table differ in nothing but counters; ``offsets`` are the entry offsets of ``old``."""
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
