"""When each attempt begins: an open loop.

Problem: a prober that waits for an answer before the next attempt sends nothing exactly when something breaks, and one
that catches up with a burst after a sleep causes an outage of its own. Promise: attempt i is planned for begin + i /
rate, whatever became of the others; attempts more than ``BEHIND_NS`` late are skipped and counted, never sent late.
``interleave`` spreads kinds evenly by weight. Pure: the caller passes the time. Next stage: ``prober`` sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

__all__ = ["BEHIND_NS", "SendSchedule", "interleave"]

BEHIND_NS = 50_000_000
"""Longer than scheduling delays on a busy machine (some 10 ms), shorter than timeouts; at 1,000/s a burst of 50."""


class SendSchedule:
    """Planned times of a series of ``count`` attempts (``None``: without end)."""

    def __init__(self, begin: int, rate: float, count: int | None = None, behind_ns: int = BEHIND_NS) -> None:
        self._begin = begin
        self._interval = 1e9 / rate
        self._count = count
        self._behind = behind_ns
        self._index = 0
        self.skipped = 0
        self.next_at: int | None = None if count == 0 else begin

    def begin_at(self, begin: int) -> None:
        """Plan everything from ``begin`` on; before the first ``take``."""
        self._begin = begin
        self.next_at = begin if self.next_at is not None else None

    def take(self, now: int) -> int | None:
        """The planned time of the next attempt that is due, or ``None``."""
        planned = self.next_at
        if planned is not None and now - planned > self._behind:
            late = int((now - self._behind - self._begin) / self._interval)  # the last index that is late
            self._skip(late + 1 - self._index)
            planned = self.next_at
        if planned is None or planned > now:
            return None
        self._advance(1)
        return planned

    def _skip(self, number: int) -> None:
        number = max(1, number)
        if self._count is not None:
            number = min(number, self._count - self._index)
        self.skipped += number
        self._advance(number)

    def _advance(self, number: int) -> None:
        self._index += number
        done = self._count is not None and self._index >= self._count
        # from the index and not by adding intervals: rounding must not drift
        self.next_at = None if done else self._begin + round(self._index * self._interval)


def interleave(weights: Mapping[str, int]) -> tuple[str, ...]:
    """A cycle with each name as often as its weight, spread evenly (smooth weighted round robin)."""
    given = {name: weight for name, weight in weights.items() if weight > 0}
    if not given:
        return ()
    shared = gcd(*given.values())
    given = {name: weight // shared for name, weight in given.items()}
    total = sum(given.values())
    credit = dict.fromkeys(given, 0)
    cycle: list[str] = []
    for _ in range(total):
        for name, weight in given.items():
            credit[name] += weight
        chosen = max(given, key=lambda name: credit[name])
        credit[chosen] -= total
        cycle.append(chosen)
    return tuple(cycle)
