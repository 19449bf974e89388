"""Splitting a stream into lines, in linear time and with a bound on their length.

Problem: joining pieces again and again until a line break arrives takes quadratic time, and all memory if none ever
arrives. Promise: each byte is searched once and copied once; a line longer than ``longest`` raises ``TooLong``, and
nothing of it is returned.
"""

from __future__ import annotations

from collections.abc import Iterator

from hitless.errors import HitlessError

__all__ = ["Lines", "TooLong"]


class TooLong(HitlessError):
    """A line is longer than the bound: it was not written by one of our tools."""

    def __init__(self, longest: int) -> None:
        super().__init__(f"a line is longer than {longest} bytes")


class Lines:
    """Takes pieces, and gives whole lines without their line breaks."""

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
        """The bytes after the last line break."""
        return b"".join(self._pieces)

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._longest:
            raise TooLong(self._longest)
        if piece:
            self._pieces.append(piece)
