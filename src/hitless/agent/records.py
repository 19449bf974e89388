"""What the agent records in its log: the same records as the watch's and the guard's. Next stage: ``reporting``."""

from __future__ import annotations

from hitless.model.rule_events import Interval

__all__ = ["AgentGap"]


class AgentGap(Interval, tag="gap", frozen=True, kw_only=True):
    """A time in which our rules were damaged, so that pods had no egress. It begins when the agent was told of the
    damage, or found it, and ends with the repair; ``open``: the repair did not succeed yet.

    ``writer`` and ``milliseconds`` say once more who opened it, and how long it lasted.
    """

    networks: list[str]
    writer: str
    milliseconds: float
