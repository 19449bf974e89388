"""The rules of a chain in order, stored so that a changed chain shares nearly everything with the previous one.

Problem: every commit makes a new rule set that others may still read, and another program's chain of 50,000 rules that
pods pass may change a thousand times a second. Promise: rules are packed in blocks of some hundreds, which copies
share; a change replaces one block, and the ``prefilter`` indexes of the others remain valid. A rule is identified by
its handle, which the kernel never reuses. It never decodes. Next stages: ``ordering`` changes the blocks, ``state``
reads them.
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
    """Some consecutive rules. Never changed."""

    __slots__ = ("_index", "handles", "messages")

    def __init__(self, handles: bytes, messages: tuple[bytes, ...]) -> None:
        self.handles, self.messages = handles, messages
        self._index: RuleIndex | None = None

    @property
    def index(self) -> RuleIndex:
        if self._index is None:
            self._index = RuleIndex(map(unpack, self.messages))
        return self._index

    def find(self, needle: bytes) -> int:
        """The position of a handle; -1 if it is not here."""
        at = self.handles.find(needle)
        while at >= 0 and at % _HANDLE.size:
            at = self.handles.find(needle, at + 1)
        return at // _HANDLE.size if at >= 0 else -1

    def handle(self, number: int) -> int:
        found: int = _HANDLE.unpack_from(self.handles, number * _HANDLE.size)[0]
        return found


class RuleBlocks:
    """Packed rule messages by handle. A copy may be changed without affecting the original."""

    __slots__ = ("_blocks", "_count")

    def __init__(self, rules: Mapping[int, bytes] | None = None) -> None:
        self._blocks: list[_Block] = []
        self._count = 0
        for handle, message in (rules or {}).items():
            self.append(handle, message)

    def copy(self) -> RuleBlocks:
        """The same rules; the blocks are shared."""
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
        """Equal for rules that are certainly the same: identical blocks."""
        return tuple(self._blocks)

    def _find(self, handle: int) -> tuple[int, int] | None:
        needle = _HANDLE.pack(handle)
        for at in range(len(self._blocks) - 1, -1, -1):  # most changes are near the end
            number = self._blocks[at].find(needle)
            if number >= 0:
                return at, number
        return None

    # --- candidates for a packet

    def candidates(self, known: KnownHeader) -> Iterator[tuple[int, int, bytes]]:
        """The rules that may match a packet: number from 1, handle, message."""
        before = 1
        for block in self._blocks:
            for number in block.index.candidates(known):
                yield before + number, block.handle(number), block.messages[number]
            before += len(block.messages)

    def specific_rules(self, known: KnownHeader) -> tuple[int, ...]:
        """The handles of the candidates that compare a field of the packet."""
        return tuple(
            block.handle(number) for block in self._blocks for number in sorted(block.index.specific_rules(known))
        )

    # --- changes

    def append(self, handle: int, message: bytes) -> None:
        """Add a rule at the end."""
        if not self._blocks:
            self._blocks.append(_Block(b"", ()))
        self._insert(len(self._blocks) - 1, len(self._blocks[-1].messages), handle, message)

    def prepend(self, handle: int, message: bytes) -> None:
        """Add a rule at the beginning."""
        if not self._blocks:
            self._blocks.append(_Block(b"", ()))
        self._insert(0, 0, handle, message)

    def insert_after(self, position: int, handle: int, message: bytes) -> None:
        """Add a rule behind another one. Raises ``KeyError`` if that does not exist."""
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
        # rules usually come in order: then the first half does not change any more
        cut = _BLOCK * _HANDLE.size
        parts = [_Block(handles[:cut], messages[:_BLOCK]), _Block(handles[cut:], messages[_BLOCK:])]
        self._blocks[at : at + 1] = parts

    def remove(self, handle: int) -> None:
        """Remove a rule. Raises ``KeyError`` if it does not exist."""
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
