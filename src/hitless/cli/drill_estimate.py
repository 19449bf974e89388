"""How long a drill still takes, estimated from its own rounds.

Promise: no estimate before two rounds have begun, then one from the mean of all rounds so far; agents that have not
begun count like those that have. Only ``Phase`` events are used.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from hitless.model import events as e

__all__ = ["TimeLeft"]


@dataclass
class _Course:
    """The phases of one agent on one node."""

    begin: int
    rounds: list[int] = field(default_factory=list)
    recovery: int = 0
    end: int = 0

    def lengths(self) -> list[int]:
        marks = [*self.rounds, *([self.recovery] if self.recovery else [])]
        return [after - before for before, after in itertools.pairwise(marks)]


class TimeLeft:
    """``nodes``: on how many nodes each agent is drilled, one after another. If it is 1, further nodes of an agent (in
    the lab) do the same rounds at the same time."""

    def __init__(self, agents: Sequence[str], rounds: int, nodes: int = 1) -> None:
        self._agents, self._rounds, self.nodes = agents, rounds, nodes
        self._courses: dict[tuple[str, str], _Course] = {}
        self._first: dict[str, str] = {}
        self._now = 0

    def take(self, event: e.Event) -> None:
        """Take the time and phase of an event."""
        self._now = max(self._now, event.t)
        if not isinstance(event, e.Phase):
            return
        if self.nodes == 1 and self._first.setdefault(event.agent, event.node) != event.node:
            return
        course = self._courses.setdefault((event.agent, event.node), _Course(event.t))
        match event.phase:
            case "round":
                course.rounds.append(event.t)
            case "recovery":
                course.recovery = event.t
            case "end":
                course.end = event.t
            case _:
                pass

    def seconds(self) -> float | None:
        """The estimate; ``None`` before the first complete round."""
        seen = [length for course in self._courses.values() for length in course.lengths()]
        if not seen:
            return None
        each = sum(seen) / len(seen)
        heads = [course.rounds[0] - course.begin for course in self._courses.values() if course.rounds]
        tails = [course.end - course.recovery for course in self._courses.values() if course.end and course.recovery]
        head, tail = sum(heads) / max(1, len(heads)), sum(tails) / len(tails) if tails else each
        left = 0.0
        for course in self._courses.values():
            if not course.end:
                rounds = 0 if course.recovery else self._rounds - len(course.rounds)
                since = self._now - (course.recovery or (course.rounds[-1] if course.rounds else course.begin))
                now = tail if course.recovery else each if course.rounds else head
                left += max(0.0, now - since) + rounds * each + (0 if course.recovery else tail)
        to_come = max(0, len(self._agents) * self.nodes - len(self._courses))
        return (left + to_come * (head + self._rounds * each + tail)) / 1e9
