"""The values and ports that the parts of a rollout share: who drives it, with what, and the outcome of a step."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hitless.kube.api import Api
from hitless.kube.objects import Node
from hitless.operations.rollout.record import RolloutRecord
from hitless.operations.rollout.values import NodeTurn, Rollout, VerdictName
from hitless.restarts.agents import AgentPods, ReportStep

__all__ = ["RESUME", "DriverContext", "StepOutcome", "StepProber", "Work", "now"]

RESUME = "go on with hitless rollout resume"


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What was measured on a node. ``clean``: nothing was lost."""

    verdict: VerdictName
    attempted: int = 0
    lost: int = 0
    reasons: tuple[str, ...] = ()
    clean: bool = True


class Work(Protocol):
    """What happens between the probe before and the probe after."""

    async def __call__(self, tell: ReportStep, /) -> None: ...


class StepProber(Protocol):
    """Measures nodes while something is done to them."""

    async def around(self, nodes: Sequence[Node], work: Work, *, unseen: bool) -> Mapping[str, StepOutcome]:
        """Probe, work, probe again. ``unseen``: the restart itself was before this measurement."""

    async def rejoin(self, nodes: Sequence[Node], drill: str, work: Work) -> Mapping[str, StepOutcome] | None:
        """What the pods of a driver that died measured; they go on without it. None where they are gone."""


async def _no_others(_: Sequence[str]) -> str:
    return ""


async def _not_announced(_: Sequence[NodeTurn]) -> None:
    pass


@dataclass
class DriverContext:
    """Everything that a driver needs. ``permit``: why nothing may begin on these nodes now, or empty; ``others``: which
    other drills use them, or empty; ``announce``: called with the finished turns of a step; ``most``: stop after so
    many steps (0: never)."""

    api: Api
    agent: AgentPods
    record: RolloutRecord
    prober: StepProber
    permit: Callable[[Sequence[str]], str] = lambda _: ""
    tell: Callable[[str], None] = lambda _: None
    most: int = 0
    others: Callable[[Sequence[str]], Awaitable[str]] = _no_others
    announce: Callable[[Sequence[NodeTurn]], Awaitable[None]] = _not_announced
    taken: int = field(default=0, init=False)

    @property
    def state(self) -> Rollout:
        """The recorded state."""
        return self.record.state


def now() -> str:
    """The current time, for the record."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
