"""Memory that was needed for a moment goes back to the machine.

glibc raises its threshold for mapping large blocks each time one is freed (mallopt(3), M_MMAP_THRESHOLD), so that after
two readings of a 16 MB table such blocks come from the heap and stay there: 45 MB of resident memory for nothing.
"""

from __future__ import annotations

import ctypes

__all__ = ["return_large_blocks"]

_MMAP_THRESHOLD = -3
_LARGE = 256 << 10


def return_large_blocks() -> bool:
    """Map blocks of 256 KB and more each for itself from now on; false where the C library has no such switch."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, _LARGE))
