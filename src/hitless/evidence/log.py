"""The event log on disk: append-only JSON lines.

Problem: a drill may be killed at any moment, and what it saw until then must still be readable. Promise: every event
is one ``write`` of one whole line to a file that did not exist before, so that a killed writer leaves at most one
torn line, the last; an existing log is never touched. The reader takes what is whole and says what is missing; a line
that is whole and wrong is an ``InputError`` that names file and line. Never: rewriting, sorting, dropping.
Next stage: ``records`` groups the events by agent and node, ``verdict`` judges them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from hitless.errors import InputError, MissingError, ours
from hitless.kernel import files
from hitless.model.events import LONGEST, SCHEMA, Event, Header, Summary, decode, encode

__all__ = ["Log", "LogWriter", "parse", "read"]


@dataclass(frozen=True, slots=True)
class Log:
    """A log's events in the order in which they were written; ``torn``: its last line was cut in the middle.

    ``sha256`` is the file's own, as ``sha256sum`` prints it.
    """

    events: tuple[Event, ...]
    torn: bool = False
    sha256: str = ""

    @property
    def whole(self) -> bool:
        """Whether the writer came to its end: the log's own tool wrote its ``Summary``."""
        header = next((event for event in self.events if isinstance(event, Header)), None)
        if header is None or self.torn:
            return False
        return any(isinstance(event, Summary) and event.tool == header.tool for event in self.events)


class LogWriter:
    """Appends events to a new file; every ``write`` is in the kernel's hands when it returns."""

    def __init__(self, path: Path) -> None:
        """Raises ``InputError`` when the file exists, ``MissingError`` when it cannot be made."""
        self.path = path
        self._size = 0
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
            # The permissions are the user's umask's choice: the log holds addresses and rules, no secrets.
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if path.exists():
                raise InputError(
                    "exists; a log is never overwritten", where=str(path), expected="a new place"
                ) from error
            raise MissingError(
                f"cannot write {path}: {error.strerror}", remedy="choose another place with --out"
            ) from error

    def write(self, *events: Event) -> None:
        """Append whole lines, in one system call."""
        try:
            data = memoryview(b"".join(encode(event) + b"\n" for event in events))
        except Exception as error:
            raise ours(error, f"writing an event to {self.path}") from error
        whole = self._size + len(data)
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except OSError as error:
                # half a line would spoil the next one, should there be room again
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._size)
                raise MissingError(
                    f"cannot write {self.path}: {error.strerror}", remedy="make room or choose another --out"
                ) from error
        self._size = whole

    def close(self) -> None:
        """Close the file; writing afterwards is an error of the caller."""
        try:
            os.close(self._fd)
        except OSError as error:  # a disk that tells of its failure late
            raise MissingError(
                f"cannot write {self.path}: {error.strerror}", remedy="is its disk whole? Choose another --out"
            ) from error

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def parse(lines: Iterable[bytes], *, where: str) -> Log:
    """The log of ``lines`` (with their newlines); ``where`` names the source in messages.

    A last line without its newline that is no event was torn by a killed writer: left out, and said in ``Log.torn``.
    """
    events: list[Event] = []
    torn = False
    digest = hashlib.sha256()
    for number, line in enumerate(lines, start=1):
        digest.update(line)
        if not line.strip():
            continue
        try:
            event = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not line.endswith(b"\n"):
                torn = True
                break
            raise InputError(str(error), where=f"{where}:{number}", expected="one event as JSON a line") from error
        if not events and not isinstance(event, Header):
            raise InputError("does not begin with a header", where=f"{where}:{number}", expected='{"type":"header",…}')
        if isinstance(event, Header) and event.schema > SCHEMA:
            raise InputError(
                f"written in schema {event.schema} by {event.tool} {event.version}",
                where=f"{where}:{number}",
                expected=f"schema {SCHEMA} or older; use a newer hitless",
            )
        events.append(event)
    if not events:
        raise InputError("holds no event", where=where, expected="an event log, e.g. events.jsonl of a drill")
    return Log(tuple(events), torn, digest.hexdigest())


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; one without an end is cut off, so that it is no event, and ends the reading."""
    while line := file.readline(LONGEST + 2):
        if len(line) > LONGEST + 1:
            yield line + b"\n"
            return
        yield line


def read(path: Path) -> Log:
    """The log in the file; raises ``InputError`` when it cannot be read or a line of it is wrong."""
    try:
        with os.fdopen(files.opened(path), "rb") as file:
            return parse(_lines(file), where=str(path))
    except (OSError, MemoryError) as error:
        raise InputError(
            f"cannot be read: {getattr(error, 'strerror', None) or 'it does not fit into memory'}",
            where=str(path),
            expected="an event log",
        ) from error
