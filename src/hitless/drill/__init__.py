"""The drill: restart an agent under load, watch every rule change and every connection, and record it all."""

from __future__ import annotations

from hitless.drill.drill_log import DrillLog, SubjectRecorder, Tool
from hitless.drill.plans import ApiMethod, DrillPlan, Method, Outside
from hitless.drill.running import run
from hitless.drill.targets import DrillTarget, Subject, SubjectName

__all__ = [
    "ApiMethod",
    "DrillLog",
    "DrillPlan",
    "DrillTarget",
    "Method",
    "Outside",
    "Subject",
    "SubjectName",
    "SubjectRecorder",
    "Tool",
    "run",
]
