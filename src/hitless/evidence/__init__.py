"""Evidence: the event log, the verdict (a pure function of it), and the reports that are rendered from it alone.

Each name is imported when it is first used: a prober needs only ``redaction``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hitless.evidence.figures import Figures
    from hitless.evidence.log import EventLog, LogWriter, parse, read
    from hitless.evidence.records import Record, RecordedDrill, grouped
    from hitless.evidence.verdict import AgentVerdict, Verdict, VerdictValue, decide, judge

__all__ = [
    "AgentVerdict",
    "EventLog",
    "Figures",
    "LogWriter",
    "Record",
    "RecordedDrill",
    "Verdict",
    "VerdictValue",
    "decide",
    "grouped",
    "judge",
    "parse",
    "read",
]

_MODULES = {
    "figures": ("Figures",),
    "log": (
        "EventLog",
        "LogWriter",
        "parse",
        "read",
    ),
    "records": (
        "Record",
        "RecordedDrill",
        "grouped",
    ),
    "verdict": (
        "AgentVerdict",
        "Verdict",
        "VerdictValue",
        "decide",
        "judge",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found
