"""The lines of an event log as it lies there, plain or packed with gzip, with bounds on what a file can make us hold.

Problem: logs are attached and archived as .gz, and a few megabytes of it can hold any number of zeros. Promise: lines
of a bounded length and, out of a .gz, of a bounded sum; a .gz that was cut off ends with a line without its end, as a
log that was cut off does; what is packed otherwise is named, with the command that unpacks it.
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
_MOST = 4 << 30  # bytes that come out of a .gz
_PACKED = (
    (b"\xfd7zXZ\x00", "xz", "unpack it first: xz -d"),
    (b"\x28\xb5\x2f\xfd", "zstd", "unpack it first: zstd -d"),
    (b"BZh", "bzip2", "unpack it first: bzip2 -d"),
    (b"PK\x03\x04", "zip", "unpack it first: unzip"),
)


def lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of an open file; raises ``InputError`` for what is packed otherwise, ``OSError``."""
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
    """A line without an end is cut off, so that it is no event, and ends the reading."""
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
    except EOFError:  # a .gz that was cut off: a line without its end says so
        return b"{"
