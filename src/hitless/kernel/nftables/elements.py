"""The elements of a set, stored compactly and in order.

Problem: a block list has a million elements, changes one element at a time, and every commit makes a new rule set that
others may still read. Promise: nine bytes for an IPv4 element (keys are packed side by side in blocks); copies share
all blocks, and a change replaces one of them, so that its cost does not depend on the size of the set; the last element
at or before a key is found by bisection. What an element means is up to ``sets``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from ipaddress import IPv4Address, IPv6Address, summarize_address_range
from operator import itemgetter
from typing import NamedTuple

from hitless.kernel.nftables.wire import ELEMENT_INTERVAL_END
from hitless.model.families import Network

__all__ = ["SetElement", "SetElements", "networks_between"]

_BLOCK = 256  # records; a block with twice as many is split
_MANY = 4096  # records that are sorted at once, then merged

_Row = tuple[bytes, bytes]
"""A record (key, end where elements have ends, flags) and the data that a map has for it."""

_record = itemgetter(0)


class SetElement(NamedTuple):
    """``key_end`` is empty where the element has none; ``data`` is a map's data for it, raw."""

    key: bytes
    key_end: bytes
    flags: int
    data: bytes = b""


class SetElements:
    """The elements of one set by key; at the same key, an interval's end comes before a beginning.

    ``ends``: each element has a second key (sets of concatenated intervals). Elements whose keys have another length
    are only counted, in ``misfits``.
    """

    __slots__ = ("_blocks", "_data", "_ends", "_firsts", "_size", "_zones", "count", "misfits", "width")

    def __init__(self, width: int, *, ends: bool = False) -> None:
        self.width, self._ends = width, ends
        self._size = width * (2 if ends else 1) + 1
        self._blocks: list[bytes] = []
        self._data: list[tuple[bytes, ...]] = []
        self._firsts: list[bytes] = []
        self._zones: dict[bytes, dict[tuple[int, int], tuple[bytes, bytes]]] = {}
        self.count = 0
        self.misfits = 0

    def copy(self) -> SetElements:
        """Independent elements that share all blocks."""
        other = SetElements(self.width, ends=self._ends)
        other._blocks, other._data, other._firsts = self._blocks.copy(), self._data.copy(), self._firsts.copy()
        other.count, other.misfits = self.count, self.misfits
        other._zones = self._zones
        return other

    def __len__(self) -> int:
        return self.count

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SetElements):
            return NotImplemented
        if self.count != other.count or self.misfits != other.misfits or self._size != other._size:
            return False
        if self._blocks == other._blocks and self._data == other._data:
            return True
        return all(a == b for a, b in zip(self, other, strict=True))  # the same elements may be split into other blocks

    def __hash__(self) -> int:
        return hash((self._size, self.count))

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return self.count * (self._size + (90 if any(self._data[:1]) else 0)) + 200 * len(self._blocks)

    def __iter__(self) -> Iterator[SetElement]:
        for at in range(len(self._blocks)):
            yield from self._of_block(at)

    def _of_block(self, at: int) -> Iterator[SetElement]:
        block, data, size = self._blocks[at], self._data[at], self._size
        for number in range(len(block) // size):
            yield self._element(block[number * size : (number + 1) * size], data[number] if data else b"")

    def _element(self, record: bytes, data: bytes) -> SetElement:
        width = self.width
        return SetElement(record[:width], record[width:-1], record[-1] ^ ELEMENT_INTERVAL_END, data)

    def _row(self, element: SetElement) -> _Row | None:
        if len(element.key) != self.width or len(element.key_end) != (self.width if self._ends else 0):
            return None
        # the lowest bit is inverted: at one key, the end of an interval sorts before the beginning of the next
        return element.key + element.key_end + bytes((element.flags & 0xFF ^ ELEMENT_INTERVAL_END,)), element.data

    # --- changes

    def add(self, elements: Iterable[SetElement]) -> None:
        """Add elements; existing ones are replaced."""
        rows, run = [], []
        for element in elements:
            row = self._row(element)
            if row is None:
                self.misfits += 1
            else:
                rows.append(row)
        if len(rows) * 8 > self.count and len(rows) > _BLOCK:
            run = [sorted(rows, key=_record)]
            self._merge([self._rows(), *run])
            return
        for row in rows:
            self._insert(*row)

    def load(self, parts: Iterable[Iterable[SetElement]]) -> None:
        """Replace all elements, given in any order; they are packed as they come."""
        runs: list[SetElements] = []
        rows: list[_Row] = []
        self.misfits = 0
        for part in parts:
            for element in part:
                row = self._row(element)
                if row is None:
                    self.misfits += 1
                else:
                    rows.append(row)
            if len(rows) >= _MANY:
                runs.append(self._run(rows))
                rows.clear()
        runs.append(self._run(rows))
        rows.clear()
        self._merge([run._rows() for run in runs])

    def _run(self, rows: list[_Row]) -> SetElements:
        run = SetElements(self.width, ends=self._ends)
        run._fill(sorted(rows, key=_record))
        return run

    def _rows(self) -> Iterator[_Row]:
        size = self._size
        for block, data in zip(self._blocks, self._data, strict=True):
            records = (block[at : at + size] for at in range(0, len(block), size))
            yield from zip(records, data or (b"",) * (len(block) // size), strict=True)

    def _merge(self, runs: list[Iterable[_Row]]) -> None:
        """Replace all elements by those of sorted runs; of equal records that of the last run counts."""
        self._fill(runs[0] if len(runs) == 1 else merge(*runs, key=_record))

    def _fill(self, rows: Iterable[_Row]) -> None:
        blocks: list[bytes] = []
        datas: list[tuple[bytes, ...]] = []
        keys: list[bytes] = []
        data: list[bytes] = []
        self.count = 0
        last = None

        def close_block() -> None:
            blocks.append(b"".join(keys))
            datas.append(tuple(data) if any(data) else ())
            self.count += len(keys)
            keys.clear()
            data.clear()

        for record, given in rows:
            if record == last:
                data[-1] = given
                continue
            if len(keys) >= _BLOCK:
                close_block()
            keys.append(record)
            data.append(given)
            last = record
        if keys:
            close_block()
        self._blocks, self._data = blocks, datas
        self._firsts = [block[: self._size] for block in blocks]

    def _insert(self, record: bytes, data: bytes) -> None:
        if not self._blocks:
            self._fill([(record, data)])
            return
        at, number, there = self._find(record)
        block, given, start = self._blocks[at], self._data[at], number * self._size
        if data or given:
            given = given or (b"",) * (len(block) // self._size)
            self._data[at] = (*given[:number], data, *given[number + there :])
        if there:
            return
        self.count += 1
        self._blocks[at] = block[:start] + record + block[start:]
        if number == 0:
            self._firsts[at] = record
        if len(self._blocks[at]) >= 2 * _BLOCK * self._size:
            self._split(at)

    def _split(self, at: int) -> None:
        block, data, half = self._blocks[at], self._data[at], _BLOCK * self._size
        self._blocks[at : at + 1] = [block[:half], block[half:]]
        self._data[at : at + 1] = [data[:_BLOCK], data[_BLOCK:]]
        self._firsts.insert(at + 1, block[half : half + self._size])

    def remove(self, elements: Iterable[SetElement]) -> None:
        """Remove elements; those that do not exist are ignored."""
        for element in elements:
            row = self._row(element)
            if row is None:
                self.misfits = max(0, self.misfits - 1)
                continue
            at, number, there = self._find(row[0]) if self._blocks else (0, 0, False)
            if not there:
                continue
            self.count -= 1
            block, data, start = self._blocks[at], self._data[at], number * self._size
            rest = block[:start] + block[start + self._size :]
            if not rest:
                del self._blocks[at], self._data[at], self._firsts[at]
                continue
            self._blocks[at], self._firsts[at] = rest, rest[: self._size]
            if data:
                self._data[at] = (*data[:number], *data[number + 1 :])

    # --- searching

    def _find(self, record: bytes) -> tuple[int, int, bool]:
        """Block and number where a record is or belongs, and whether it exists."""
        at = max(0, bisect_right(self._firsts, record) - 1)
        block, size = self._blocks[at], self._size
        low, high = 0, len(block) // size
        while low < high:
            middle = (low + high) // 2
            if block[middle * size : (middle + 1) * size] < record:
                low = middle + 1
            else:
                high = middle
        return at, low, block[low * size : (low + 1) * size] == record

    def before(self, key: bytes) -> SetElement | None:
        """The last element whose key is ``key`` or smaller."""
        if not self._blocks:
            return None
        at, number, _ = self._find(key.ljust(self._size, b"\xff"))
        if number == 0:
            if at == 0:
                return None
            at, number = at - 1, len(self._blocks[at - 1]) // self._size
        data = self._data[at]
        size = self._size
        record = self._blocks[at][(number - 1) * size : number * size]
        return self._element(record, data[number - 1] if data else b"")

    def beginning(self, key: bytes) -> Iterator[SetElement]:
        """The elements from the first whose key is ``key`` (or begins with it) or larger."""
        if not self._blocks:
            return
        at, number, _ = self._find(key)
        size = self._size
        while at < len(self._blocks):
            block, data = self._blocks[at], self._data[at]
            for index in range(number, len(block) // size):
                yield self._element(block[index * size : (index + 1) * size], data[index] if data else b"")
            at, number = at + 1, 0

    def spanning(self, known: Sequence[tuple[slice, bytes]]) -> Iterator[SetElement]:
        """The elements with ends that may contain these values in these parts of their keys. Blocks whose elements are
        all above or below are skipped; the range of a block is computed once, for all copies."""
        if len(self._zones) > 2 * len(self._blocks) + _BLOCK:
            self._zones = {block: self._zones[block] for block in self._blocks if block in self._zones}
        for at, block in enumerate(self._blocks):
            zone = self._zones.setdefault(block, {})
            for part, value in known:
                place = (part.start, part.stop)
                if place not in zone:
                    zone[place] = _zone(block, part, self._size, self.width)
                low, high = zone[place]
                if not low <= value <= high:
                    break
            else:
                yield from self._of_block(at)


def _zone(block: bytes, part: slice, size: int, width: int) -> tuple[bytes, bytes]:
    """The lowest and the highest value of a part of the keys of a block with records of ``size`` bytes."""
    starts = range(0, len(block), size)
    low = min(block[at + part.start : at + part.stop] for at in starts)
    return low, max(block[at + width + part.start : at + width + part.stop] for at in starts)


def networks_between(low: bytes, high: bytes) -> tuple[Network, ...]:
    """The smallest list of networks that covers the addresses ``low`` to ``high`` (packed)."""
    if len(low) == 4:
        return tuple(summarize_address_range(IPv4Address(low), IPv4Address(high)))
    return tuple(summarize_address_range(IPv6Address(low), IPv6Address(high)))
