"""Evaluations of what becomes of the pods' packets: one at a time, in the judging thread.

Problem: reading the rules of all programs can take seconds, and our rules may change meanwhile. Promise: a repair does
not wait for a result; a result that our own changes may have made out of date is repeated once before it reports pods
as cut off. ``schedule`` decides when an evaluation is due. Next stage: ``loop``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from hitless.agent.egress import EgressStatus
from hitless.agent.ports import Runtime
from hitless.agent.reporter import AgentReporter
from hitless.agent.schedule import AgentSchedule
from hitless.errors import HitlessError, ours
from hitless.model.families import Family
from hitless.sources import SourceSnapshot

__all__ = ["Evaluations", "JudgePort"]


class JudgePort(Protocol):
    """Evaluates the rules of all programs, in the judging thread. Real: ``hitless.agent.judge.NodeJudge``."""

    def judge(self, snapshot: SourceSnapshot, *, changed: bool) -> Mapping[Family, EgressStatus] | None:
        """What becomes of the pods' packets; ``None``: nothing has changed since the last result."""

    def close(self) -> None:
        """Close all sockets."""


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One that runs. ``full``: regardless of what has changed. ``ended``: when, once it has; its result may be taken
    later, as a pass may wait for a lock. ``changes``: the count of changes when it began."""

    result: Future[Mapping[Family, EgressStatus] | None]
    snapshot: SourceSnapshot
    full: bool
    begun: float
    ended: list[float]
    changes: int


class Evaluations:
    """Begins them where they are due, and reports their results."""

    def __init__(self, judge: JudgePort, host: Runtime, schedule: AgentSchedule, reporter: AgentReporter) -> None:
        self._judge, self._host, self._schedule, self._reporter = judge, host, schedule, reporter
        self._health = reporter.health
        self._running: _Evaluation | None = None
        self._changes = 0  # passes that found our rules changed, or possibly changed
        self._evaluated: frozenset[Family] = frozenset()  # by the rules of all programs, at least once
        self._repeating = False  # the last result was from before a change, and the evaluation is repeated

    @property
    def running(self) -> bool:
        """Whether one runs, or its result was not taken yet."""
        return self._running is not None

    def close(self) -> None:
        """Close the judge's sockets."""
        self._judge.close()

    def rules_changed(self) -> None:
        """A pass found our rules changed, or possibly changed: the result of an evaluation that runs may be out of
        date."""
        self._changes += 1

    async def evaluate_near(
        self, snapshot: SourceSnapshot, near_ours: Callable[[SourceSnapshot], Mapping[Family, EgressStatus]]
    ) -> None:
        """Until the rules of all programs are read for the first time: what the chains near ours do is known at
        once."""
        unread = set(snapshot.networks) - self._evaluated
        if not unread:
            return
        try:
            near = await self._host.run(lambda: near_ours(snapshot))
        except HitlessError as error:  # our rules are in place all the same
            self._reporter.not_evaluated(error, unread)
        else:
            self._reporter.partly_read({family: status for family, status in near.items() if family in unread})

    def begin(self, snapshot: SourceSnapshot) -> None:
        """Begin an evaluation, or a check whether one is needed, where it is due. Other programs write rules too, and
        sets, interfaces and pods change without an event."""
        now = self._host.monotonic()
        full = self._schedule.evaluation_due(now)
        if not (full or self._schedule.check_due(now)):
            return
        self._schedule.evaluation_begun(full=full)
        self._health.asked_since = now
        result = self._host.begin(lambda: self._judge.judge(snapshot, changed=full))
        ended: list[float] = []
        result.add_done_callback(lambda _: ended.append(self._host.monotonic()))
        self._running = _Evaluation(result, snapshot, full, now, ended, self._changes)

    def take(self, current: SourceSnapshot | None, *, clean: bool) -> bool:
        """Take the result when it is there; whether one was reported. ``current`` is the snapshot now, ``clean``
        whether our rules were as desired after the last pass.

        Where other families are cut off than before, a pass and another evaluation follow: missing rules of ours are
        repaired, and only what is still cut off then is logged. A result from before a change of our rules does not
        report pods as cut off, unless the repeated one does too."""
        evaluation = self._running
        if evaluation is None or not evaluation.result.done():
            return False
        self._running, self._health.asked_since = None, None
        now, schedule = self._host.monotonic(), self._schedule
        cost = (evaluation.ended[0] if evaluation.ended else now) - evaluation.begun
        error = evaluation.result.exception()
        if error is not None:
            schedule.evaluation_failed(now, cost)
            self._reporter.not_evaluated(ours(error, "judging the node's rules"), evaluation.snapshot.networks)
            return False
        found = evaluation.result.result()
        schedule.evaluation_ended(now, cost, full=evaluation.full, evaluated=found is not None)
        if found is None:
            return False
        if evaluation.snapshot is not current:
            schedule.request_evaluation()
            return False
        stale = evaluation.changes != self._changes
        if stale and not self._repeating and any(status.state == "not_carried" for status in found.values()):
            self._repeating = True
            schedule.request_evaluation()
            return False
        self._repeating, self._evaluated = False, frozenset(found)
        before = self._health.not_carried.keys()
        same = before == {family.value for family, status in found.items() if status.state == "not_carried"}
        self._reporter.evaluated(found, log=same and evaluation.full and clean and not stale)
        if not same:
            schedule.confirm()
        return True
