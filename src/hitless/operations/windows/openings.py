"""When windows are open: the instants, for every question. Pure.

Promise: a start inside a freeze opens nothing, and a window ends where a freeze begins: so "closed on these days" holds
for the whole of each day. ``WindowSchedule.state`` is true until the instant that it names and no longer; between two
instants that it names nothing changes. Everything is bounded by ``AHEAD``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from hitless.operations.windows.times import EARLIEST, LATEST
from hitless.operations.windows.values import Repeated, Window, Windows
from hitless.operations.windows.zones import instant, local, midnight

__all__ = ["AHEAD", "Opening", "WindowSchedule", "WindowState", "openings"]

AHEAD = 40 * 366 * 86400
"""Seconds: the 29th of February falls on each weekday within 40 years, also across 2100."""

_SLACK = 2 * 86400
"""Local times differ from UTC by less than a day, and a change of a zone moves them by less than another."""
_PIECE = 64 * 86400
_SHORTEST_PIECE, _LONGEST_PIECE = 16 * 86400, 512 * 86400
_MERGED = 2_000
"""Openings that follow each other without a gap: more of them are "for years"."""


@dataclass(frozen=True, slots=True, order=True)
class Opening:
    """From ``begin`` until before ``end``."""

    begin: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class WindowState:
    """What holds at an instant, until ``until`` (None: for ever): the opening, or why it is closed."""

    open: bool
    until: int | None
    name: str = ""
    paused: str = ""


def _instants(repeated: Repeated, window: Window, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The events of a calendar that touch the time from ``first`` to ``last``, as instants."""
    place = repeated.zone or window.zone
    long = timedelta(days=repeated.days, seconds=repeated.seconds)
    begin, end = local(max(first - _SLACK, EARLIEST), place) - long, local(min(last + _SLACK, LATEST), place)
    for start in repeated.recurrence.starts(begin, end):
        if repeated.days:
            yield midnight(start.date(), place), midnight(start.date(), place, days=repeated.days)
        else:
            at = instant(start, place)
            yield at, at + repeated.seconds


class _Closed:
    """The time that one window is kept closed, computed piece by piece."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._fixed = [
            (midnight(one.first, window.zone), midnight(one.last, window.zone, days=1)) for one in window.freezes
        ]
        self._pieces: dict[int, list[tuple[int, int]]] = {}

    def _near(self, at: int) -> list[tuple[int, int]]:
        if not self._window.calendars:
            return self._fixed
        number = at // _PIECE
        if number not in self._pieces:
            if len(self._pieces) > 8:
                self._pieces.clear()
            begin, end = number * _PIECE, (number + 2) * _PIECE
            found = [span for one in self._window.calendars for span in _instants(one, self._window, begin, end)]
            self._pieces[number] = self._fixed + found
        return self._pieces[number]

    def until(self, at: int) -> int | None:
        """When what keeps it closed at this instant ends; None when nothing does."""
        ends = [end for begin, end in self._near(at) if begin <= at < end]
        return max(ends) if ends else None

    def next(self, begin: int, end: int) -> int:
        """The first instant after ``begin`` from which it is closed, ``end`` at the latest."""
        return min((one for one, other in self._near(begin) if begin < one < end and other > one), default=end)


def _starts(window: Window, begin: int, end: int) -> list[int]:
    """The instants from ``begin`` until before ``end`` at which the window would open, in order.

    A local time that was skipped comes later than the next one that was not, and may be the same instant as another.
    """
    first, last = (local(min(max(at, EARLIEST), LATEST), window.zone) for at in (begin - _SLACK, end + _SLACK))
    found = {instant(start, window.zone) for start in window.recurrence.starts(first, last)}
    return sorted(at for at in found if begin <= at < end)


def openings(window: Window, after: int, *, before: int | None = None) -> Iterator[Opening]:
    """The openings that end after ``after`` and begin before ``before`` (default: ``AHEAD`` later), in order."""
    stop = min(after + AHEAD, LATEST) if before is None else min(before, LATEST)
    closed = _Closed(window)
    begin, piece = max(after - window.duration, EARLIEST), _SHORTEST_PIECE
    thawed = begin
    while begin < stop:
        end = min(begin + piece, stop)
        for at in _starts(window, begin, end):
            if at < thawed:
                continue
            frozen = closed.until(at)
            if frozen is None:
                yield from _opening(window, closed, at, after)
            elif frozen > end:  # a long freeze is passed over
                end = frozen
                break
            else:
                thawed = frozen
        begin, piece = end, min(2 * piece, _LONGEST_PIECE)


def _opening(window: Window, closed: _Closed, at: int, after: int) -> Iterator[Opening]:
    begin, end = at, closed.next(at, at + window.duration)
    if window.pause is not None and window.pause.holds(begin):
        if window.pause.until is None:
            return
        begin = window.pause.until
    if begin < end and end > after:
        yield Opening(begin, end, window.name)


class WindowSchedule:
    """A file's windows that are for one place: a cluster by its names, a node by its name and labels, or neither."""

    def __init__(
        self,
        windows: Windows,
        clusters: tuple[str, ...] = (),
        node: str = "",
        needs: int = 0,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        self.windows = windows
        self.entries = tuple(one for one in windows.entries if one.is_for(clusters, node, labels))
        self.needs = needs

    def openings(self, after: int, *, before: int | None = None) -> Iterator[Opening]:
        """The openings of all that end after ``after``, by their beginning; shorter ones than is needed are none."""
        pause = self.windows.pause
        if pause is not None and pause.until is None:
            return
        streams = [openings(one, after, before=before) for one in self.entries]
        for one in heapq.merge(*streams):
            if pause is not None and pause.until is not None and one.begin < pause.until:
                one = Opening(max(one.begin, pause.until), one.end, one.name)
            if one.end - one.begin >= max(self.needs, 1):
                yield one

    def next(self, after: int) -> Iterator[Opening]:
        """The openings that begin at ``after`` or later."""
        return (one for one in self.openings(after) if one.begin >= after)

    def state(self, at: int) -> WindowState:
        """Whether something that needs ``needs`` seconds may begin, and until when that is so."""
        paused = self.paused(at)
        latest, name = at, ""
        following: int | None = None
        merged = 0
        for one in self.openings(at):
            last = one.end - max(self.needs - 1, 0)  # it may begin until before this instant
            if one.begin <= latest and last > latest:
                latest, name = last, name or one.name
                merged += 1
            elif one.begin > latest:
                following = one.begin
                break
            if merged >= _MERGED:
                break
        if latest > at:
            return WindowState(True, latest, name)
        return WindowState(False, following, paused=paused)

    def paused(self, at: int) -> str:
        """Why nothing opens that otherwise might; empty when nothing is paused."""
        if self.windows.pause is not None and self.windows.pause.holds(at):
            return self.windows.pause.reason
        reasons = [one.pause.reason if one.pause is not None and one.pause.holds(at) else "" for one in self.entries]
        return reasons[0] if reasons and all(reasons) else ""
