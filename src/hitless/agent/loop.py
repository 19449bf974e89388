"""The agent's loop: wait until a step is due, compare and repair, heal, evaluate, report.

Problem: rules must be back within milliseconds of damage, and nothing may depend on how this process ends. Promise:
every pass starts with a fresh reading of the kernel. A repair waits for neither evaluation nor healing: the rules of
all programs are read in a thread of their own, one evaluation at a time. Stopping changes nothing.

``schedule`` decides *when*, ``hitless.plan`` *what*, ``worker`` *how*, ``damage`` who caused it; ``reporter`` informs
users. Time, kernel and events are arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from hitless.agent.change_watch import ChangeWatch, Suspect
from hitless.agent.damage import Damage
from hitless.agent.egress import EgressStatus
from hitless.agent.ports import Runtime
from hitless.agent.reporter import AgentReporter
from hitless.agent.schedule import GRACE, AgentSchedule
from hitless.agent.worker import PassResult
from hitless.errors import HitlessError, ours
from hitless.kernel.iptables import LockBusy
from hitless.model.families import Backend, Family
from hitless.sources import SourceSnapshot

__all__ = ["AgentLoop", "JudgePort", "KernelPort"]

_REMEMBERED = 16  # suspects of a pass that failed
_RETRY = 0.5  # seconds after an unexpected error


class KernelPort(Protocol):
    """Passes over the node's rules, and healing. Real: ``hitless.agent.worker.RulesWorker``."""

    @property
    def commands(self) -> int:
        """How many programs were run."""

    def backend(self, *, native: bool, current: Backend | None = None) -> Backend:
        """Where rules are to be written."""

    def run_pass(
        self, snapshot: SourceSnapshot, backend: Backend, *, heal: bool, may_bridge: bool, must_bridge: bool
    ) -> PassResult:
        """One pass."""

    def evaluate_near(self, snapshot: SourceSnapshot) -> Mapping[Family, EgressStatus]:
        """What becomes of the pods' packets, judged by our chains and the chains near them only."""

    def heal(self, snapshot: SourceSnapshot, families: Collection[Family]) -> Mapping[Family, int]:
        """Free the flows of these families that were bound without translation."""

    def close(self) -> None:
        """Close all sockets; the rules stay."""


class JudgePort(Protocol):
    """Evaluates the rules of all programs, in the judging thread. Real: ``hitless.agent.judge.NodeJudge``."""

    def judge(self, snapshot: SourceSnapshot, *, changed: bool) -> Mapping[Family, EgressStatus] | None:
        """What becomes of the pods' packets; ``None``: nothing has changed since the last result."""

    def close(self) -> None:
        """Close all sockets."""


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One that runs. ``full``: regardless of what has changed. ``changes``: the loop's count when it began."""

    result: Future[Mapping[Family, EgressStatus] | None]
    snapshot: SourceSnapshot
    full: bool
    begun: float
    changes: int


