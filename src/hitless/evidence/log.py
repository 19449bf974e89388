"""The event log on disk: append-only JSON lines.

Problem: a drill may be killed at any moment, and what it recorded until then must be readable. Promise: every event is
one ``write`` of a whole line to a new file, so that a killed writer leaves at most one torn line, the last; an existing
log is never changed. The reader accepts a torn last line and reports it; any other invalid line is an ``InputError``
with file and line number. Nothing is rewritten, sorted or dropped.
Next stage: ``records`` groups the events by agent and node, ``verdict`` judges them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec

from hitless.errors import InputError, MissingError, ours
from hitless.evidence import log_lines
from hitless.kernel import files
from hitless.model.events import SCHEMA, Event, Header, Summary, decode, encode

__all__ = ["EventLog", "LogWriter", "parse", "read", "remedy"]


@dataclass(frozen=True, slots=True)
class EventLog:
    """A log's events in the order of the file; ``torn``: the last line is cut in the middle.

    ``sha256`` is the file's checksum, as ``sha256sum`` prints it.
    """

    events: tuple[Event, ...]
    torn: bool = False
    sha256: str = ""

    @property
    def whole(self) -> bool:
        """Whether the writer came to its end: the tool of the header wrote its ``Summary``."""
        header = next((event for event in self.events if isinstance(event, Header)), None)
        if header is None or self.torn:
            return False
        return any(isinstance(event, Summary) and event.tool == header.tool for event in self.events)


class LogWriter:
    """Appends events to a new file, unbuffered."""

    def __init__(self, path: Path) -> None:
        """Raises ``InputError`` if the file exists, ``MissingError`` if it cannot be created."""
        self.path = path
        self._size = 0
        try:
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True)
            # permissions by the user's umask: the log has addresses and rules, no secrets
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if path.exists():
                raise InputError(
                    "is there already, and a log is never overwritten",
                    where=str(path),
                    expected="--out with a folder that holds no log yet",
                ) from error
            raise MissingError(
                f"cannot write {path}: {error.strerror}", remedy="choose another place with --out"
            ) from error
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # shows other commands that the drill is running

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
                # remove the partial line: the next one may fit again
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, self._size)
                raise MissingError(f"cannot write {self.path}: {error.strerror}", remedy=remedy(error)) from error
        self._size = whole

    def close(self) -> None:
        """Close the file."""
        try:
            os.close(self._fd)
        except OSError as error:  # some file systems report a failed write here
            raise MissingError(
                f"cannot write {self.path}: {error.strerror}", remedy="is its disk whole? Choose another --out"
            ) from error

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def remedy(error: OSError) -> str:
    """What the user can do if a file cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room, or choose another --out"
    if error.errno == errno.EROFS:
        return "the file system is read-only: choose another --out"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "choose another --out, or run it as a user who may write there"
    return "choose another --out"


def parse(lines: Iterable[bytes], *, where: str) -> EventLog:
    """The log of ``lines`` (with their newlines); ``where`` names the source in messages.

    A last line without its newline that is not an event was torn by a killed writer: it is left out, and
    ``EventLog.torn`` is set.
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
    return EventLog(tuple(events), torn, digest.hexdigest())


def read(path: Path) -> EventLog:
    """The log in a file, also compressed with gzip; raises ``InputError`` if it cannot be read or a line is invalid.

    The ``sha256`` of a compressed log is that of its content.
    """
    try:
        with os.fdopen(files.opened(path), "rb") as file:
            return parse(log_lines.lines(file, path), where=str(path))
    except (OSError, MemoryError, zlib.error) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        memory = isinstance(error, MemoryError)
        raise InputError(
            f"cannot be read: {'it does not fit into memory' if memory else why or str(error)}",
            where=str(path),
            expected="an event log",
        ) from error
