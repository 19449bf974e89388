"""Reports each step of an agent's restarts as an event.

Problem: the record of a restart must show which process ended and which one runs now. Promise: every step has the
restart's round and method, and a step that ends or starts a process has the evidence. Next stage: ``supervisor``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from hitless.kernel.clock import Clock
from hitless.model.events import Restart

__all__ = ["RestartSteps", "Step"]

Step = Literal["stop", "killed", "exited", "started", "ready", "unready", "failed"]


class RestartSteps:
    """``emit`` gets every step; ``round`` and ``method`` are of the restart that runs, ``node`` is the node's name."""

    def __init__(self, node: str, emit: Callable[[Restart], None], clock: Clock) -> None:
        self._node, self._emit, self._clock = node, emit, clock
        self.round = 0
        self.method = ""
        self._ended = 0  # the process that ended last

    def started(self, agent: str, pid: int, detail: str) -> None:
        """Report its start, and that the process before it has ended."""
        evidence = f"process {pid} runs, process {self._ended} has ended" if self._ended else ""
        self.report("started", agent, pid, detail, evidence)

    def ended(self, agent: str, pid: int, detail: str) -> None:
        """Report its end: the process was waited for, and nothing that it started runs any more."""
        self._ended = pid
        self.report("exited", agent, pid, detail, f"process {pid} has ended")

    def report(self, step: Step, agent: str, pid: int, detail: str = "", evidence: str = "") -> None:
        """Report a step."""
        self._emit(
            Restart(
                t=self._clock.now(),
                node=self._node,
                agent=agent,
                step=step,
                round=self.round,
                pid=pid,
                method=self.method,
                detail=detail,
                evidence=evidence,
            )
        )
