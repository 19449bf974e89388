"""What is due when. Pure: time comes in as an argument. Next stage: ``loop``."""

from __future__ import annotations

__all__ = ["VERIFY_S", "WatchSchedule"]

VERIFY_S = 10.0
_VERIFY_SHARE = 300  # comparing with the kernel takes at most a third of a per cent of a core
_COUNT_SHARE = 100  # counting the pods that are carried takes at most a per cent of a core


class WatchSchedule:
    """The comparison with the kernel, the count of pods, and the end. Times are monotonic seconds."""

    def __init__(self, now: float, *, verify_s: float, duration_s: float | None) -> None:
        self._verify_s = verify_s
        self._verify_at = now + verify_s
        self._count_at = now
        self._end = None if duration_s is None else now + duration_s

    def patience(self, now: float, beat: float) -> float:
        """Seconds until something is due; ``beat``: when the next heartbeat is."""
        due = min(beat, self._verify_at)
        return max(0.0, (due if self._end is None else min(due, self._end)) - now)

    def over(self, now: float) -> bool:
        """Whether the time to watch has passed."""
        return self._end is not None and now >= self._end

    def verifies(self, now: float) -> bool:
        """Whether the mirrored rules are to be compared with the kernel's."""
        return now >= self._verify_at

    def verified(self, now: float, cost: float) -> None:
        """They were, which took ``cost`` seconds of work."""
        self._verify_at = now + max(self._verify_s, _VERIFY_SHARE * cost)

    def counts(self, now: float) -> bool:
        """Whether all pods may be evaluated."""
        return now >= self._count_at

    def counted(self, now: float, cost: float) -> None:
        """They were, which took ``cost`` seconds of work."""
        self._count_at = now + _COUNT_SHARE * cost