class AgentLoop:
    """One node's loop. ``desire`` sets the snapshot, again when it changes; ``run`` works until ``stop``."""

    def __init__(
        self, kernel: KernelPort, judge: JudgePort, watch: ChangeWatch, reporter: AgentReporter, runtime: Runtime, *,
        resync: float, heal: bool,
    ) -> None:  # fmt: skip
        self._kernel, self._judge, self._watch, self._reporter, self._host = kernel, judge, watch, reporter, runtime
        self._health = reporter.health
        self._heals = heal
        self._schedule = AgentSchedule(resync)
        self._damage = Damage()
        self._stopping = False
        self._snapshot: SourceSnapshot | None = None
        self._native = False
        self._backend: Backend | None = None
        self._clean = False  # our rules were as desired after the last pass, and none has failed since
        self._was_clean = False  # our rules were as desired after the last pass that did not fail
        self._suspects: list[Suspect] = []  # of a pass that failed
        self._unhealed: frozenset[Family] = frozenset()  # whose flows are freed once more
        self._changes = 0  # passes that found our rules changed, or possibly changed
        self._evaluation: _Evaluation | None = None  # the one that runs
        self._evaluated: frozenset[Family] = frozenset()  # by the rules of all programs, at least once
        self._repeating = False  # the last result was from before a change, and the evaluation is repeated

    # --- called in the event loop's thread

    def rules_changed(self) -> None:
        """Our rules may have changed."""
        self._schedule.request_pass()
        self._host.wake()

    def foreign_rules_changed(self) -> None:
        """Other programs' rules have changed."""
        if self._schedule.foreign_change(self._host.monotonic()):
            self._host.wake()

    def stop(self) -> None:
        """End after the current step; nothing is undone."""
        self._stopping = True
        self._host.wake()

    def desire(self, snapshot: SourceSnapshot, *, native: bool) -> None:
        """From now on the node should be as this snapshot says."""
        if snapshot != self._snapshot or native != self._native:
            self._snapshot, self._native = snapshot, native
            self._clean = self._was_clean = False
            self._schedule.restart()
            self._host.wake()

    # --- steps

    async def run(self) -> None:
        """Work until stopped."""
        self._watch.start()
        try:
            while not self._stopping:
                try:
                    await self._step()
                except Exception as error:  # noqa: BLE001 - the outermost handler: /readyz and the log report it
                    self._failed(ours(error, "a turn of the agent's loop"))
                    await self._host.wait(_RETRY)
        finally:
            self._watch.close()
            await self._host.end(self._kernel.close, self._judge.close)

    async def _step(self) -> None:
        await self._pause()
        snapshot = self._snapshot
        if self._stopping or snapshot is None:
            return
        now = self._host.monotonic()
        if self._schedule.pass_due(now):
            await self._run_pass(snapshot, now)
        if self._schedule.take_heal(now):
            await self._heal(snapshot)
        self._take_evaluation()
        self._begin_evaluation(snapshot)

    async def _pause(self) -> None:
        now, passes = self._host.monotonic(), self._snapshot is not None
        due = self._schedule.pause(now, passes=passes, evaluates=self._may_evaluate)
        watchdog = self._reporter.watchdog_interval
        await self._host.wait(due if watchdog is None else min(due, watchdog))
        self._reporter.alive()

    @property
    def _may_evaluate(self) -> bool:
        """Not before the first pass, nor while a bridge carries the pods, nor while an evaluation runs."""
        started = self._snapshot is not None and self._health.last_pass is not None
        return self._evaluation is None and started and self._schedule.reload.begun is None

    # --- passes over our own rules

    async def _run_pass(self, snapshot: SourceSnapshot, now: float) -> None:
        suspects = self._suspects + self._watch.take()
        self._suspects = []
        first = self._health.last_pass is None
        self._schedule.pass_begun(now)
        try:
            if self._backend is None or self._schedule.backend_due(now):
                self._backend = await self._choose_backend(now)
            evaluate = bool(suspects) or not self._clean or self._schedule.full_evaluation_due(now)
            done = await self._reconcile(snapshot, self._backend, suspects, now)
            self._account(done, suspects)
            self._reporter.random_fully_missing(done, snapshot)
            if not done.bridged:
                if first or not done.result.applied:  # the next damage must not wait for this behind a repair
                    await self._evaluate_near(snapshot)
                if evaluate or done.result.applied:
                    self._schedule.request_evaluation()
        except HitlessError as error:
            self._suspects = suspects[-_REMEMBERED:]
            self._failed(error)
            return
        cost = done.ended - done.begun
        self._watch.pass_ended(cost)
        ended = self._host.monotonic()
        bridged = done.bridged and done.result.settled
        period = self._schedule.pass_ended(ended, cost, clean=self._clean, bridged=bridged)
        self._health.stale_after = 3 * period + GRACE
        self._reporter.announce(done.backend, ended)

    async def _choose_backend(self, now: float) -> Backend:
        native, current = self._native, self._backend
        backend = await self._host.run(lambda: self._kernel.backend(native=native, current=current))
        if backend is not current:
            self._reporter.backend(backend, native=native)
        self._schedule.backend_chosen(now)
        return backend

    async def _reconcile(
        self, snapshot: SourceSnapshot, backend: Backend, suspects: list[Suspect], now: float
    ) -> PassResult:
        """One pass that does not disturb a reload by another program; adds the writers of what it has seen to the
        suspects."""
        reload = self._schedule.reload
        if suspects:
            reload.touched(now)
        goes_on, harmed = reload.goes_on(now), self._was_clean or self._damage.lasts
        may = reload.begun is None and harmed and self._health.last_pass is not None
        done = await self._host.run(
            lambda: self._kernel.run_pass(snapshot, backend, heal=self._heals, may_bridge=may, must_bridge=goes_on)
        )
        suspects += self._watch.covered(done.first_generation, done.generation)
        if done.bridged and not goes_on:
            reload.begin(done.ended)
        elif not done.bridged and done.result.settled:
            reload.end()
        return done

    def _account(self, done: PassResult, suspects: list[Suspect]) -> None:
        """Draw the conclusions of a pass: damage, fights, health, the next steps."""
        result, reporter, schedule = done.result, self._reporter, self._schedule
        first = self._health.last_pass is None
        lag = done.begun - suspects[0].time if suspects else None
        reporter.pass_ended(done, lag=lag, lost=self._watch.lost, commands=self._kernel.commands)
        self._changes += bool(suspects or result.applied or not result.settled)
        was_clean, self._was_clean = self._was_clean, result.settled and not done.bridged
        self._clean = self._was_clean
        if not result.applied and result.settled:
            self._damage.over()
            reporter.as_desired(done)
        elif (was_clean or self._damage.lasts) and not first:
            blame = self._damage.seen(done.begun, done.ended, suspects, settled=result.settled)
            schedule.slow_down(done.ended, blame.verdict.delay)
            reporter.damaged(done, blame, self._host.wall())
        else:
            reporter.applied(done)
        reporter.fighting(self._damage.fighting(done.ended))
        if result.settled:
            schedule.succeeded()
            reporter.settled(done, self._host.wall())
        else:
            if not isinstance(result.error, LockBusy):  # the program has waited for the lock already
                schedule.failed(done.ended)
            reporter.unsettled(done)
        if done.legacy:
            self._watch.follow_legacy()
        if done.heal_error:
            reporter.not_healed(done.heal_error)
        reporter.healed(done.healed or {})
        if self._heals and result.settled and (first or done.opened or not (was_clean or done.bridged)):
            self._unhealed |= result.written if result.written and not first else frozenset(Family)
            schedule.repaired(done.ended, healed=done.healed is not None)

    def _failed(self, error: HitlessError) -> None:
        self._clean = False
        self._schedule.failed(self._host.monotonic())
        self._reporter.failed(error)

    # --- what becomes of the pods' packets

    async def _evaluate_near(self, snapshot: SourceSnapshot) -> None:
        """Until the rules of all programs are read for the first time: what the chains near ours do is known at
        once."""
        unread = set(snapshot.networks) - self._evaluated
        if not unread:
            return
        try:
            near = await self._host.run(lambda: self._kernel.evaluate_near(snapshot))
        except HitlessError as error:  # our rules are in place all the same
            self._reporter.not_evaluated(error, unread)
        else:
            self._reporter.partly_read({family: status for family, status in near.items() if family in unread})

    def _begin_evaluation(self, snapshot: SourceSnapshot) -> None:
        """Begin an evaluation, or a check whether one is needed, where it is due. Other programs write rules too, and
        sets, interfaces and pods change without an event."""
        now = self._host.monotonic()
        full = self._schedule.evaluation_due(now)
        if not self._may_evaluate or not (full or self._schedule.check_due(now)):
            return
        self._schedule.evaluation_begun(full=full)
        self._health.asked_since = now
        result = self._host.begin(lambda: self._judge.judge(snapshot, changed=full))
        self._evaluation = _Evaluation(result, snapshot, full, now, self._changes)

    def _take_evaluation(self) -> None:
        """Take the result when it is there.

        Where other families are cut off than before, a pass and another evaluation follow: missing rules of ours are
        repaired, and only what is still cut off then is logged. A result from before a change of our rules does not
        report pods as cut off, unless the repeated one does too."""
        evaluation = self._evaluation
        if evaluation is None or not evaluation.result.done():
            return
        self._evaluation, self._health.asked_since = None, None
        now, schedule = self._host.monotonic(), self._schedule
        cost = now - evaluation.begun
        error = evaluation.result.exception()
        if error is not None:
            schedule.evaluation_failed(now, cost)
            self._reporter.not_evaluated(ours(error, "judging the node's rules"), evaluation.snapshot.networks)
            return
        found = evaluation.result.result()
        schedule.evaluation_ended(now, cost, full=evaluation.full, evaluated=found is not None)
        if found is None:
            return
        if evaluation.snapshot is not self._snapshot:
            schedule.request_evaluation()
            return
        stale = evaluation.changes != self._changes
        if stale and not self._repeating and any(status.state == "not_carried" for status in found.values()):
            self._repeating = True
            schedule.request_evaluation()
            return
        self._repeating, self._evaluated = False, frozenset(found)
        before = self._health.not_carried.keys()
        same = before == {family.value for family, status in found.items() if status.state == "not_carried"}
        self._reporter.evaluated(found, log=same and evaluation.full and self._clean and not stale)
        if not same:
            schedule.confirm()
        if self._backend is not None:
            self._reporter.announce(self._backend, now)

    async def _heal(self, snapshot: SourceSnapshot) -> None:
        """Free what was bound without translation."""
        try:
            self._reporter.healed(await self._host.run(lambda: self._kernel.heal(snapshot, self._unhealed)))
        except HitlessError as error:
            self._reporter.not_healed(str(error))
        if not self._schedule.heals:
            self._unhealed = frozenset()
