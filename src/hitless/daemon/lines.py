"""A log stream that never blocks its writer.

Problem: the log of a container or a systemd unit is a pipe. When its reader stops (a full disk is enough), writing to
it blocks: a daemon's loop would hang just when the node has a problem. Promise: ``write`` never waits; a thread writes
the lines in order. Lines that do not fit into the queue are counted, and the count is written when there is room again.
At the end, queued lines are written within a second, as far as possible.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from io import TextIOBase

__all__ = ["LineWriter"]

_MOST = 1000  # lines; about as much as a pipe holds
_PATIENCE = 1.0  # seconds for lines that are still queued at the end


class LineWriter(TextIOBase):
    """Writes text to a file descriptor; a context manager.

    Not to a stream object: a thread that waits inside one holds its lock, and then Python cannot exit.
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
            except (OSError, MemoryError):  # no reader any more, or a full disk: the rules matter more than the log
                continue

    def close(self) -> None:
        """Write the queued lines, as far as they are read now."""
        if not self.closed:
            try:
                self._queue.put(None, timeout=_PATIENCE)
            except queue.Full:
                self._given_up = True
            else:
                self._thread.join(_PATIENCE)
        super().close()
