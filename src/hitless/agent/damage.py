"""Whose work is it that our rules are not as they were, and since when? Pure: time comes in.

Problem: a look finds a difference and not its author; the first look may repair half of it only, and a writer that
undoes every repair must not make a loop at full speed. Promise: ``seen`` is told of each look that had something to do
and names the last suspect that has a name; damage that took several looks is one, by who did it, from its first sign.
Each damage counts once against its writer, and ``fights`` says what that means. Next stage: ``reporting``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hitless.agent.change_watch import Suspect
from hitless.agent.fights import GOES_ON, Fights, FightVerdict

__all__ = ["Blame", "Damage"]


@dataclass(frozen=True, slots=True)
class Blame:
    """Who did it, how long it has lasted, and what it means among what the same writer did before."""

    suspect: Suspect
    duration: float
    verdict: FightVerdict


class Damage:
    """What others do to our rules."""

    def __init__(self) -> None:
        self._fights = Fights()
        self._since: float | None = None  # of damage that is not repaired yet
        self._by: Suspect | None = None

    @property
    def stands(self) -> bool:
        """Whether there is damage that is not repaired yet."""
        return self._since is not None

    def over(self) -> None:
        """There is none any more, whoever repaired it."""
        self._since = self._by = None

    def seen(self, begun: float, ended: float, suspects: Sequence[Suspect], *, settled: bool) -> Blame:
        """A look from ``begun`` to ``ended`` found damage; ``settled``: and repaired it."""
        named = [one for one in suspects if one.name] or suspects
        suspect = named[-1] if named else self._by or Suspect(begun, 0, 0, "")
        since = self._since if self._since is not None else suspects[0].time if suspects else begun
        # another try at damage that is not repaired yet is nobody's doing, unless somebody has written meanwhile
        anew = self._since is None or bool(suspects)
        self._since, self._by = (None, None) if settled else (since, suspect)
        return Blame(suspect, ended - since, self._fights.damage(suspect.kin, begun) if anew else GOES_ON)

    def fighting(self, now: float) -> list[str]:
        """The writers that undo our rules again and again."""
        return self._fights.current(now)
