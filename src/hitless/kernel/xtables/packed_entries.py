"""A table's entries, compressed while they are not used.

Problem: with 5,000 Services a family's nat table has 17 to 20 MB, most of it zeros, and a daemon must remember it to
detect changes. Promise: ``Entries.whole`` always gives the kernel's bytes; ``rest``, called now and then, compresses
what was not used in the last second (to one thirtieth). Decompression takes some 20 ms at the next use. May be read
from several threads; ``rest`` is for one. Next stage: ``tables``.
"""

from __future__ import annotations

import time
import zlib

__all__ = ["Entries"]

_AWAKE = 1.0
_LEAST = 1 << 18  # smaller tables are not compressed


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
        """Compress them if they were not used for a second; returns whether memory was freed."""
        whole = self._whole
        if whole is None or self.size < _LEAST or time.monotonic() - self._since < _AWAKE:
            return False
        self._packed = self._packed or zlib.compress(whole, 1)
        self._whole = None
        return True
