"""The lines of an event log file, plain or compressed with gzip, with bounds on the memory that a file can take.

Problem: logs are archived as .gz, and a few megabytes of .gz can contain any number of zeros. Promise: lines have a
bounded length, and the content of a .gz a bounded size. A truncated .gz ends with a torn line, as a truncated log does.
Other compressions are refused, with the command that unpacks them.
"""

from __future__ import annotations

import errno
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from hitless.errors import InputError
from hitless.model.events import LONGEST

__all__ = ["lines"]

_GZIP = b"\x1f\x8b"
_MOST = 4 << 30  # bytes of a .gz's content
_PACKED = (
    (b"\xfd7zXZ\x00", "xz", "unpack it first: xz -d"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unpack it first: zstd -d"),
    (b"BZh", "bzip2", "unpack it first: bzip2 -d"),
    (b"PK\x03\x04", "zip", "unpack it first: unzip"),
)


def lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of an open file; raises ``InputError`` for other compressions, ``OSError``."""
    begin = file.read(6)
    file.seek(0)
    if begin.startswith(_GZIP):
        return _bounded(cast(BinaryIO, gzip.GzipFile(fileobj=file)), _MOST)
    for magic, name, remedy in _PACKED:
        if begin.startswith(magic):
            raise InputError(
                f"is packed with {name}", where=str(path), expected="an event log, plain or as .gz", remedy=remedy
            )
    return _bounded(file, None)


def _bounded(file: BinaryIO, most: int | None) -> Iterator[bytes]:
    """The lines; one that is too long is cut, so that it is not a valid event, and ends the reading."""
    taken = 0
    while line := _line(file):
        taken += len(line)
        if most is not None and taken > most:
            raise OSError(errno.EFBIG, f"it holds more than {most >> 30} GiB; unpack it first")
        if len(line) > LONGEST + 1:
            yield line + b"\n"
            return
        yield line


def _line(file: BinaryIO) -> bytes:
    try:
        return file.readline(LONGEST + 2)
    except EOFError:  # a truncated .gz: return a torn line
        return b"{"
