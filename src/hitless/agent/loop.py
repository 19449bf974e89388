"""The loop: wait until something may have changed, look, repair, heal, say so.

Problem: rules must be back within milliseconds of damage, a fight must not become a loop at full speed, and nothing
may depend on how this process ends. Promise: four numbers rule the waiting (``resync``: at the latest; a retry's gap,
which grows (``retries``); a fight's delay; a reload's quiet second); every look starts from the kernel; stopping
changes nothing. Time to repair does not wait for judging or healing. The only place that decides *when*; *what* is
``hitless.plan``'s, *how* the worker's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hitless.agent.fights import Fights
from hitless.agent.health import Health
from hitless.agent.reloads import Reload
from hitless.agent.retries import Retries
from hitless.agent.watching import Suspect, Watch
from hitless.agent.working import Look, Worker
from hitless.daemon.logs import Log
from hitless.daemon.metrics import Metrics
from hitless.daemon.notify import Notifier
from hitless.errors import HitlessError, ours
from hitless.kernel.iptables import LockBusy
from hitless.model.families import Backend, Family
from hitless.sources import Snapshot

__all__ = ["Loop"]

_T = TypeVar("_T")

_BACKEND_EVERY = 60.0  # seconds between looks at which backend the kubelet uses
_HEAL = (0.0, 0.05, 0.12)  # at once, and again: packets under way at the commit may still bind to the old rules
_GRACE = 10.0  # seconds over three missed comparisons before the last one is called stale
_REMEMBERED = 16  # suspects of a look that failed
_RETRY = 0.5  # after a failure, unless an event comes first
_BRIDGED = "whole tables were flushed: pods are masqueraded beside them until nobody has touched them for a second"
_SHARE = 400  # full comparisons, and evaluations, may take a 400th of the time: in legacy they cost up to 0.1 s


class Loop:
    """One node's loop. ``desire`` gives it a snapshot (again: when the facts change); ``run`` turns until ``stop``."""

    def __init__(
        self, worker: Worker, watch: Watch, log: Log, metrics: Metrics, health: Health, notifier: Notifier, *,
        resync: float, heal: bool, started: float,
    ) -> None:  # fmt: skip
        self._worker, self._watch, self._log = worker, watch, log
        self._metrics, self._health, self._notifier = metrics, health, notifier
        self._resync, self._heals, self._started = resync, heal, started
        self._thread = ThreadPoolExecutor(1, "kernel")
        self._news = asyncio.Event()
        self._stopping = False
        self._snapshot: Snapshot | None = None
        self._backend: Backend | None = None
        self._backend_due = 0.0
        self._native = False
        self._fights = Fights()
        self._reload = Reload()
        self._not_before = 0.0
        self._retries = Retries()
        self._judge_due = 0.0
        self._clean = False  # the last look found, or left, everything right
        self._announced = False
        self._damaged_since: float | None = None  # somebody's damage that is not repaired yet
        self._damaged_by: Suspect | None = None
        self._suspects: list[Suspect] = []  # of a look that failed
        self._look_due = 0.0
        self._heal_due: list[float] = []
        self._notes: frozenset[str] = frozenset()
        self._cut_off: Mapping[str, str] = {}  # what the log says about it
        self._told_plain = False  # that MASQUERADE is written without --random-fully

    def wake(self) -> None:
        """Something may have changed."""
        self._news.set()

    def stop(self) -> None:
        """End after the current step; nothing is undone."""
        self._stopping = True
        self._news.set()

    def desire(self, snapshot: Snapshot, *, native: bool) -> None:
        """From now on the node should look like this."""
        if snapshot != self._snapshot or native != self._native:
            self._snapshot, self._native, self._clean, self._backend_due = snapshot, native, False, 0.0
            self._retries.anew()
            self._news.set()

    async def run(self) -> None:
        """Turn until stopped."""
        self._watch.start()
        try:
            while not self._stopping:
                try:
                    await self._turn()
                except Exception as error:  # noqa: BLE001 - the loop's border: /readyz and the log tell of it
                    self._failed(ours(error, "a turn of the agent's loop"))
                    await asyncio.sleep(_RETRY)
        finally:
            self._watch.close()
            await asyncio.get_running_loop().run_in_executor(self._thread, self._worker.close)
            self._thread.shutdown(wait=True)

    async def _in_thread(self, action: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    async def _turn(self) -> None:
        await self._pause()
        if self._stopping or self._snapshot is None:
            return
        now = time.monotonic()
        if self._heal_due and self._heal_due[0] <= now:
            self._heal_due.pop(0)
            await self._heal()
        if now < self._due():
            return
        suspects = self._suspects + self._watch.take()
        self._suspects = []
        self._look_due = now + _RETRY
        try:
            if self._backend is None or now >= self._backend_due:
                await self._choose_backend(now)
            snapshot, backend = self._snapshot, self._backend
            if backend is None:
                return
            judged = bool(suspects) or not self._clean or now >= self._judge_due
            look = await self._look(snapshot, backend, suspects, now)
            self._account(look, suspects)
            self._tell_plain(look, snapshot)
            if (judged or look.result.applied) and not look.bridged:
                await self._judge(snapshot)
        except HitlessError as error:
            self._suspects = suspects[-_REMEMBERED:]
            self._failed(error)
            return
        self._announce(look)
        cost = look.ended - look.begun
        self._watch.looked(cost)
        period = max(self._resync, cost * _SHARE)
        self._health.stale_after = 3 * period + _GRACE
        self._look_due = time.monotonic() + (period if self._clean else _RETRY)
        if look.bridged and look.result.settled:
            self._look_due = self._reload.due

    async def _look(self, snapshot: Snapshot, backend: Backend, suspects: list[Suspect], now: float) -> Look:
        """One pass, out of the way of a reload; adds to the suspects what was committed before it."""
        if suspects:
            self._reload.touched(now)
        goes_on, harmed = self._reload.goes_on(now), self._clean or self._damaged_since is not None
        may = self._reload.begun is None and harmed and self._health.last_pass is not None
        look = await self._in_thread(
            lambda: self._worker.look(snapshot, backend, heal=self._heals, may_bridge=may, must_bridge=goes_on)
        )
        suspects += self._watch.covered(look.first_generation, look.generation)
        if look.bridged and not goes_on:
            self._reload.begin(look.ended)
        elif not look.bridged and look.result.settled:
            self._reload.end()
        return look

    async def _judge(self, snapshot: Snapshot) -> None:
        """Ask the evaluator about the whole egress path, neighbours' rules included."""
        begun = time.monotonic()
        found = await self._in_thread(lambda: self._worker.judge(snapshot))
        self._health.not_carried = {family.value: why for family, why in found.items()}
        if self._clean:
            self._tell_not_carried(self._health.not_carried)
        ended = time.monotonic()
        self._judge_due = ended + max(self._resync, _SHARE * (ended - begun))

    def _tell_not_carried(self, found: Mapping[str, str]) -> None:
        """What cuts the pods off although our rules stand is said once, and once when it is over."""
        for family, why in found.items():
            if self._cut_off.get(family) != why:
                self._log.notice("not carried", family=family, reason=why)
        for family in self._cut_off.keys() - found.keys():
            self._log.info("carried again", family=family)
        self._cut_off = found

    def _due(self) -> float:
        """When the next look may be."""
        return max(self._look_due, self._not_before, self._retries.not_before)

    async def _pause(self) -> None:
        """Wait for news, or until a look or healing is due; a fight's delay holds looks back, not healing."""
        now = time.monotonic()
        due = (
            max(self._look_due, self._not_before, self._retries.not_before) - now
            if self._snapshot is not None
            else 3600.0
        )
        if self._heal_due:
            due = min(due, self._heal_due[0] - now)
        patience = self._notifier.watchdog
        if patience is not None:
            due = min(due, patience)
        if due > 0:
            try:
                async with asyncio.timeout(due):
                    await self._news.wait()
            except TimeoutError:
                pass
        if self._news.is_set():
            self._news.clear()
            self._look_due = 0.0
        if patience is not None:
            self._notifier.say("WATCHDOG=1")

    async def _choose_backend(self, now: float) -> None:
        """Again now and then: the kubelet may come after us, or change its mind."""
        native, current = self._native, self._backend
        backend = await self._in_thread(lambda: self._worker.backend(native=native, current=current))
        if backend is not current:
            self._log.info("backend", backend=backend.value, native=native)
        self._backend, self._backend_due = backend, now + _BACKEND_EVERY

    # --- what a look means

    def _account(self, look: Look, suspects: list[Suspect]) -> None:
        result, metrics = look.result, self._metrics
        first = self._health.last_pass is None
        metrics.add("hitless_agent_passes_total")
        metrics.set("hitless_agent_plan_changes", len(result.found.changes))
        metrics.set("hitless_agent_lost_events_total", self._watch.lost)
        if suspects:
            metrics.set("hitless_agent_event_lag_seconds", max(0.0, look.begun - suspects[0].time))
        for transaction in result.applied:
            metrics.add("hitless_agent_transactions_total", backend=transaction.backend.value)
        metrics.set("hitless_agent_commands_total", self._worker.node.commands)
        self._health.last_pass = look.ended
        was_clean, self._clean = self._clean, result.settled and not look.bridged
        if result.applied or not result.settled:
            self._changed(look, suspects, damage=(was_clean or self._damaged_since is not None) and not first)
        else:
            self._log.debug("as desired", milliseconds=_ms(look.ended - look.begun))
        if not result.settled:
            self._unsettled(look)
        elif look.bridged:
            self._retries.anew()
            self._health.problems = (_BRIDGED,)
        else:
            self._retries.anew()
            metrics.set("hitless_agent_last_sync_timestamp_seconds", time.time())
            self._health.problems = ()
        if look.unbridged:
            self._log.warning("no bridge", reason=look.unbridged)
        self._report_notes(look)
        if look.legacy:
            self._watch.follow_legacy()
        if look.ill:
            self._not_healed(look.ill)
        self._healed(look.healed or {})
        if self._heals and result.settled and (first or look.opened or not (was_clean or look.bridged)):
            done = look.healed is not None
            self._heal_due = [look.ended + pause for pause in (_HEAL[1:] if done else _HEAL)]

    def _changed(self, look: Look, suspects: list[Suspect], *, damage: bool) -> None:
        result, backend = look.result, look.backend
        for change in result.found.changes:
            self._log.info("change", place=str(change.place), what=change.what, reason=change.reason)
        if not damage:
            done = "applied" if result.settled else "applying"
            self._log.info(
                done, backend=backend.value, transactions=len(result.applied), milliseconds=_ms(look.ended - look.begun)
            )
            return
        named = [one for one in suspects if one.name] or suspects
        # damage that took more than one look to repair is still the work of who did it
        suspect = named[-1] if named else self._damaged_by or Suspect(look.begun, 0, 0, "")
        self._damaged_by = None if result.settled else suspect
        writer = suspect.name or "unknown"
        if self._damaged_since is None:
            self._damaged_since = suspects[0].time if suspects else look.begun
        since = self._damaged_since
        verdict = self._fights.damage(suspect.kin, look.begun)
        self._not_before = look.ended + verdict.delay
        duration = look.ended - since
        for family, why in look.opened.items():
            self._metrics.add("hitless_agent_gaps_total", family=family.value, writer=writer)
            self._metrics.add("hitless_agent_gap_seconds_total", duration, family=family.value)
            self._log.notice("gap", family=family.value, writer=suspect.label, reason=why, milliseconds=_ms(duration))
        if result.settled:
            self._damaged_since = None
            self._metrics.add("hitless_agent_repairs_total", writer=writer)
            self._metrics.add("hitless_agent_repair_seconds_sum", duration)
            told = {"milliseconds": _ms(duration), "transactions": len(result.applied)}
            more = {"reason": _BRIDGED} if look.bridged else {}
            self._log.info("repaired", writer=suspect.label, **told, **more)
        if verdict.new:
            self._metrics.add("hitless_agent_fights_total", writer=writer)
            self._log.error(
                "fight", writer=suspect.label, times=verdict.times, reason="it undoes our rules again and again"
            )
        if verdict.delay:
            self._log.warning("slowed down", writer=suspect.label, seconds=verdict.delay, reason="a fight")
        self._health.fighting = tuple(self._fights.current(look.ended))

    def _unsettled(self, look: Look) -> None:
        error = look.result.error
        if not isinstance(error, LockBusy):  # it was waited for already
            self._retries.failed(look.ended)
        kind = "lock" if isinstance(error, LockBusy) else "apply" if error else "unsettled"
        why = str(error) if error else "another writer changes the rules while we do"
        if isinstance(error, LockBusy):
            why = f"the xtables lock cannot be had: {why}"
        self._metrics.add("hitless_agent_errors_total", kind=kind)
        missing = "; ".join(change.reason for change in look.result.left.changes)
        self._health.problems = (f"{why}; still to be done: {missing}",)
        self._log.error("not applied", kind=kind, reason=why, left=len(look.result.left.changes))

    def _failed(self, error: HitlessError) -> None:
        self._clean = False
        self._retries.failed(time.monotonic())
        self._metrics.add("hitless_agent_errors_total", kind="observe")
        self._health.problems = (str(error),)
        self._log.error("cannot look", reason=str(error))

    def _report_notes(self, look: Look) -> None:
        told = look.result.left.notes or look.result.found.notes
        notes = frozenset(f"{note.place}: {note.text}" for note in told if not note.refusal)  # those: "not carried"
        for text in sorted(notes - self._notes):
            self._log.warning("kept", reason=text)
        self._notes = notes
        if look.draining:
            self._log.debug("draining", networks=[str(network) for network in look.draining])

    def _tell_plain(self, look: Look, snapshot: Snapshot) -> None:
        if snapshot.random_fully and look.result.settled and not look.result.random_fully and not self._told_plain:
            self._told_plain = True
            self._log.warning("plain masquerade", reason="this iptables or kernel does not know --random-fully")

    async def _heal(self) -> None:
        """Free what was bound without translation."""
        snapshot = self._snapshot
        if snapshot is None:
            return
        try:
            found = await self._in_thread(lambda: self._worker.heal(snapshot))
        except HitlessError as error:
            self._not_healed(str(error))
            return
        self._healed(found)

    def _not_healed(self, reason: str) -> None:
        self._metrics.add("hitless_agent_errors_total", kind="heal")
        self._log.error("cannot heal", reason=reason)

    def _healed(self, found: Mapping[Family, int]) -> None:
        for family, count in found.items():
            if count:
                self._metrics.add("hitless_agent_healed_flows_total", count, family=family.value)
                self._log.info("healed", family=family.value, flows=count)

    def _announce(self, look: Look) -> None:
        reasons = self._health.reasons(time.monotonic())
        if reasons:
            self._notifier.say(f"STATUS=not ready: {'; '.join(reasons)}")
            return
        self._notifier.say("READY=1", "STATUS=egress rules stand")
        if not self._announced:
            self._announced = True
            took = time.monotonic() - self._started
            self._metrics.set("hitless_agent_start_to_ready_seconds", took)
            self._log.info("ready", milliseconds=_ms(took), backend=look.backend.value)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
