"""What can be drilled: a lab, a machine, a cluster. The drill uses only these protocols.

Problem: the rounds and the verdict must be the same wherever an agent runs. Promise: a ``DrillTarget`` lists its
subjects (one agent on one node each) and opens them one after another. An open ``Subject`` has its agent running and
its streams connected to the recorder, and can be restarted. What a target creates, it removes when the subject is
closed, whatever happened. Implementations: ``labs``, ``nodes``, ``hitless.cluster``. Next stage: ``running``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from hitless.drill.drill_log import SubjectRecorder

__all__ = ["DrillTarget", "Subject", "SubjectName"]


@dataclass(frozen=True, slots=True)
class SubjectName:
    """A subject's agent (a row of the table) and node."""

    agent: str
    node: str


class Subject(Protocol):
    """One agent on one node, running, with watch and probe writing to its recorder."""

    async def restart(self, round: int) -> None:
        """Restart the agent by the plan's method and wait until it is ready again, within the plan's patience.

        Writes ``Restart`` events: step "failed", and no exception, if the agent does not become ready.
        """

    async def quiet(self) -> None:
        """End the traffic: begin nothing more, and record how open attempts end."""


class DrillTarget(Protocol):
    """Something with agents to restart."""

    @property
    def config(self) -> Mapping[str, Any]:
        """For the log's header: at least ``target`` (its name) and ``far_end`` (whether the drill has a far end)."""

    def subjects(self) -> Sequence[SubjectName]:
        """The subjects, in the order in which they are drilled."""

    def open(self, name: SubjectName, recorder: SubjectRecorder) -> AbstractAsyncContextManager[Subject]:
        """Set up the subject and start its streams; closing removes everything.

        Raises ``HitlessError`` if that is not possible.
        """
