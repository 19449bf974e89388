"""The loop: wait until something is due, look, repair, heal, judge, say so.

Problem: rules must be back within milliseconds of damage, and nothing may depend on how this process ends. Promise:
every look starts from the kernel; repair waits for neither judging nor healing: everybody's rules are read in a thread
of their own, one question at a time, and the loop goes on meanwhile; stopping changes nothing. *When* is
``schedule``'s, *what* ``hitless.plan``'s, *how* the worker's, whose fault it was ``damage``'s, and what is said of it
``reporting``'s. Time, the kernel and the events are handed in.
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

_REMEMBERED = 16  # suspects of a look that failed
_RETRY = 0.5  # after an error that nobody foresaw


class KernelPort(Protocol):
    """What is done to the node. Real: ``hitless.agent.worker.RulesWorker``."""

    @property
    def commands(self) -> int:
        """How many programs were run."""

    def backend(self, *, native: bool, current: Backend | None = None) -> Backend:
        """Where rules are to be written."""

    def look(
        self, snapshot: SourceSnapshot, backend: Backend, *, heal: bool, may_bridge: bool, must_bridge: bool
    ) -> PassResult:
        """One pass."""

    def judge_own(self, snapshot: SourceSnapshot) -> Mapping[Family, EgressStatus]:
        """What becomes of the pods' packets, as far as the chains beside ours say."""

    def heal(self, snapshot: SourceSnapshot, families: Collection[Family]) -> Mapping[Family, int]:
        """Free the flows of these families that were bound without translation."""

    def close(self) -> None:
        """The end; the rules stay."""


class JudgePort(Protocol):
    """Who is asked about everybody's rules, in the judging thread. Real: ``hitless.agent.judge.NodeJudge``."""

    def judge(self, snapshot: SourceSnapshot, *, changed: bool) -> Mapping[Family, EgressStatus] | None:
        """What becomes of the pods' packets; ``None``: as before."""

    def close(self) -> None:
        """The end."""


@dataclass(frozen=True, slots=True)
class _Question:
    """Asked, and not answered yet. ``whole``: whatever has changed. ``changes``: the loop's when it was asked."""

    answer: Future[Mapping[Family, EgressStatus] | None]
    snapshot: SourceSnapshot
    whole: bool
    begun: float
    changes: int


