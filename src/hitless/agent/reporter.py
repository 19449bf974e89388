"""All that the agent reports, in one place: log, metrics, /readyz and systemd.

Problem: a fact that is in the log but not in the metrics, or in the metrics but not on /readyz, misleads operators.
Promise: the loop calls one method for each thing that happened, and the method updates every channel that it concerns.
Notes and lasting states are logged when they begin and when they end. Nothing is decided here, and times are arguments.
Previous stage: ``loop``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hitless.agent.change_watch import Suspect
from hitless.agent.damage import Blame
from hitless.agent.egress import EgressStatus, Opened
from hitless.agent.fights import FightVerdict
from hitless.agent.health import UNREAD, Health
from hitless.agent.worker import PassResult
from hitless.daemon.logs import Log
from hitless.daemon.metrics import Metrics
from hitless.daemon.notify import Notifier
from hitless.errors import HitlessError
from hitless.kernel.iptables import LockBusy
from hitless.model.families import Backend, Family
from hitless.sources import SourceSnapshot

__all__ = ["AgentReporter"]

_BRIDGED = "whole tables were flushed: a separate table masquerades pods until the others are left alone for a second"


@dataclass(frozen=True, slots=True)
class _OpenGap:
    """``since``: monotonic, for the time of day may be set while the gap lasts."""

    opened: Opened
    suspect: Suspect
    since: float


class AgentReporter:
    """The sinks of one agent. ``started``: when the process was started, on the loop's clock."""

    def __init__(self, log: Log, metrics: Metrics, health: Health, notifier: Notifier, *, started: float) -> None:
        self._log, self._metrics, self.health, self._notifier = log, metrics, health, notifier
        self._started = started
        self._announced = False
        self._notes: frozenset[str] = frozenset()
        self._cut_off: Mapping[str, str] = {}  # families and reasons that are logged as cut off
        self._gaps: dict[Family, _OpenGap] = {}
        self._random_fully_logged = False  # that it is missing here

    # --- a pass

    def backend(self, backend: Backend, *, native: bool) -> None:
        """Rules are written to this backend from now on."""
        self._log.info("backend", backend=backend.value, native=native)

    def pass_ended(self, done: PassResult, *, lag: float | None, lost: int, commands: int) -> None:
        """``lag``: from the event that requested it, in seconds; ``lost``: how often events were lost so far."""
        metrics, result = self._metrics, done.result
        metrics.add("hitless_agent_passes_total")
        metrics.set("hitless_agent_plan_changes", len(result.found.changes))
        metrics.set("hitless_agent_lost_events_total", lost)
        if lag is not None:
            metrics.set("hitless_agent_event_lag_seconds", max(0.0, lag))
        for transaction in result.applied:
            metrics.add("hitless_agent_transactions_total", backend=transaction.backend.value)
        metrics.set("hitless_agent_commands_total", commands)
        self.health.last_pass = done.ended
        for change in result.found.changes if result.applied or not result.settled else ():
            self._log.info("change", place=str(change.place), what=change.what, reason=change.reason)
        self._note(done)

    def as_desired(self, done: PassResult) -> None:
        """There was nothing to do."""
        self._log.debug("as desired", milliseconds=_ms(done.ended - done.begun))

    def applied(self, done: PassResult) -> None:
        """The desired rules were written, or a part of them, and not because of damage."""
        event = "applied" if done.result.settled else "applied in part"
        took, count = _ms(done.ended - done.begun), len(done.result.applied)
        self._log.info(event, backend=done.backend.value, transactions=count, milliseconds=took)

    def settled(self, done: PassResult, wall: float) -> None:
        """Nothing is left to do; ``wall``: the time of day."""
        self._close_gaps(done, wall)
        if done.bridged:
            self.health.problems = (_BRIDGED,)
            return
        self._metrics.set("hitless_agent_last_sync_timestamp_seconds", wall)
        self.health.problems = ()

    def unsettled(self, done: PassResult) -> None:
        """Something is left to do."""
        error = done.result.error
        kind = "lock" if isinstance(error, LockBusy) else "apply" if error else "unsettled"
        why = str(error) if error else "another writer changes the rules while we do"
        if isinstance(error, LockBusy):
            why = f"the xtables lock cannot be had: {why}"
        self._metrics.add("hitless_agent_errors_total", kind=kind)
        missing = "; ".join(change.reason for change in done.result.left.changes)
        self.health.problems = (f"{why}; still to be done: {missing}",)
        self._log.error("not applied", kind=kind, reason=why, left=len(done.result.left.changes))

    def failed(self, error: HitlessError) -> None:
        """A turn of the loop ended with an error."""
        self._metrics.add("hitless_agent_errors_total", kind="observe")
        self.health.problems = (str(error),)
        self._log.error("rules not read", reason=str(error))

    def _note(self, done: PassResult) -> None:
        found = done.result.left.notes or done.result.found.notes
        # refusals are reported as "not carried"
        notes = frozenset(f"{note.place}: {note.text}" for note in found if not note.refusal)
        for text in sorted(notes - self._notes):
            self._log.warning("foreign rules kept", reason=text)
        self._notes = notes
        if done.draining:
            self._log.debug("draining", networks=[str(network) for network in done.draining])
        if done.bridge_error:
            self._log.warning("reload not bridged", reason=done.bridge_error)

    def random_fully_missing(self, done: PassResult, snapshot: SourceSnapshot) -> None:
        """Log once that this node does not support --random-fully."""
        wanted = snapshot.random_fully and done.result.settled
        if wanted and not done.result.random_fully and not self._random_fully_logged:
            self._random_fully_logged = True
            self._log.warning("random-fully unsupported", reason="this iptables or kernel does not know --random-fully")

    # --- damage

    def damaged(self, done: PassResult, blame: Blame, wall: float) -> None:
        """Another program changed our rules: the gaps that this caused, and the repair once it is complete. ``wall``:
        the time of day when the pass ended."""
        suspect, writer = blame.suspect, blame.suspect.name or "unknown"
        for family, opened in done.opened.items():
            if family not in self._gaps:
                self._gaps[family] = _OpenGap(opened, suspect, done.ended - blame.duration)
                if not done.result.settled:
                    self._gap(family, done.ended, wall, still_open=True)
        self._close_gaps(done, wall)
        if done.result.settled:
            self._metrics.add("hitless_agent_repairs_total", writer=writer)
            self._metrics.add("hitless_agent_repair_seconds_sum", blame.duration)
            facts = {"milliseconds": _ms(blame.duration), "transactions": len(done.result.applied)}
            more = {"reason": _BRIDGED} if done.bridged else {}
            self._log.info("repaired", writer=suspect.label, **facts, **more)
        self._fought(suspect, blame.verdict)

    def _close_gaps(self, done: PassResult, wall: float) -> None:
        """A gap is counted when it is over, however many tries the repair took, and whichever program made it."""
        if done.result.settled:
            for family, gap in self._gaps.items():
                self._metrics.add("hitless_agent_gaps_total", family=family.value, writer=gap.suspect.name or "unknown")
                self._metrics.add("hitless_agent_gap_seconds_total", done.ended - gap.since, family=family.value)
                self._gap(family, done.ended, wall, still_open=False)
            self._gaps.clear()

    def _gap(self, family: Family, now: float, wall: float, *, still_open: bool) -> None:
        # 10 ms: imported at the first gap, after its repair, and not at the start
        from hitless.agent.records import AgentGap
        from hitless.daemon.log_records import line_of
        from hitless.model.event_fields import Writer

        gap, end = self._gaps[family], round(wall * 1e9)
        suspect, lasted = gap.suspect, now - gap.since
        record = AgentGap(
            t=end,
            family=family.value,
            networks=[str(gap.opened.network)],
            begin=end - round(lasted * 1e9),
            end=end,
            code=gap.opened.how,
            reason=gap.opened.why,
            opened_by=Writer(suspect.pid, suspect.name) if suspect.pid else None,
            open=still_open,
            writer=suspect.label,
            milliseconds=_ms(lasted),
        )
        event, facts = line_of(record)
        self._log.notice(event, **facts)

    def _fought(self, suspect: Suspect, verdict: FightVerdict) -> None:
        if verdict.new:
            self._metrics.add("hitless_agent_fights_total", writer=suspect.name or "unknown")
            reason = "it undoes our rules again and again"
            self._log.error("fight", writer=suspect.label, times=verdict.times, reason=reason)
        if verdict.delay:
            self._log.warning("repairs slowed down", writer=suspect.label, seconds=verdict.delay, reason="a fight")

    def fighting(self, writers: list[str]) -> None:
        """The writers that undo our rules again and again at present."""
        self.health.fighting = tuple(writers)

    # --- the node

    def evaluated(self, found: Mapping[Family, EgressStatus], *, log: bool) -> None:
        """What becomes of the pods' packets. ``log``: our own rules are in place, so that a cut-off is logged, once.
        Its end is always logged."""
        cut = {family.value: status.why for family, status in found.items() if status.state == "not_carried"}
        self.health.not_carried = cut
        self.health.doubtful = {f.value: status.why for f, status in found.items() if status.state == "cannot_tell"}
        for family in sorted(self._cut_off.keys() - cut.keys()):
            self._log.info("carried again", family=family)
        logged = {family: why for family, why in self._cut_off.items() if family in cut}
        for family, why in cut.items() if log else ():
            if logged.get(family) != why:
                self._log.notice("not carried", family=family, reason=why)
        self._cut_off = cut if log else logged

    def partly_read(self, near: Mapping[Family, EgressStatus]) -> None:
        """The rules of all programs are not read yet for these families. ``near``: what the chains near ours do. Where
        they stop all pods, no other chain can change that; everything else is not known."""
        cut = {family.value: status.why for family, status in near.items() if status.state == "not_carried"}
        unread = {family.value: UNREAD for family in near if family.value not in cut}
        self.health.not_carried = {**self.health.not_carried, **cut}
        self.health.doubtful = {**self.health.doubtful, **unread}

    def not_evaluated(self, error: HitlessError, families: Collection[Family]) -> None:
        """It is not known what becomes of the pods' packets. Families that were cut off stay reported as such."""
        unknown = {family.value for family in families} - self.health.not_carried.keys()
        self.health.doubtful = {family: str(error) for family in sorted(unknown)}
        self._metrics.add("hitless_agent_errors_total", kind="observe")
        self._log.error("rules not read", reason=str(error))

    def healed(self, found: Mapping[Family, int]) -> None:
        """How many flows of each family were freed."""
        for family, count in found.items():
            if count:
                self._metrics.add("hitless_agent_healed_flows_total", count, family=family.value)
                self._log.info("healed", family=family.value, flows=count)

    def not_healed(self, reason: str) -> None:
        """Healing failed."""
        self._metrics.add("hitless_agent_errors_total", kind="heal")
        self._log.error("cannot heal", reason=reason)

    # --- systemd

    @property
    def watchdog_interval(self) -> float | None:
        """``alive`` must be called at least so often, in seconds; ``None``: there is no watchdog."""
        return self._notifier.watchdog

    def alive(self) -> None:
        """The loop is running."""
        if self._notifier.watchdog is not None:
            self._notifier.say("WATCHDOG=1")

    def announce(self, backend: Backend, now: float) -> None:
        """Report whether the node is ready to systemd; the first time, log how long that took."""
        reasons = self.health.reasons(now)
        if reasons:
            self._notifier.say(f"STATUS=not ready: {'; '.join(reasons)}")
            return
        self._notifier.say("READY=1", "STATUS=egress rules stand")
        if not self._announced:
            self._announced = True
            took = now - self._started
            self._metrics.set("hitless_agent_start_to_ready_seconds", took)
            self._log.info("ready", milliseconds=_ms(took), backend=backend.value)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)
