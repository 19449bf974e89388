"""What is due when. Pure: time comes in as an argument.

Promise: ``patience`` is the time until something is due; ``take_*`` gives what is due now, each once. Next stage:
``loop``.
"""

from __future__ import annotations

from collections.abc import Iterable

from hitless.model.families import Family

__all__ = ["AGAIN", "TICK", "Schedule"]

TICK = 1.0  # seconds between readings of the counters
AGAIN = (0.1, 1.0)  # seconds after a first healing: for packets that were being processed then
_COUNT_SHARE = 100  # counting all pods takes at most a per cent of a core
_SOONEST = 0.01  # seconds until the same rules are decided about again


class Schedule:
    """Decisions and healings by family, the tick, and the count of pods."""

    def __init__(self) -> None:
        self._decisions: dict[Family, float] = {}
        self._heals: set[tuple[float, Family]] = set()
        self._tick = 0.0
        self._count_at = 0.0

    def patience(self, now: float) -> float:
        """Seconds until something is due."""
        return max(0.0, min(self._tick, *self._decisions.values(), *(at for at, _ in self._heals), now + TICK) - now)

    def decide(self, family: Family, at: float | None) -> None:
        """When to decide about the same rules again; ``None``: not before something changes."""
        if at is None:
            self._decisions.pop(family, None)
        else:
            self._decisions[family] = at

    def decide_again(self, family: Family, at: float | None, now: float) -> None:
        """As ``decide``, after a decision about the same rules: what is due keeps a little distance."""
        if at is not None:
            self._decisions[family] = max(at, now + _SOONEST)

    def heal(self, family: Family, now: float, waits: Iterable[float] = AGAIN) -> None:
        """Heal after each of these times."""
        self._heals |= {(now + wait, family) for wait in waits}

    def take_decisions(self, now: float) -> list[Family]:
        """Families about which is to be decided again."""
        due = [family for family, at in self._decisions.items() if now >= at]
        for family in due:
            del self._decisions[family]
        return due

    def take_heals(self, now: float) -> list[Family]:
        """Families to be healed, one for each time that is over."""
        due = sorted(each for each in self._heals if now >= each[0])
        self._heals.difference_update(due)
        return [family for _, family in due]

    def take_tick(self, now: float) -> bool:
        """Whether the tick is due; the next one comes after that."""
        if now < self._tick:
            return False
        self._tick = now + TICK
        return True

    def may_count(self, now: float) -> bool:
        """Whether all pods may be evaluated."""
        return now >= self._count_at

    def counted(self, now: float, cost: float) -> None:
        """They were, for ``cost`` seconds of work."""
        self._count_at = now + _COUNT_SHARE * cost