class AgentLoop:
    """One node's loop. ``desire`` gives it a snapshot (again: when the facts change); ``run`` turns until ``stop``."""

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
        self._clean = False  # the last look found, or left, everything right, and none has failed since
        self._stood = False  # the last look that did not fail found, or left, everything right
        self._suspects: list[Suspect] = []  # of a look that failed
        self._unhealed: frozenset[Family] = frozenset()  # whose flows are freed once more
        self._changes = 0  # looks that found our rules changed, or that they may have been
        self._question: _Question | None = None  # about everybody's rules; one at a time
        self._told: frozenset[Family] = frozenset()  # of whom everybody's rules have told once
        self._put_off = False  # the last answer was from before a change, and is asked for again

    # --- from outside, in the event loop's thread

    def wake(self) -> None:
        """Our rules may have changed."""
        self._schedule.call()
        self._host.wake()

    def stirred(self) -> None:
        """Somebody else's rules have changed."""
        if self._schedule.stir(self._host.monotonic()):
            self._host.wake()

    def stop(self) -> None:
        """End after the current step; nothing is undone."""
        self._stopping = True
        self._host.wake()

    def desire(self, snapshot: SourceSnapshot, *, native: bool) -> None:
        """From now on the node should look like this."""
        if snapshot != self._snapshot or native != self._native:
            self._snapshot, self._native = snapshot, native
            self._clean = self._stood = False
            self._schedule.anew()
            self._host.wake()

    # --- turning

    async def run(self) -> None:
        """Turn until stopped."""
        self._watch.start()
        try:
            while not self._stopping:
                try:
                    await self._turn()
                except Exception as error:  # noqa: BLE001 - the loop's border: /readyz and the log tell of it
                    self._failed(ours(error, "a turn of the agent's loop"))
                    await self._host.wait(_RETRY)
        finally:
            self._watch.close()
            await self._host.end(self._kernel.close, self._judge.close)

    async def _turn(self) -> None:
        await self._pause()
        snapshot = self._snapshot
        if self._stopping or snapshot is None:
            return
        now = self._host.monotonic()
        if self._schedule.look_due(now):
            await self._look(snapshot, now)
        if self._schedule.take_heal(now):
            await self._heal(snapshot)
        self._hear()
        self._ask(snapshot)

    async def _pause(self) -> None:
        due = self._schedule.pause(self._host.monotonic(), looks=self._snapshot is not None, judges=self._judges)
        patience = self._reporter.patience
        await self._host.wait(due if patience is None else min(due, patience))
        self._reporter.alive()

    @property
    def _judges(self) -> bool:
        """Whether to ask about the pods' packets: not before the first look, nor while pods are carried by a bridge,
        nor while it is being asked."""
        started = self._snapshot is not None and self._health.last_pass is not None
        return self._question is None and started and self._schedule.reload.begun is None

    # --- looking at our own rules

    async def _look(self, snapshot: SourceSnapshot, now: float) -> None:
        suspects = self._suspects + self._watch.take()
        self._suspects = []
        first = self._health.last_pass is None
        self._schedule.looking(now)
        try:
            if self._backend is None or self._schedule.backend_due(now):
                self._backend = await self._chosen(now)
            called = bool(suspects) or not self._clean or self._schedule.judge_due(now)
            look = await self._pass(snapshot, self._backend, suspects, now)
            self._account(look, suspects)
            self._reporter.plain(look, snapshot)
            if not look.bridged:
                if first or not look.result.applied:  # behind a repair the next damage must not wait for this
                    await self._judge_own(snapshot)
                if called or look.result.applied:
                    self._schedule.ask()
        except HitlessError as error:
            self._suspects = suspects[-_REMEMBERED:]
            self._failed(error)
            return
        cost = look.ended - look.begun
        self._watch.looked(cost)
        ended = self._host.monotonic()
        bridged = look.bridged and look.result.settled
        period = self._schedule.looked(ended, cost, clean=self._clean, bridged=bridged)
        self._health.stale_after = 3 * period + GRACE
        self._reporter.announce(look.backend, ended)

    async def _chosen(self, now: float) -> Backend:
        native, current = self._native, self._backend
        backend = await self._host.run(lambda: self._kernel.backend(native=native, current=current))
        if backend is not current:
            self._reporter.backend(backend, native=native)
        self._schedule.chosen(now)
        return backend

    async def _pass(
        self, snapshot: SourceSnapshot, backend: Backend, suspects: list[Suspect], now: float
    ) -> PassResult:
        """One pass, out of the way of a reload; adds to the suspects what was committed before it."""
        reload = self._schedule.reload
        if suspects:
            reload.touched(now)
        goes_on, harmed = reload.goes_on(now), self._stood or self._damage.stands
        may = reload.begun is None and harmed and self._health.last_pass is not None
        look = await self._host.run(
            lambda: self._kernel.look(snapshot, backend, heal=self._heals, may_bridge=may, must_bridge=goes_on)
        )
        suspects += self._watch.covered(look.first_generation, look.generation)
        if look.bridged and not goes_on:
            reload.begin(look.ended)
        elif not look.bridged and look.result.settled:
            reload.end()
        return look

    def _account(self, look: PassResult, suspects: list[Suspect]) -> None:
        """What a look means."""
        result, reporter, schedule = look.result, self._reporter, self._schedule
        first = self._health.last_pass is None
        lag = look.begun - suspects[0].time if suspects else None
        reporter.looked(look, lag=lag, lost=self._watch.lost, commands=self._kernel.commands)
        self._changes += bool(suspects or result.applied or not result.settled)
        stood, self._stood = self._stood, result.settled and not look.bridged
        self._clean = self._stood
        if not result.applied and result.settled:
            self._damage.over()
            reporter.as_desired(look)
        elif (stood or self._damage.stands) and not first:
            blame = self._damage.seen(look.begun, look.ended, suspects, settled=result.settled)
            schedule.slow_down(look.ended, blame.verdict.delay)
            reporter.damaged(look, blame, self._host.wall())
        else:
            reporter.applied(look)
        reporter.fighting(self._damage.fighting(look.ended))
        if result.settled:
            schedule.worked()
            reporter.settled(look, self._host.wall())
        else:
            if not isinstance(result.error, LockBusy):  # it was waited for already
                schedule.failed(look.ended)
            reporter.unsettled(look)
        if look.legacy:
            self._watch.follow_legacy()
        if look.ill:
            reporter.not_healed(look.ill)
        reporter.healed(look.healed or {})
        if self._heals and result.settled and (first or look.opened or not (stood or look.bridged)):
            self._unhealed |= result.written if result.written and not first else frozenset(Family)
            schedule.repaired(look.ended, healed=look.healed is not None)

    def _failed(self, error: HitlessError) -> None:
        self._clean = False
        self._schedule.failed(self._host.monotonic())
        self._reporter.failed(error)

    # --- the node

    async def _judge_own(self, snapshot: SourceSnapshot) -> None:
        """While everybody's rules are being read for the first time: what our own part does is known at once."""
        unread = set(snapshot.networks) - self._told
        if not unread:
            return
        try:
            own = await self._host.run(lambda: self._kernel.judge_own(snapshot))
        except HitlessError as error:  # our rules stand all the same
            self._reporter.not_judged(error, unread)
        else:
            self._reporter.unread({family: answer for family, answer in own.items() if family in unread})

    def _ask(self, snapshot: SourceSnapshot) -> None:
        """Begin to ask what becomes of the pods' packets, where that is due: whatever has changed, or only if something
        has. Others write rules too, and sets, interfaces and pods change without an event."""
        now = self._host.monotonic()
        whole = self._schedule.asks(now)
        if not self._judges or not (whole or self._schedule.pulse_due(now)):
            return
        self._schedule.judging(whole=whole)
        self._health.asked_since = now
        answer = self._host.begin(lambda: self._judge.judge(snapshot, changed=whole))
        self._question = _Question(answer, snapshot, whole, now, self._changes)

    def _hear(self) -> None:
        """Take the answer, when it is there. Where other families are cut off than before a look follows, and the
        question is asked again behind that: what is missing of our own is repaired, and only what stands then is
        logged. An answer from before a change of our rules does not say that pods are cut off, unless the next one
        does too."""
        asked = self._question
        if asked is None or not asked.answer.done():
            return
        self._question, self._health.asked_since = None, None
        now, schedule = self._host.monotonic(), self._schedule
        error = asked.answer.exception()
        if error is not None:
            schedule.not_judged(now, now - asked.begun)
            self._reporter.not_judged(ours(error, "judging the node's rules"), asked.snapshot.networks)
            return
        found = asked.answer.result()
        schedule.judged(now, now - asked.begun, asked=asked.whole, answered=found is not None)
        if found is None:
            return
        if asked.snapshot is not self._snapshot:
            schedule.ask()
            return
        stale = asked.changes != self._changes
        if stale and not self._put_off and any(answer.state == "not_carried" for answer in found.values()):
            self._put_off = True
            schedule.ask()
            return
        self._put_off, self._told = False, frozenset(found)
        before = self._health.not_carried.keys()
        same = before == {family.value for family, answer in found.items() if answer.state == "not_carried"}
        self._reporter.judged(found, log=same and asked.whole and self._clean and not stale)
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
