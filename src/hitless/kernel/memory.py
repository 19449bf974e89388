"""Returning memory to the machine that was needed for a moment only.

Problem: a full read of a large rule set needs twice its size for a moment, and the C library keeps what was freed: a
daemon would keep the peak of its first read. Two functions of glibc help, and both do nothing elsewhere:
``return_large_blocks`` (mallopt(3), M_MMAP_THRESHOLD) stops the library from raising its threshold for mapped blocks
each time one is freed, which kept 45 MB of two readings of a 16 MB table; ``trim`` (malloc_trim(3)) gives back whole
free pages in the middle of the heap.
"""

from __future__ import annotations

import ctypes

__all__ = ["return_large_blocks", "trim"]

_MMAP_THRESHOLD = -3
_LARGE = 256 << 10


def return_large_blocks() -> bool:
    """Map blocks of 256 KB and more each for itself from now on; false where the C library has no such switch."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _LARGE))


def trim() -> bool:
    """Give free pages back to the kernel now; false where the C library has no such call or had nothing to give."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return malloc_trim is not None and bool(malloc_trim(0))
