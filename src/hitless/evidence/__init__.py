"""Evidence: the event log, the verdict (a pure function of it), and the reports that are rendered from it alone."""

from __future__ import annotations

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
