"""Evidence: the event log, the verdict (a pure function of it), and the reports that are rendered from it alone.

Each name is imported when it is first used: a prober needs only ``redaction``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hitless.first_use import on_first_use

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

__getattr__ = on_first_use(
    __name__,
    {
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
    },
)
