"""Lines out of pieces, in time that grows with their length only, and never longer than a bound.

Problem: pieces that are put together again and again until a line break comes cost quadratic time, and without a bound
all memory, when none ever comes. Promise: each byte is looked at once and copied once; a line that is longer than
``longest`` is a ``TooLong``, and nothing of it is given out.
"""

from __future__ import annotations

from collections.abc import Iterator

from hitless.errors import HitlessError

__all__ = ["Lines", "TooLong"]


class TooLong(HitlessError):
    """A line without an end: whoever writes it is no tool of ours."""

    def __init__(self, longest: int) -> None:
        super().__init__(f"a line is longer than {longest} bytes")


class Lines:
    """Give it pieces, and it gives whole lines, without their line breaks."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []
        self._size = 0

    def take(self, piece: bytes) -> Iterator[bytes]:
        """The lines that end in this piece. Raises ``TooLong``."""
        begin = 0
        while (end := piece.find(b"\n", begin)) >= 0:
            self._add(piece[begin:end])
            line = b"".join(self._pieces)
            self._pieces, self._size, begin = [], 0, end + 1
            yield line
        self._add(piece[begin:])

    def rest(self) -> bytes:
        """What has no line break yet."""
        return b"".join(self._pieces)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._longest:
            raise TooLong(self._longest)
        if piece:
            self._pieces.append(piece)
