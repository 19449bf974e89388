"""How many retries a process may make, so that a long outage is not answered by a storm.

Promise: retries are paid from a bucket that fills with time and with the requests that are made; when it is empty an
error is raised at once. Thread-safe. Model: Finagle's RetryBudget (10 a second and 20 % of the requests, for 10 s).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["Budget"]


class Budget:
    """``per_second`` retries are allowed, and ``share`` of a retry for each request; at most ``most`` are saved."""

    def __init__(
        self,
        *,
        per_second: float = 10.0,
        share: float = 0.2,
        most: float = 100.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if per_second < 0 or share < 0 or most < 1:
            raise ValueError("a budget needs per_second and share of 0 or more, and most of 1 or more")
        self._per_second, self._share, self._most, self._clock = per_second, share, most, clock
        self._saved, self._at = most, clock()
        self._lock = threading.Lock()

    def request(self) -> None:
        """A request is made: it earns a share of a retry."""
        with self._lock:
            self._fill()
            self._saved = min(self._most, self._saved + self._share)

    def take(self) -> bool:
        """Pay for one retry; false where there is nothing left."""
        with self._lock:
            self._fill()
            if self._saved < 1:
                return False
            self._saved -= 1
            return True

    def _fill(self) -> None:
        now = self._clock()
        self._saved = min(self._most, self._saved + max(0.0, now - self._at) * self._per_second)
        self._at = now
