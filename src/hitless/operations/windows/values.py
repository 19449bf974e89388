"""The content of a file of maintenance windows: frozen values. Pure.

Times of a recurrence are local ones (naive datetimes in the window's zone); ``zones`` makes instants of them. Instants
are whole Unix seconds. Next stage: ``openings``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from fnmatch import fnmatchcase
from typing import Protocol
from zoneinfo import ZoneInfo

__all__ = ["Freeze", "Pause", "Recurrence", "Repeated", "Window", "Windows"]


class Recurrence(Protocol):
    """When something begins, again and again."""

    def starts(self, first: datetime, last: datetime) -> Iterator[datetime]:
        """The local times from ``first`` to ``last``, both included, in order, each once."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing opens, for a reason that is shown; ``until`` an instant, else until it is removed from the file."""

    reason: str
    until: int | None = None

    def holds(self, at: int) -> bool:
        """Whether it is paused at this instant."""
        return self.until is None or at < self.until


@dataclass(frozen=True, slots=True)
class Freeze:
    """Days, both included, in which a window stays closed."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class Repeated:
    """Events of a calendar: each start lasts ``days`` days, or ``seconds``; ``zone``: theirs, else the window's."""

    recurrence: Recurrence
    days: int = 0
    seconds: int = 0
    zone: ZoneInfo | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """One entry: it opens at every start of its recurrence for ``duration`` seconds of elapsed time. ``labels``:
    selectors of nodes, each a number of labels (None: of any value) that a node must have."""

    name: str
    recurrence: Recurrence
    duration: int
    zone: ZoneInfo
    freezes: tuple[Freeze, ...] = ()
    calendars: tuple[Repeated, ...] = ()
    clusters: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    labels: tuple[tuple[tuple[str, str | None], ...], ...] = ()
    pause: Pause | None = None

    def is_for(self, clusters: tuple[str, ...], node: str, labels: Mapping[str, str] | None = None) -> bool:
        """Whether it is for this node, with these labels, of the cluster that has these names. Who does not know where
        a run will be ("" or none) is given only the windows that are for every place."""
        if self.labels and not any(_has(labels or {}, one) for one in self.labels):
            return False
        return _named(self.clusters, clusters) and _named(self.nodes, (node,) if node else ())


def _has(labels: Mapping[str, str], selector: tuple[tuple[str, str | None], ...]) -> bool:
    return all(key in labels and value in (None, labels[key]) for key, value in selector)


def _named(patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Windows:
    """A whole file; ``source`` is its name in messages, ``sha256`` the hash of its content."""

    entries: tuple[Window, ...]
    source: str
    pause: Pause | None = None
    warnings: tuple[str, ...] = ()
    sha256: str = ""
