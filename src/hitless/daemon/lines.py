"""A stream for the log that nobody waits for.

Problem: a container's or a journal's log is a pipe, and a reader that stops (a full disk is enough) blocks whoever
writes to it: a daemon's loop would stand still just when the node is in trouble. Promise: ``write`` never waits; a
thread writes the lines in their order; what does not fit into the queue is counted, and the count is written when there
is room again. At the end what is queued is written as far as that goes within a moment. Next stage: people.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from io import TextIOBase

__all__ = ["LineWriter"]

_MOST = 1000  # lines; about as much as a pipe holds
_PATIENCE = 1.0  # seconds for what is still queued at the end


class LineWriter(TextIOBase):
    """Text on its way to a file descriptor; a context manager.

    Not to a stream: whoever waits inside of one holds its lock, and Python does not end while that is so.
    """

    def __init__(self, descriptor: int, most: int = _MOST) -> None:
        self._descriptor = descriptor
        self._queue: queue.Queue[str | None] = queue.Queue(most)
        self._lock = threading.Lock()
        self._lost = 0
        self._given_up = False
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Queue whole lines; from any thread."""
        with self._lock:
            if self._lost and not self._put(
                json.dumps({"level": "warning", "event": f"{self._lost} lines lost"}) + "\n"
            ):
                self._lost += 1
                return len(text)
            self._lost = 0 if self._put(text) else 1
        return len(text)

    def _put(self, text: str) -> bool:
        try:
            self._queue.put_nowait(text)
        except queue.Full:
            return False
        return True

    def _work(self) -> None:
        while not self._given_up and (text := self._queue.get()) is not None:
            try:
                data = text.encode("utf-8", "backslashreplace")
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except (
                OSError,
                MemoryError,
            ):  # nobody reads it any more, or its disk is full: the rules matter more than the log
                continue

    def close(self) -> None:
        """Write what is queued, as far as somebody reads it now."""
        if not self.closed:
            try:
                self._queue.put(None, timeout=_PATIENCE)
            except queue.Full:
                self._given_up = True
            else:
                self._thread.join(_PATIENCE)
        super().close()
