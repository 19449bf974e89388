"""Maintenance windows: the times in which a drill or a change may begin.

Problem: CNI work belongs into change windows, and "Sundays at noon, not in the freeze" is easily computed wrongly
around a change of daylight saving. Promise: ``read`` accepts a file whole, or refuses it with file, entry and what was
expected; ``WindowSchedule`` answers for every instant whether work may begin, until when, and what comes next; ``Gate``
reads the wall clock at each call, so that a clock that jumps is followed at once. Imports neither probe nor drill.
"""

from hitless.operations.windows.gates import Gate
from hitless.operations.windows.openings import Opening, WindowSchedule, WindowState
from hitless.operations.windows.reading import parsed, read
from hitless.operations.windows.times import length, moment, span, utc
from hitless.operations.windows.values import Freeze, Pause, Window, Windows

__all__ = [
    "Freeze",
    "Gate",
    "Opening",
    "Pause",
    "Window",
    "WindowSchedule",
    "WindowState",
    "Windows",
    "length",
    "moment",
    "parsed",
    "read",
    "span",
    "utc",
]
