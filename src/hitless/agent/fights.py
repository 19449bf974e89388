"""Notices that another program undoes our rules again and again.

Problem: two agents that undo each other's changes loop at full speed and keep the lock from all other programs.
Promise: a third damage by the same writer within a minute is a fight, and is reported once with the writer's name.
After more than twenty in ten seconds repairs are delayed, up to ten seconds. A minute without damage ends the fight.
Pure: the time is an argument.
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
    """``new``: with this damage it became a fight. ``delay``: seconds before the next repair. ``times``: in a
    minute."""

    new: bool
    delay: float
    times: int


GOES_ON = FightVerdict(False, 0.0, 0)
"""For damage that is counted already."""


@dataclass(slots=True)
class _Opponent:
    times: deque[float] = field(default_factory=deque)
    fighting: bool = False
    delay: float = 0.0


class Fights:
    """Counts damage by the writer's name."""

    def __init__(self) -> None:
        self._opponents: dict[str, _Opponent] = {}

    def damage(self, writer: str, now: float) -> FightVerdict:
        """Count one damage."""
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
        """The writers of current fights."""
        return [
            writer
            for writer, opponent in self._opponents.items()
            if opponent.fighting and opponent.times and now - opponent.times[-1] <= _QUIET
        ]
