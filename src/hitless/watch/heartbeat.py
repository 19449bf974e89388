"""How a watch measures itself: its totals, its heartbeat, and the priority of its thread.

Promise: lateness and processor time are measured where they arise and reported with each heartbeat. Next stage:
``watching``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hitless.kernel.cpu_priority import given_back, hasten, relax
from hitless.model.events import Heartbeat

__all__ = ["TOOL", "HeartbeatTimer", "Totals", "Urgency"]

TOOL = "watch"
_BACKLOG = 30  # transactions: some tenths of a second of work


@dataclass(slots=True)
class Totals:
    """What a watch has done so far."""

    commits: int = 0
    changes: int = 0
    relevant: int = 0
    evaluations: int = 0
    lost_events: int = 0
    resyncs: int = 0
    verified: int = 0
    max_lag_ns: int = 0
    beat_lag_ns: int = 0  # since the last heartbeat
    foreign: int = 0  # since the last heartbeat: commits that mattered to no packet

    def late(self, lag_ns: int) -> None:
        """It was this late."""
        self.max_lag_ns = max(self.max_lag_ns, lag_ns)
        self.beat_lag_ns = max(self.beat_lag_ns, lag_ns)


class Urgency:
    """A real-time priority for the caller's thread, but not while it works off a large backlog: others must run."""

    def __init__(self, wanted: bool) -> None:
        self._wanted = wanted
        self._have = False
        self.fit(0)

    def fit(self, backlog: int) -> None:
        """Take it or give it up, by the backlog."""
        if self._wanted and self._have != (backlog < _BACKLOG):
            self._have = not self._have
            if self._have:
                hasten()
            else:
                relax()

    def end(self) -> None:
        """Give it up."""
        if self._have:
            relax()


@dataclass(slots=True)
class HeartbeatTimer:
    """When the next heartbeat is due, and what was measured since the last one."""

    interval_s: float
    monotonic: Callable[[], float] = time.monotonic
    due: float = field(init=False)
    _began: float = field(init=False)
    _cpu: int = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.monotonic()
        self._cpu = time.process_time_ns()
        # also without heartbeats, legacy tables must be polled now and then
        self.due = self._began + (self.interval_s or 1.0)

    def beat(self, now_s: float, now: int, totals: Totals) -> Heartbeat | None:
        """The heartbeat that is due, and the next one's time."""
        late_ns = int((now_s - self.due) * 1e9)
        cpu = time.process_time_ns()
        foreign = f"{totals.foreign} commits that mattered to no packet" if totals.foreign else ""
        event = Heartbeat(
            t=now,
            tool=TOOL,
            interval_ns=int((now_s - self._began) * 1e9),
            max_lag_ns=max(totals.beat_lag_ns, late_ns),
            cpu_ns=cpu - self._cpu,
            detail="; ".join(filter(None, (foreign, given_back()))),
        )
        self._began, self._cpu, self.due = now_s, cpu, now_s + (self.interval_s or 1.0)
        totals.beat_lag_ns = totals.foreign = 0
        return event if self.interval_s else None
