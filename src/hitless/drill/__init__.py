"""The drill: restart an agent under load, watch every rule change and every connection, and record it all."""

from __future__ import annotations

from hitless.drill.plans import ByApi, Method, Outside, Plan
from hitless.drill.recording import Desk, Record, Tool
from hitless.drill.running import run
from hitless.drill.targets import Name, Subject, Target

__all__ = ["ByApi", "Desk", "Method", "Name", "Outside", "Plan", "Record", "Subject", "Target", "Tool", "run"]
