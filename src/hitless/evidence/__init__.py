"""Evidence: the event log, the verdict (a pure function of it), and the reports that are rendered from it alone."""

from __future__ import annotations

from hitless.evidence.figures import Figures
from hitless.evidence.log import Log, LogWriter, parse, read
from hitless.evidence.records import Record, Story, story
from hitless.evidence.verdict import AgentVerdict, Verdict, Word, decide, judge

__all__ = [
    "AgentVerdict",
    "Figures",
    "Log",
    "LogWriter",
    "Record",
    "Story",
    "Verdict",
    "Word",
    "decide",
    "judge",
    "parse",
    "read",
    "story",
]
