"""Files that exist in memory only.

Problem: OpenSSL takes certificates and keys from files. A key in a temporary file may outlive this process or be read
by others, and cannot be written where all file systems are read-only. Promise: ``in_memory`` gives the path of a file
(memfd_create(2)) that only this user can open, while the block lasts. Next stage: ``hitless.sources``,
``hitless.cluster``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["in_memory"]


@contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """The path of a file with this content, for this process; gone at the end of the block. Raises ``OSError``."""
    file = os.memfd_create("hitless")
    try:
        with open(file, "wb", closefd=False) as memory:
            memory.write(content)
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)
