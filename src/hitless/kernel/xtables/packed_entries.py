"""A table's entries, kept small while nobody asks for them.

Problem: with 5,000 Services a family's nat table is 17 to 20 MB, most of it the zeros of fixed fields, and a daemon on
every node must remember it to see what changes. Promise: ``Entries.whole`` is the kernel's bytes, always; ``rest``,
called now and then, packs what nobody has asked for in the last second (one part in thirty is left). Unpacking costs
some 20 ms and happens at the next use. May be asked from several threads; ``rest`` from one. Next stage: ``tables``.
"""

from __future__ import annotations

import time
import zlib

__all__ = ["Entries"]

_AWAKE = 1.0
_LEAST = 1 << 18  # small tables are not worth the trouble


class Entries:
    """The bytes that GET_ENTRIES gave."""

    __slots__ = ("_packed", "_since", "_whole", "size")

    def __init__(self, whole: bytes) -> None:
        self.size = len(whole)
        self._whole: bytes | None = whole
        self._packed = b""
        self._since = time.monotonic()

    @property
    def whole(self) -> bytes:
        """All entries."""
        whole = self._whole
        if whole is None:
            whole = zlib.decompress(self._packed, bufsize=self.size)
            self._since = time.monotonic()
            self._whole = whole
        return whole

    def rest(self) -> bool:
        """Pack them, when they were not used for a second; whether memory was freed."""
        whole = self._whole
        if whole is None or self.size < _LEAST or time.monotonic() - self._since < _AWAKE:
            return False
        self._packed = self._packed or zlib.compress(whole, 1)
        self._whole = None
        return True
