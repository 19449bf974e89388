"""Events to standard output, one JSON object a line.

Problem: a measuring tool must not wait for its reader line by line, nor delay its events for long. Promise: ``emit``
only collects; ``flush`` (called every 100 ms) writes in one go; a pipe is widened to 1 MiB so that a reader may be late
by seconds; when the reader is gone ``closed`` is called once and the rest is dropped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Callable

from hitless.model.events import Event, encode

__all__ = ["EventWriter", "hear"]

_PIPE = 1 << 20  # fs.pipe-max-size: allowed without privileges


def hear(fd: int = 1) -> None:
    """Raise ``BrokenPipeError`` when the descriptor has no reader any more: for tools that seldom write."""
    poll = select.poll()
    poll.register(fd, 0)
    if any(mask & select.POLLERR for _, mask in poll.poll(0)):
        raise BrokenPipeError


class EventWriter:
    """A buffered writer of events to a descriptor."""

    def __init__(self, fd: int = 1, closed: Callable[[], None] = lambda: None) -> None:
        self._fd = fd
        self._closed = closed
        self._waiting: list[bytes] = []
        self.gone = False
        with contextlib.suppress(OSError):  # not a pipe, or not permitted: unchanged
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)

    def emit(self, event: Event) -> None:
        """Collect an event."""
        if not self.gone:
            self._waiting.append(encode(event))

    def flush(self) -> None:
        """Write what was collected."""
        if not self._waiting or self.gone:
            return
        data = b"\n".join(self._waiting) + b"\n"
        self._waiting.clear()
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except BrokenPipeError:
            self.gone = True
            self._closed()
