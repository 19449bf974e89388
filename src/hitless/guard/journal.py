"""The journal: the guard's records on disk, bounded, whole lines only.

Promise: one JSON object a line, mode 0600, at most two files of ``limit`` bytes (the second is the older part); a disk
that is full or gone costs records and never the guard: what could not be written is counted. Next stage: people,
``hitless guard status``.
"""

from __future__ import annotations

import os
from pathlib import Path

from hitless.guard.records import Record, encode

__all__ = ["Journal"]

LIMIT = 1 << 20


class Journal:
    """Appends records to ``path``; without a path it keeps nothing."""

    def __init__(self, path: Path | None, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self.failed = 0
        self.problem = ""

    def write(self, record: Record) -> None:
        """Append one record."""
        if self._path is None:
            return
        line = encode(record) + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                size = os.fstat(fd).st_size
                os.write(fd, line)  # one write: a reader never sees half a line of a process that lives
            finally:
                os.close(fd)
            if size + len(line) > self._limit:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
        except OSError as error:
            self.failed += 1
            self.problem = f"{self._path}: {error.strerror or error}"
