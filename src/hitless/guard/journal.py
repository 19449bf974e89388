"""The journal: the guard's records on disk, bounded, whole lines only.

Promise: one JSON object a line, mode 0600, at most two files of ``limit`` bytes (the second, ``.1``, is the older
part); a disk that is full or gone costs records and never the guard: what could not be written is counted, ``problem``
says why until a write succeeds, and half a line is taken back (or, left by a process that was killed, closed by a
newline) so that every other line can be read. Read by users and ``hitless guard status``.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from hitless.guard.records import Record, encode
from hitless.kernel import files

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
        try:
            self._append(self._path, encode(record) + b"\n")
            self.problem = ""
        except OSError as error:
            self.failed += 1
            self.problem = f"{self._path}: {error.strerror or error}"

    def _append(self, path: Path, line: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = files.own(path, os.O_RDWR | os.O_APPEND)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line
            if os.write(fd, line) < len(line):  # the disk is full: half a line is none
                with suppress(OSError):
                    os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(fd)
        if size + len(line) > self._limit:
            path.replace(path.with_name(path.name + ".1"))
