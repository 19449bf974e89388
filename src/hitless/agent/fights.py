"""Noticing that another writer undoes our rules again and again.

Problem: two agents that repair each other's work loop at full speed and take the lock from everybody. Promise: a third
damage by the same writer within a minute is a fight, reported once with the writer's name; more than twenty in ten
seconds are answered more and more slowly, up to ten seconds apart; a quiet minute ends it. Pure: time comes in.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

__all__ = ["GOES_ON", "FightVerdict", "Fights"]

_NOTICED, _NOTICE_WINDOW = 3, 60.0
_LOOPING, _LOOP_WINDOW = 20, 10.0
_FIRST_DELAY, _LONGEST_DELAY = 0.5, 10.0
_QUIET = 60.0


@dataclass(frozen=True, slots=True)
class FightVerdict:
    """``new``: this damage made it a fight. ``delay``: how long to wait before the repair. ``times``: in a minute."""

    new: bool
    delay: float
    times: int


GOES_ON = FightVerdict(False, 0.0, 0)
"""Of damage that was judged already."""


@dataclass(slots=True)
class _Opponent:
    times: deque[float] = field(default_factory=deque)
    fighting: bool = False
    delay: float = 0.0


class Fights:
    """Damage by writer's name."""

    def __init__(self) -> None:
        self._opponents: dict[str, _Opponent] = {}

    def damage(self, writer: str, now: float) -> FightVerdict:
        """Record a damage and say what it means."""
        opponent = self._opponents.setdefault(writer, _Opponent())
        if opponent.times and now - opponent.times[-1] > _QUIET:
            opponent = self._opponents[writer] = _Opponent()
        opponent.times.append(now)
        while now - opponent.times[0] > _NOTICE_WINDOW:
            opponent.times.popleft()
        lately = sum(1 for time in opponent.times if now - time <= _LOOP_WINDOW)
        if lately > _LOOPING:
            opponent.delay = min(_LONGEST_DELAY, max(_FIRST_DELAY, opponent.delay * 2))
        elif opponent.delay:
            opponent.delay = opponent.delay if lately > 1 else 0.0
        new = len(opponent.times) >= _NOTICED and not opponent.fighting
        opponent.fighting = opponent.fighting or new
        return FightVerdict(new, opponent.delay, len(opponent.times))

    def current(self, now: float) -> list[str]:
        """The writers that we are fighting now."""
        return [
            writer
            for writer, opponent in self._opponents.items()
            if opponent.fighting and opponent.times and now - opponent.times[-1] <= _QUIET
        ]
