"""What can be drilled: a lab, a machine, a cluster. The drill knows only these protocols.

Problem: the same rounds and the same verdict must hold wherever an agent runs. Promise: a ``DrillTarget`` names its
subjects (one agent on one node each) and opens them one after another; an open ``Subject`` has its agent running and
its streams flowing to the desk, can be restarted, and says in words when something is not as it should be. What a
target makes it takes away when its subject closes, whatever happened. Implementations: ``lab`` here;
``hitless.cluster`` for clusters. Next stage: ``running``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from hitless.drill.drill_log import SubjectLog

__all__ = ["DrillTarget", "Subject", "SubjectName"]


@dataclass(frozen=True, slots=True)
class SubjectName:
    """A subject's name: the row of the table that it belongs to, and its node."""

    agent: str
    node: str


class Subject(Protocol):
    """One agent on one node, running, with watch and probe writing to its desk."""

    async def restart(self, round: int) -> None:
        """Restart the agent by the plan's method and wait until it is ready again, within the plan's patience.

        Writes ``Restart`` events. An agent that does not come back is a ``Restart`` of step "failed", no exception.
        """

    async def quiet(self) -> None:
        """End the traffic: nothing is begun any more, what is open comes to its end and into the log."""


class DrillTarget(Protocol):
    """A place with agents to restart."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Goes into the log's header: at least ``target`` (a word) and ``far_end`` (whether one of ours answers)."""

    def subjects(self) -> Sequence[SubjectName]:
        """The subjects in the order in which they are drilled."""

    def open(self, name: SubjectName, desk: SubjectLog) -> AbstractAsyncContextManager[Subject]:
        """Make the subject ready and start its streams; closing takes everything away.

        Raises ``HitlessError`` when that cannot be done.
        """
