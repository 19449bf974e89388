"""The loop: wait until something is due, look, repair, heal, judge, say so.

Problem: rules must be back within milliseconds of damage, and nothing may depend on how this process ends. Promise:
every look starts from the kernel; repair waits for neither judging nor healing; stopping changes nothing. *When* is
``schedule``'s, *what* ``hitless.plan``'s, *how* the worker's, whose fault it was ``damage``'s, and what is said of it
``reporting``'s. Time, the kernel and the events are handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hitless.agent.damage import Damage
from hitless.agent.egress import Answer
from hitless.agent.ports import Runtime
from hitless.agent.reporting import Reporter
from hitless.agent.schedule import GRACE, Schedule
from hitless.agent.watching import Suspect, Watch
from hitless.agent.working import Look
from hitless.errors import HitlessError, ours
from hitless.kernel.iptables import LockBusy
from hitless.model.families import Backend, Family
from hitless.sources import Snapshot

__all__ = ["Kernel", "Loop"]

_REMEMBERED = 16  # suspects of a look that failed
_RETRY = 0.5  # after an error that nobody foresaw


class Kernel(Protocol):
    """What is done to the node. Real: ``hitless.agent.working.Worker``."""

    @property
    def commands(self) -> int:
        """How many programs were run."""

    def backend(self, *, native: bool, current: Backend | None = None) -> Backend:
        """Where rules are to be written."""

    def look(self, snapshot: Snapshot, backend: Backend, *, heal: bool, may_bridge: bool, must_bridge: bool) -> Look:
        """One pass."""

    def judge(self, snapshot: Snapshot, *, changed: bool) -> Mapping[Family, Answer] | None:
        """What becomes of the pods' packets; ``None``: as before."""

    def heal(self, snapshot: Snapshot) -> Mapping[Family, int]:
        """Free the flows that were bound without translation."""

    def close(self) -> None:
        """The end; the rules stay."""


class Loop:
    """One node's loop. ``desire`` gives it a snapshot (again: when the facts change); ``run`` turns until ``stop``."""

    def __init__(
        self, kernel: Kernel, watch: Watch, reporter: Reporter, runtime: Runtime, *, resync: float, heal: bool
    ) -> None:
        self._kernel, self._watch, self._reporter, self._host = kernel, watch, reporter, runtime
        self._health = reporter.health
        self._heals = heal
        self._schedule = Schedule(resync)
        self._damage = Damage()
        self._stopping = False
        self._snapshot: Snapshot | None = None
        self._native = False
        self._backend: Backend | None = None
        self._clean = False  # the last look found, or left, everything right, and none has failed since
        self._stood = False  # the last look that did not fail found, or left, everything right
        self._suspects: list[Suspect] = []  # of a look that failed

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

    def desire(self, snapshot: Snapshot, *, native: bool) -> None:
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
            await self._host.end(self._kernel.close)

    async def _turn(self) -> None:
        await self._pause()
        snapshot = self._snapshot
        if self._stopping or snapshot is None:
            return
        now = self._host.monotonic()
        if self._schedule.take_heal(now):
            await self._heal(snapshot)
        if self._schedule.look_due(now):
            await self._look(snapshot, now)
        elif self._judges and self._schedule.pulse_due(now):
            await self._pulse(snapshot)

    async def _pause(self) -> None:
        due = self._schedule.pause(self._host.monotonic(), looks=self._snapshot is not None, judges=self._judges)
        patience = self._reporter.patience
        await self._host.wait(due if patience is None else min(due, patience))
        self._reporter.alive()

    @property
    def _judges(self) -> bool:
        """Whether there is something to judge: not before the first look, nor while pods are carried by a bridge."""
        started = self._snapshot is not None and self._health.last_pass is not None
        return started and self._schedule.reload.begun is None

    # --- looking at our own rules

    async def _look(self, snapshot: Snapshot, now: float) -> None:
        suspects = self._suspects + self._watch.take()
        self._suspects = []
        self._schedule.looking(now)
        try:
            if self._backend is None or self._schedule.backend_due(now):
                self._backend = await self._chosen(now)
            called = bool(suspects) or not self._clean or self._schedule.judge_due(now)
            look = await self._pass(snapshot, self._backend, suspects, now)
            self._account(look, suspects)
            self._reporter.plain(look, snapshot)
            if (called or look.result.applied) and not look.bridged:
                await self._judge(snapshot, changed=True)
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

    async def _pass(self, snapshot: Snapshot, backend: Backend, suspects: list[Suspect], now: float) -> Look:
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

    def _account(self, look: Look, suspects: list[Suspect]) -> None:
        """What a look means."""
        result, reporter, schedule = look.result, self._reporter, self._schedule
        first = self._health.last_pass is None
        lag = look.begun - suspects[0].time if suspects else None
        reporter.looked(look, lag=lag, lost=self._watch.lost, commands=self._kernel.commands)
        stood, self._stood = self._stood, result.settled and not look.bridged
        self._clean = self._stood
        if not result.applied and result.settled:
            self._damage.over()
            reporter.as_desired(look)
        elif (stood or self._damage.stands) and not first:
            blame = self._damage.seen(look.begun, look.ended, suspects, settled=result.settled)
            schedule.slow_down(look.ended, blame.verdict.delay)
            reporter.damaged(look, blame)
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
            schedule.repaired(look.ended, healed=look.healed is not None)

    def _failed(self, error: HitlessError) -> None:
        self._clean = False
        self._schedule.failed(self._host.monotonic())
        self._reporter.failed(error)

    # --- the node

    async def _judge(self, snapshot: Snapshot, *, changed: bool) -> bool:
        """Ask what becomes of the pods' packets, everybody's rules included. Not ``changed``: unless nothing that the
        last answer came from has. Whether there is another answer."""
        begun = self._host.monotonic()
        self._schedule.judging()
        found = await self._host.run(lambda: self._kernel.judge(snapshot, changed=changed))
        ended = self._host.monotonic()
        self._schedule.judged(ended, ended - begun, asked=changed)
        if found is None:
            return False
        before = self._health.not_carried
        self._reporter.judged(found, log=changed and self._clean)
        return self._health.not_carried != before

    async def _pulse(self, snapshot: Snapshot) -> None:
        """Others write rules too, and sets, interfaces and pods change without an event. Where the answer is another
        one, or there is none, a look follows: what is missing of our own is repaired, and only what stands then is
        logged."""
        try:
            again = await self._judge(snapshot, changed=False)
        except HitlessError:  # the look meets it too, and reports it
            now, again = self._host.monotonic(), True
            self._schedule.judged(now, 0.0, asked=False)
        if again:
            self._schedule.confirm()

    async def _heal(self, snapshot: Snapshot) -> None:
        """Free what was bound without translation."""
        try:
            self._reporter.healed(await self._host.run(lambda: self._kernel.heal(snapshot)))
        except HitlessError as error:
            self._reporter.not_healed(str(error))
