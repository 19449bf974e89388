"""The agent's loop: wait until a step is due, compare and repair, heal, evaluate, report.

Problem: rules must be back within milliseconds of damage, and nothing may depend on how this process ends. Promise:
every pass starts with a fresh reading of the kernel. A repair waits for neither evaluation nor healing: the rules of
all programs are read in a thread of their own, one evaluation at a time. Stopping changes nothing.

``schedule`` decides *when*, ``hitless.plan`` *what*, ``worker`` *how*, ``damage`` who caused it; ``evaluations`` finds
what becomes of the pods' packets, and ``reporter`` informs users. Time, kernel and events are arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from hitless.agent.change_watch import ChangeWatch, Suspect
from hitless.agent.damage import Damage
from hitless.agent.egress import EgressStatus
from hitless.agent.evaluations import Evaluations, JudgePort
from hitless.agent.ports import Runtime
from hitless.agent.reporter import AgentReporter
from hitless.agent.schedule import GRACE, AgentSchedule
from hitless.agent.worker import PassResult
from hitless.errors import HitlessError, ours
from hitless.kernel.iptables import LockBusy
from hitless.model.families import Backend, Family
from hitless.sources import SourceSnapshot

__all__ = ["AgentLoop", "KernelPort"]

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


class AgentLoop:
    """One node's loop. ``desire`` sets the snapshot, again when it changes; ``run`` works until ``stop``."""

    def __init__(
        self, kernel: KernelPort, judge: JudgePort, watch: ChangeWatch, reporter: AgentReporter, runtime: Runtime, *,
        resync: float, heal: bool,
    ) -> None:  # fmt: skip
        self._kernel, self._watch, self._reporter, self._host = kernel, watch, reporter, runtime
        self._health = reporter.health
        self._heals = heal
        self._schedule = AgentSchedule(resync)
        self._evaluations = Evaluations(judge, runtime, self._schedule, reporter)
        self._damage = Damage()
        self._stopping = False
        self._snapshot: SourceSnapshot | None = None
        self._native = False
        self._backend: Backend | None = None
        self._clean = False  # our rules were as desired after the last pass, and none has failed since
        self._was_clean = False  # our rules were as desired after the last pass that did not fail
        self._suspects: list[Suspect] = []  # of a pass that failed
        self._repaired: frozenset[Family] = frozenset()  # whose rules were written since they were last as desired
        self._unhealed: frozenset[Family] = frozenset()  # whose flows are freed once more

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
            await self._host.end(self._kernel.close, self._evaluations.close)

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
        if self._evaluations.take(self._snapshot, clean=self._clean) and self._backend is not None:
            self._reporter.announce(self._backend, self._host.monotonic())
        if self._may_evaluate:
            self._evaluations.begin(snapshot)

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
        return not self._evaluations.running and started and self._schedule.reload.begun is None

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
                    await self._evaluations.evaluate_near(snapshot, self._kernel.evaluate_near)
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
        if suspects or result.applied or not result.settled:
            self._evaluations.rules_changed()
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
        if done.legacy and self._watch.follow_legacy():
            schedule.request_evaluation()
        if done.heal_error:
            reporter.not_healed(done.heal_error)
        reporter.healed(done.healed or {})
        self._repaired |= frozenset(Family) if first else result.written | done.opened.keys()
        if not result.settled:
            return
        repaired, self._repaired = self._repaired, frozenset()
        if self._heals and (first or done.opened or not (was_clean or done.bridged)):
            self._unhealed |= repaired or frozenset(Family)
            schedule.repaired(done.ended, healed=done.healed is not None)

    def _failed(self, error: HitlessError) -> None:
        self._clean = False
        self._schedule.failed(self._host.monotonic())
        self._reporter.failed(error)

    async def _heal(self, snapshot: SourceSnapshot) -> None:
        """Free what was bound without translation."""
        try:
            self._reporter.healed(await self._host.run(lambda: self._kernel.heal(snapshot, self._unhealed)))
        except HitlessError as error:
            self._reporter.not_healed(str(error))
        if not self._schedule.heals:
            self._unhealed = frozenset()
