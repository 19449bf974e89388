"""The self-test: drills with known faults, and whether these were found and measured correctly.

Problem: all results depend on the drill's measurement; who checks it? Promise: ``run`` drills a harmless agent once for
each trial, in labs of its own, with the same code as real agents, and compares the record and the verdict with what was
done: right, wrong, or could not tell (if the tools report that this machine was too busy).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hitless import lab
from hitless.drill import running
from hitless.drill.labs import LabSubject, LabTarget, OpenedLab
from hitless.drill.origins import Origin
from hitless.drill.plans import DrillPlan
from hitless.drill.targets import Subject
from hitless.drill.trials import Finding, Trial
from hitless.evidence import VerdictValue
from hitless.lab.agents import Agent, Readiness
from hitless.lab.clusters import LabNode
from hitless.lab.supervisor import Method
from hitless.model.events import Event

__all__ = ["overall", "run"]


def _agent(name: str) -> Agent:
    """The adopting stand-in, with so long a resync interval that it does not repair what a trial breaks."""
    ready = "/run/hitless/selftest.ready"

    def command(plan: lab.LabPlan, node: LabNode) -> tuple[str, ...]:
        line = [sys.executable, "-P", "-m", "hitless.lab.standins", "adopter", "--backend", str(plan.backend)]
        for family in plan.families:
            line += ["--network", str(plan.network(family)), "--subnet", str(node.subnets[family])]
        return (*line, "--resync", "3600", "--ready-file", ready)

    return Agent(name, command, Readiness("file", ready))


class _Subject(LabSubject):
    def __init__(self, plan: DrillPlan, opened: OpenedLab, trial: Trial) -> None:
        super().__init__(plan, opened)
        self._trial = trial

    async def restart(self, round: int) -> None:
        await super().restart(round)
        await self._trial.act(self.opened)


class _Target(LabTarget):
    def __init__(self, trials: Sequence[Trial], plan: DrillPlan, place: lab.LabPlan) -> None:
        super().__init__([_agent(trial.name) for trial in trials], plan, place)
        self._trials = {trial.name: trial for trial in trials}
        self._drill = plan

    def subject(self, opened: OpenedLab) -> Subject:
        return _Subject(self._drill, opened, self._trials[opened.name.agent])


async def run(
    trials: Sequence[Trial],
    place: lab.LabPlan,
    log: Path,
    *,
    observer: Callable[[Event], None] = lambda _: None,
    origin: Origin | None = None,
) -> list[Finding]:
    """The findings of all trials, in order; raises ``HitlessError`` if the drills cannot be run."""
    families = tuple(str(family) for family in place.families)
    plan = DrillPlan(rounds=1, method=Method.SIGKILL, baseline=1.5, families=families)
    target = _Target(trials, plan, place)
    drill, verdict = await running.run(plan, target, log, judged=trials[-1].name, observer=observer, origin=origin)
    findings: list[Finding] = []
    for trial in trials:
        (record,) = [record for record in drill.records if record.agent == trial.name]
        (judged,) = [agent for agent in verdict.agents if agent.agent == trial.name]
        findings += trial.check(record, judged)
    return findings


def overall(findings: Sequence[Finding]) -> VerdictValue:
    """Pass if all are right, inconclusive if all wrong ones are due to a busy machine, else fail."""
    wrong = [finding for finding in findings if not finding.right]
    if findings and not wrong:
        return "pass"
    return "inconclusive" if wrong and all(finding.busy for finding in wrong) else "fail"
