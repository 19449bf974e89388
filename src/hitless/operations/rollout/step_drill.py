"""Measures one step: a drill of one round, in which the rollout's own work takes the place of the restart.

Problem: that an agent became ready does not show what pods lost. Promise: the same watch, probe, controls and verdict
as in ``hitless drill --cluster``: a probe before (the baseline), the restart under load, the bake time after it; each
step has its own log and reports, and each of its nodes its own verdict. What the drill creates is removed at the end
of the step. A driver's pods go on when it dies: the next driver reads their streams from the first line, so that the
restart is measured all the same. Next stage: ``driver``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hitless.cluster import manifests
from hitless.cluster.manifests import PodOptions
from hitless.cluster.pods import sweep
from hitless.cluster.target import ClusterTarget, SharedObjects
from hitless.drill import DrillPlan, run
from hitless.drill.drill_log import SubjectRecorder
from hitless.drill.origins import Origin
from hitless.drill.targets import Subject, SubjectName
from hitless.errors import MissingError
from hitless.evidence import RecordedDrill, Verdict, judge
from hitless.kube.api import Api
from hitless.kube.objects import PODS, Node
from hitless.model import events as e
from hitless.operations.rollout.ports import StepOutcome, Work
from hitless.restarts.agents import AgentPods, Step
from hitless.restarts.methods import ApiMethod
from hitless.survey.cni import Survey

__all__ = ["UNSEEN", "DrillProber"]

_LEAST = 1.0
"""Seconds: a plan's shortest baseline. That of a measurement which goes on was before."""

UNSEEN = "the agent was restarted before this record begins: what that cost was not seen"


@dataclass
class DrillProber:
    """Steps of one rollout. ``folder`` gives the folder of a step's log; ``done`` takes its record and verdict."""

    api: Api
    survey: Survey
    agent: AgentPods
    pods: PodOptions
    plan: DrillPlan
    places: SharedObjects
    to: Sequence[str]
    folder: Callable[[Sequence[str]], Path]
    done: Callable[[Path, RecordedDrill, Verdict], None]
    origin: Origin | None = None
    observer: Callable[[e.Event], None] = lambda _: None
    former: list[str] = field(default_factory=list)
    """Drills of drivers that died: their objects are removed before pods are created."""

    async def around(self, nodes: Sequence[Node], work: Work, *, unseen: bool) -> Mapping[str, StepOutcome]:
        """Probe, work, probe again."""
        await self.tidy()
        return await self._measured(self._target(nodes, self.pods, self.places), work, self.plan, unseen=unseen)

    async def rejoin(self, nodes: Sequence[Node], drill: str, work: Work) -> Mapping[str, StepOutcome] | None:
        """Read the streams of a dead driver's pods from their first line; None where they are gone."""
        pods = replace(self.pods, identity=drill)
        if not await self._running(pods, nodes):
            return None
        owners = {place: manifests.owner(pods, place) for place in pods.namespaces}
        for owner in owners.values():
            owner["metadata"]["uid"] = ""  # of no use: nothing is made
        target = self._target(nodes, pods, SharedObjects(owners, self.places.far_ends, self.places.peers))
        target.joins = True
        try:
            return await self._measured(target, work, replace(self.plan, baseline=_LEAST), before=self.plan.baseline)
        except MissingError:
            return None

    async def tidy(self) -> None:
        """Remove what drivers that died left behind."""
        while self.former:
            await sweep(self.api, self.pods.namespaces, self.former[-1])
            self.former.pop()

    async def _running(self, pods: PodOptions, nodes: Sequence[Node]) -> bool:
        """Whether a watch and a probe of that drill run on each of the nodes."""
        found = set()
        for place in pods.namespaces:
            for pod in await self.api.all(PODS, place, labels=manifests.selector(pods.identity)):
                if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None:
                    found.add((pod.spec.node_name, pod.label("app.kubernetes.io/component")))
        return all((node.name, role) in found for node in nodes for role in ("watch", "probe"))

    def _target(self, nodes: Sequence[Node], pods: PodOptions, places: SharedObjects) -> ClusterTarget:
        survey, agent, method = self.survey, self.agent, ApiMethod.DELETE_POD
        return ClusterTarget(
            self.api, survey, nodes, pods, self.plan, agent, method, places, self.to, at_once=len(nodes)
        )

    async def _measured(
        self, target: ClusterTarget, work: Work, plan: DrillPlan, *, unseen: bool = False, before: float | None = None
    ) -> Mapping[str, StepOutcome]:
        names = [node.name for node in target.nodes]
        log = self.folder(names) / "events.jsonl"
        recorded, verdict = await run(
            plan,
            _Worked(target, work, unseen, before),
            log,
            judged=target.title,
            observer=self.observer,
            origin=self.origin,
        )
        self.done(log, recorded, verdict)
        return {name: _outcome(recorded, name) for name in names}


def _outcome(recorded: RecordedDrill, node: str) -> StepOutcome:
    """The verdict of one node alone."""
    mine = tuple(record for record in recorded.records if record.node == node)
    verdict = judge(replace(recorded, records=mine))
    if not verdict.agents:
        return StepOutcome("inconclusive", reasons=("nothing was measured", *verdict.notes), clean=False)
    agent = verdict.agents[0]
    clean = agent.verdict != "fail" and not agent.lost and bool(agent.attempted)
    return StepOutcome(agent.verdict, agent.attempted, agent.lost, agent.reasons, clean)


@dataclass
class _Worked:
    """A target whose restart is the rollout's own deletion of pods."""

    inner: ClusterTarget
    work: Work
    unseen: bool
    before: float | None = None
    """Seconds without a restart at the begin of a measurement that another driver began."""

    @property
    def config(self) -> Mapping[str, Any]:
        return {**self.inner.config, "rollout": True}

    def subjects(self) -> Sequence[SubjectName]:
        return self.inner.subjects()

    @asynccontextmanager
    async def open(self, name: SubjectName, recorder: SubjectRecorder) -> AsyncIterator[Subject]:
        if self.before is not None:
            recorder.when = _past(recorder, self.before)
        async with self.inner.open(name, recorder) as subject:
            yield _Subject(subject, recorder, self.work, self.unseen, self.inner.method)


def _past(recorder: SubjectRecorder, before: float) -> Callable[[str], int]:
    """When the phases of a measurement were that another driver began: it probed for ``before`` seconds at least, and
    restarted the agent after that."""

    def when(phase: str) -> int:
        starts = {"baseline": recorder.earliest, "round": recorder.earliest + int(before * 1e9)}
        return starts.get(phase) or recorder.now

    return when


@dataclass
class _Subject:
    inner: Subject
    recorder: SubjectRecorder
    work: Work
    unseen: bool
    method: str

    async def restart(self, round: int) -> None:
        recorders = {one.node: one for one in (self.recorder, *self.recorder.companions)}

        def tell(node: str, step: Step, detail: str, evidence: str = "", code: e.RestartCode = "", /) -> None:
            recorders[node].write(
                e.Restart(
                    t=self.recorder.when("round") if step == "stop" and self.recorder.when else self.recorder.now,
                    step=step,
                    round=round,
                    method=self.method,
                    detail=detail,
                    evidence=evidence,
                    code=code,
                )
            )

        for one in recorders.values() if self.unseen else ():
            one.note("error", UNSEEN)
        await self.work(tell)

    async def quiet(self) -> None:
        await self.inner.quiet()
