"""The agent's records, of the same form as the watch's and the guard's. Next stage: ``reporter``."""

from __future__ import annotations

from hitless.model.rule_events import Interval

__all__ = ["AgentGap"]


class AgentGap(Interval, tag="gap", frozen=True, kw_only=True):
    """A time in which damage to our rules left pods without egress. It begins with the event that reported the damage,
    or when a pass found it, and ends with the repair; ``open``: the repair has not succeeded yet. ``writer`` and
    ``milliseconds`` repeat ``opened_by`` and the length for readers of the log.
    """

    networks: list[str]
    writer: str
    milliseconds: float
