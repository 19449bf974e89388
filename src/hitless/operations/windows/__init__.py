"""Maintenance windows: the times in which a drill or a change may begin.

Problem: CNI work belongs into change windows, and "Sundays at noon, not in the freeze" is easily computed wrongly
around a change of daylight saving. Promise: ``read`` takes a file whole, or refuses it with file, entry and expected;
``Schedule`` answers for every instant whether something may begin, until when, and what comes next; ``Gate`` asks it
with the wall clock each time, so that a clock that jumps is believed at once. Imports neither probe nor drill.
"""

from hitless.operations.windows.gates import Gate
from hitless.operations.windows.openings import Opening, Schedule, State
from hitless.operations.windows.reading import parsed, read
from hitless.operations.windows.values import Freeze, Pause, Window, Windows
from hitless.operations.windows.words import length, moment, span, utc

__all__ = [
    "Freeze",
    "Gate",
    "Opening",
    "Pause",
    "Schedule",
    "State",
    "Window",
    "Windows",
    "length",
    "moment",
    "parsed",
    "read",
    "span",
    "utc",
]
