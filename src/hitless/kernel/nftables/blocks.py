"""The rules of a chain, in order, so that a changed chain shares nearly everything with what it was before.

Problem: every commit makes a new rule set that others may still read, and a stranger's chain of 50,000 rules that pods
pass may change a thousand times a second. Promise: rules stand packed in blocks of some hundreds that copies share; a
change replaces one block, and what was found out about the others (``prefilter``) stays. A rule is known by its handle,
which the kernel gives out once. What it never does: decode. Next stages: ``ordering`` changes them, ``state`` reads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from hitless.kernel.nftables.packing import unpack
from hitless.kernel.nftables.prefilter import KnownHeader, RuleIndex

__all__ = ["RuleBlocks"]

_BLOCK = 128  # rules; a block that grows to twice as many is cut in two
_HANDLE = struct.Struct("=Q")


class _Block:
    """Some rules that follow each other. Never changed."""

    __slots__ = ("_sorted", "handles", "messages")

    def __init__(self, handles: bytes, messages: tuple[bytes, ...]) -> None:
        self.handles, self.messages = handles, messages
        self._sorted: RuleIndex | None = None

    @property
    def sorted(self) -> RuleIndex:
        if self._sorted is None:
            self._sorted = RuleIndex(map(unpack, self.messages))
        return self._sorted

    def find(self, needle: bytes) -> int:
        """Where a handle is; -1 when it is not here."""
        at = self.handles.find(needle)
        while at >= 0 and at % _HANDLE.size:
            at = self.handles.find(needle, at + 1)
        return at // _HANDLE.size if at >= 0 else -1

    def handle(self, number: int) -> int:
        found: int = _HANDLE.unpack_from(self.handles, number * _HANDLE.size)[0]
        return found


class RuleBlocks:
    """Packed rule messages by handle. What ``copy`` gives may be changed without the other's notice."""

    __slots__ = ("_blocks", "_count")

    def __init__(self, rules: Mapping[int, bytes] | None = None) -> None:
        self._blocks: list[_Block] = []
        self._count = 0
        for handle, message in (rules or {}).items():
            self.append(handle, message)

    def copy(self) -> RuleBlocks:
        """The same rules; their blocks are shared."""
        other = RuleBlocks()
        other._blocks, other._count = self._blocks.copy(), self._count
        return other

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for block in self._blocks:
            yield from (handle for (handle,) in _HANDLE.iter_unpack(block.handles))

    def __contains__(self, handle: int) -> bool:
        return self._find(handle) is not None

    def entries(self) -> Iterator[tuple[int, bytes]]:
        """Handles and messages, in order."""
        for block in self._blocks:
            handles = (handle for (handle,) in _HANDLE.iter_unpack(block.handles))
            yield from zip(handles, block.messages, strict=True)

    @property
    def first(self) -> int:
        """The handle of the first rule; 0 when there is none."""
        return self._blocks[0].handle(0) if self._blocks else 0

    @property
    def version(self) -> tuple[object, ...]:
        """Equal for rules that are certainly the same: what is compared is which blocks they are made of."""
        return tuple(self._blocks)

    def _find(self, handle: int) -> tuple[int, int] | None:
        needle = _HANDLE.pack(handle)
        for at in range(len(self._blocks) - 1, -1, -1):  # most changes are near the end
            number = self._blocks[at].find(needle)
            if number >= 0:
                return at, number
        return None

    # --- what a packet may meet

    def candidates(self, known: KnownHeader) -> Iterator[tuple[int, int, bytes]]:
        """The rules that a packet may meet: number from 1, handle, message."""
        before = 1
        for block in self._blocks:
            for number in block.sorted.candidates(known):
                yield before + number, block.handle(number), block.messages[number]
            before += len(block.messages)

    def specific_rules(self, known: KnownHeader) -> tuple[int, ...]:
        """The handles of those among them that name something which other packets do not have."""
        return tuple(
            block.handle(number) for block in self._blocks for number in sorted(block.sorted.specific_rules(known))
        )

    # --- changes

    def append(self, handle: int, message: bytes) -> None:
        """Put a rule behind all others."""
        if not self._blocks:
            self._blocks.append(_Block(b"", ()))
        self._insert(len(self._blocks) - 1, len(self._blocks[-1].messages), handle, message)

    def prepend(self, handle: int, message: bytes) -> None:
        """Put a rule before all others."""
        if not self._blocks:
            self._blocks.append(_Block(b"", ()))
        self._insert(0, 0, handle, message)

    def insert_after(self, position: int, handle: int, message: bytes) -> None:
        """Put a rule behind another one. Raises ``KeyError`` when that is not there."""
        found = self._find(position)
        if found is None:
            raise KeyError(position)
        self._insert(found[0], found[1] + 1, handle, message)

    def _insert(self, at: int, number: int, handle: int, message: bytes) -> None:
        block, start = self._blocks[at], number * _HANDLE.size
        handles = block.handles[:start] + _HANDLE.pack(handle) + block.handles[start:]
        messages = (*block.messages[:number], message, *block.messages[number:])
        self._count += 1
        if len(messages) < 2 * _BLOCK:
            self._blocks[at] = _Block(handles, messages)
            return
        # where rules come one behind the other, the first half is whole for good
        cut = _BLOCK * _HANDLE.size
        parts = [_Block(handles[:cut], messages[:_BLOCK]), _Block(handles[cut:], messages[_BLOCK:])]
        self._blocks[at : at + 1] = parts

    def remove(self, handle: int) -> None:
        """Take a rule away. Raises ``KeyError`` when it is not there."""
        found = self._find(handle)
        if found is None:
            raise KeyError(handle)
        at, number = found
        block, start = self._blocks[at], number * _HANDLE.size
        self._count -= 1
        if len(block.messages) == 1:
            del self._blocks[at]
            return
        handles = block.handles[:start] + block.handles[start + _HANDLE.size :]
        self._blocks[at] = _Block(handles, (*block.messages[:number], *block.messages[number + 1 :]))
