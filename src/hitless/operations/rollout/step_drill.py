"""Measures one step: a drill of one round, in which the rollout's own work takes the place of the restart.

Problem: that an agent became ready does not show what pods lost. Promise: the same watch, probe, controls and verdict
as in ``hitless drill --cluster``: a probe before (the baseline), the restart under load, the bake time after it; each
step has its own log and reports, and each of its nodes its own verdict. What the drill creates is removed at the end
of the step. Next stage: ``driver``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hitless.cluster.manifests import Pods
from hitless.cluster.target import ClusterTarget, Places
from hitless.drill import Plan, run
from hitless.drill.origins import Origin
from hitless.drill.recording import Desk
from hitless.drill.targets import Name, Subject
from hitless.evidence import Story, Verdict, judge
from hitless.kube.api import Api
from hitless.kube.objects import Node
from hitless.model import events as e
from hitless.operations.rollout.ports import Outcome, Work
from hitless.restarts.agents import Agent, Step
from hitless.restarts.methods import Method
from hitless.survey.cni import Survey

__all__ = ["UNSEEN", "DrillProber"]

UNSEEN = "the agent was restarted before this record begins: what that cost was not seen"


@dataclass
class DrillProber:
    """Steps of one rollout. ``folder`` gives the place of a step's log; ``done`` is told its story and verdict."""

    api: Api
    survey: Survey
    agent: Agent
    pods: Pods
    plan: Plan
    places: Places
    to: Sequence[str]
    folder: Callable[[Sequence[str]], Path]
    done: Callable[[Path, Story, Verdict], None]
    origin: Origin | None = None
    onlooker: Callable[[e.Event], None] = lambda _: None

    async def around(self, nodes: Sequence[Node], work: Work, *, unseen: bool) -> Mapping[str, Outcome]:
        """Probe, work, probe again."""
        target = ClusterTarget(
            self.api,
            self.survey,
            nodes,
            self.pods,
            self.plan,
            self.agent,
            Method.DELETE_POD,
            self.places,
            self.to,
            at_once=len(nodes),
        )
        log = self.folder([node.name for node in nodes]) / "events.jsonl"
        told, verdict = await run(
            self.plan,
            _Worked(target, work, unseen),
            log,
            judged=target.title,
            onlooker=self.onlooker,
            origin=self.origin,
        )
        self.done(log, told, verdict)
        return {node.name: _outcome(told, node.name) for node in nodes}


def _outcome(told: Story, node: str) -> Outcome:
    """The verdict of one node alone."""
    mine = tuple(record for record in told.records if record.node == node)
    verdict = judge(replace(told, records=mine))
    if not verdict.agents:
        return Outcome("inconclusive", reasons=("nothing was measured", *verdict.notes), clean=False)
    agent = verdict.agents[0]
    clean = agent.verdict != "fail" and not agent.lost and bool(agent.attempted)
    return Outcome(agent.verdict, agent.attempted, agent.lost, agent.reasons, clean)


@dataclass
class _Worked:
    """A target whose restarts are the rollout's own work."""

    inner: ClusterTarget
    work: Work
    unseen: bool

    @property
    def config(self) -> Mapping[str, Any]:
        return {**self.inner.config, "rollout": True}

    def subjects(self) -> Sequence[Name]:
        return self.inner.subjects()

    @asynccontextmanager
    async def open(self, name: Name, desk: Desk) -> AsyncIterator[Subject]:
        async with self.inner.open(name, desk) as subject:
            yield _Subject(subject, desk, self.work, self.unseen, self.inner.method)


@dataclass
class _Subject:
    inner: Subject
    desk: Desk
    work: Work
    unseen: bool
    method: str
    _told: list[str] = field(default_factory=list)

    async def restart(self, round: int) -> None:
        desks = {one.node: one for one in (self.desk, *self.desk.companions)}

        def tell(node: str, step: Step, detail: str, evidence: str = "", code: e.RestartCode = "", /) -> None:
            desks[node].write(
                e.Restart(
                    t=self.desk.now,
                    step=step,
                    round=round,
                    method=self.method,
                    detail=detail,
                    evidence=evidence,
                    code=code,
                )
            )

        for one in desks.values() if self.unseen else ():
            one.note("error", UNSEEN)
        await self.work(tell)

    async def quiet(self) -> None:
        await self.inner.quiet()
