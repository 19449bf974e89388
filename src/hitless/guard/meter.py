"""What the standby's counters show, and when they contradict the guard.

Problem: while the primary is whole the standby must translate nothing; if its counter moves then, the copy is not
exact, and the guard does harm. Promise: pure: ``Meter.sample`` gives what moved since the last sample, and a verdict on
an interval only when it is known that nothing happened around it (events may come a little after the packets that they
explain, so an interval is judged one sample later). Next stage: ``running``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Meter", "Moved"]

_MARGIN = 100_000_000  # nanoseconds by which an event may come after what it explains
_LEGACY_PATIENCE = 3  # intervals: the legacy path is polled, and a gap of under 3 ms may be missed


@dataclass(frozen=True, slots=True)
class Moved:
    """Since the last sample; ``wrongly``: flows translated in a time in which there were none to translate."""

    carried: int = 0
    leaked: int = 0
    wrongly: int = 0


@dataclass(frozen=True, slots=True)
class _Sample:
    t: int
    carried: int
    leaked: int


class Meter:
    """One family's counters over time (nanoseconds of one clock)."""

    def __init__(self, *, polled: bool = False) -> None:
        self.polled = polled
        self._samples: list[_Sample] = []
        self._unquiet = 0
        self._wrong = 0
        self._wrong_flows = 0

    @property
    def begun(self) -> bool:
        """Whether there is a sample from which on packets are counted."""
        return bool(self._samples)

    def disturb(self, t: int) -> None:
        """Something happened at ``t`` (a change of the rules, an open gap, lost events): nothing can be concluded."""
        self._unquiet = max(self._unquiet, t)
        self._wrong = self._wrong_flows = 0

    def sample(self, t: int, carried: int, leaked: int) -> Moved:
        """The counters at ``t``; counters that went back began anew."""
        samples = self._samples
        last = samples[-1] if samples else _Sample(t, carried, leaked)
        if carried < last.carried or leaked < last.leaked:
            samples.clear()
            last = _Sample(t, 0, 0)
            self.disturb(t)
        samples.append(_Sample(t, carried, leaked))
        return Moved(carried - last.carried, leaked - last.leaked, self._judge())

    def _judge(self) -> int:
        if len(self._samples) < 3:
            return 0
        begin, end, _ = self._samples = self._samples[-3:]
        if self._unquiet > begin.t - _MARGIN or end.carried == begin.carried:
            return 0
        self._wrong += 1
        self._wrong_flows += end.carried - begin.carried
        return self._wrong_flows if self._wrong >= (_LEGACY_PATIENCE if self.polled else 1) else 0
