"""One clock for all records of a process.

Problem: events of several processes must be merged by time, and a step of the wall clock (NTP) in the middle of a drill
must not change the length of a gap. Promise: times are Unix nanoseconds, anchored once and then carried by the
monotonic clock; all processes of one machine that share the anchor (``HITLESS_CLOCK_ANCHOR``, set by the drill) agree
to the nanosecond. Where the environment names no anchor the process makes its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from hitless.model.reading import number

__all__ = ["ANCHOR", "Clock"]

ANCHOR = "HITLESS_CLOCK_ANCHOR"


class Clock:
    """Unix time in nanoseconds that never steps."""

    def __init__(self, anchor: int | None = None) -> None:
        self.anchor = _anchor() if anchor is None else anchor

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Clock:
        """The clock whose anchor the environment names, else a new one."""
        text = (os.environ if environment is None else environment).get(ANCHOR, "")
        return cls(number(text))

    def now(self) -> int:
        """Unix nanoseconds."""
        return self.anchor + time.monotonic_ns()

    def monotonic(self) -> float:
        """Seconds, for deadlines and pauses."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let that time pass."""
        time.sleep(seconds)

    def environment(self) -> dict[str, str]:
        """What a child process needs in order to share this clock."""
        return {ANCHOR: str(self.anchor)}


def _anchor() -> int:
    """Unix time at the monotonic clock's zero: the largest of a few readings, as a pause within one makes it too
    small."""
    return max(time.time_ns() - time.monotonic_ns() for _ in range(4))
