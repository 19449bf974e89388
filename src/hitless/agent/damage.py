"""Which process damaged our rules, and since when? Pure: the time is an argument.

Problem: a pass finds a difference, but not who made it; one pass may repair only half of it, and a writer that undoes
every repair must not cause a loop at full speed. Promise: ``seen`` gets each pass that had something to repair, and
names the last suspect whose name is known. Damage whose repair took several passes is one damage, which lasts from its
first event. Each counts once against its writer; ``fights`` decides what follows. Next stage: ``reporter``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hitless.agent.change_watch import Suspect
from hitless.agent.fights import GOES_ON, Fights, FightVerdict

__all__ = ["Blame", "Damage"]


@dataclass(frozen=True, slots=True)
class Blame:
    """The writer, how long the damage has lasted, and whether it is part of a fight with this writer."""

    suspect: Suspect
    duration: float
    verdict: FightVerdict


class Damage:
    """Damage by other programs."""

    def __init__(self) -> None:
        self._fights = Fights()
        self._since: float | None = None  # of damage that is not repaired yet
        self._by: Suspect | None = None

    @property
    def lasts(self) -> bool:
        """Whether there is damage that is not repaired yet."""
        return self._since is not None

    def over(self) -> None:
        """It is repaired, by us or by another program."""
        self._since = self._by = None

    def seen(self, begun: float, ended: float, suspects: Sequence[Suspect], *, settled: bool) -> Blame:
        """A pass from ``begun`` to ``ended`` found damage; ``settled``: and repaired it."""
        named = [one for one in suspects if one.name] or suspects
        suspect = named[-1] if named else self._by or Suspect(begun, 0, 0, "")
        # an event may be read after the pass that found what it announces
        first = min(suspects[0].time, begun) if suspects else begun
        since = self._since if self._since is not None else first
        # another try to repair the same damage is no new damage, unless a program has written since
        new = self._since is None or bool(suspects)
        self._since, self._by = (None, None) if settled else (since, suspect)
        return Blame(suspect, ended - since, self._fights.damage(suspect.kin, begun) if new else GOES_ON)

    def fighting(self, now: float) -> list[str]:
        """The writers that undo our rules again and again."""
        return self._fights.current(now)
