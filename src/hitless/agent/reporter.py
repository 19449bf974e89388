"""Everything that the agent reports, in one place: log, metrics, /readyz and systemd.

Problem: a fact that reaches the log and not the metric, or the metric and not /readyz, misleads whoever looks there.
Promise: the loop says once what happened, and each method here tells every channel that it concerns. Notes and states
that last are logged when they begin and when they end. It decides nothing and asks nobody; times come in. Previous
stage: ``loop``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from hitless.agent.change_watch import Suspect
from hitless.agent.damage import Blame
from hitless.agent.egress import EgressStatus, Opened
from hitless.agent.fights import FightVerdict
from hitless.agent.health import UNREAD, Health
from hitless.agent.records import AgentGap
from hitless.agent.worker import PassResult
from hitless.daemon.log_records import line_of
from hitless.daemon.logs import Log
from hitless.daemon.metrics import Metrics
from hitless.daemon.notify import Notifier
from hitless.errors import HitlessError
from hitless.kernel.iptables import LockBusy
from hitless.model.event_fields import Writer
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
        self._cut_off: Mapping[str, str] = {}  # what the log says about it
        self._gaps: dict[Family, _OpenGap] = {}
        self._plain = False  # whether the log says that MASQUERADE is written without --random-fully

    # --- a look

    def backend(self, backend: Backend, *, native: bool) -> None:
        """Rules are written there from now on."""
        self._log.info("backend", backend=backend.value, native=native)

    def looked(self, look: PassResult, *, lag: float | None, lost: int, commands: int) -> None:
        """A comparison is over. ``lag``: from the event that called for it; ``lost``: events so far."""
        metrics, result = self._metrics, look.result
        metrics.add("hitless_agent_passes_total")
        metrics.set("hitless_agent_plan_changes", len(result.found.changes))
        metrics.set("hitless_agent_lost_events_total", lost)
        if lag is not None:
            metrics.set("hitless_agent_event_lag_seconds", max(0.0, lag))
        for transaction in result.applied:
            metrics.add("hitless_agent_transactions_total", backend=transaction.backend.value)
        metrics.set("hitless_agent_commands_total", commands)
        self.health.last_pass = look.ended
        for change in result.found.changes if result.applied or not result.settled else ():
            self._log.info("change", place=str(change.place), what=change.what, reason=change.reason)
        self._note(look)

    def as_desired(self, look: PassResult) -> None:
        """There was nothing to do."""
        self._log.debug("as desired", milliseconds=_ms(look.ended - look.begun))

    def applied(self, look: PassResult) -> None:
        """What was wanted is written, or a part of it; nobody had damaged it."""
        done = "applied" if look.result.settled else "applied in part"
        took, count = _ms(look.ended - look.begun), len(look.result.applied)
        self._log.info(done, backend=look.backend.value, transactions=count, milliseconds=took)

    def settled(self, look: PassResult, wall: float) -> None:
        """Nothing is left to do; ``wall``: the time of day."""
        self._close_gaps(look, wall)
        if look.bridged:
            self.health.problems = (_BRIDGED,)
            return
        self._metrics.set("hitless_agent_last_sync_timestamp_seconds", wall)
        self.health.problems = ()

    def unsettled(self, look: PassResult) -> None:
        """Something is left to do."""
        error = look.result.error
        kind = "lock" if isinstance(error, LockBusy) else "apply" if error else "unsettled"
        why = str(error) if error else "another writer changes the rules while we do"
        if isinstance(error, LockBusy):
            why = f"the xtables lock cannot be had: {why}"
        self._metrics.add("hitless_agent_errors_total", kind=kind)
        missing = "; ".join(change.reason for change in look.result.left.changes)
        self.health.problems = (f"{why}; still to be done: {missing}",)
        self._log.error("not applied", kind=kind, reason=why, left=len(look.result.left.changes))

    def failed(self, error: HitlessError) -> None:
        """A turn of the loop ended with an error."""
        self._metrics.add("hitless_agent_errors_total", kind="observe")
        self.health.problems = (str(error),)
        self._log.error("rules not read", reason=str(error))

    def _note(self, look: PassResult) -> None:
        told = look.result.left.notes or look.result.found.notes
        notes = frozenset(f"{note.place}: {note.text}" for note in told if not note.refusal)  # those: "not carried"
        for text in sorted(notes - self._notes):
            self._log.warning("foreign rules kept", reason=text)
        self._notes = notes
        if look.draining:
            self._log.debug("draining", networks=[str(network) for network in look.draining])
        if look.unbridged:
            self._log.warning("reload not bridged", reason=look.unbridged)

    def plain(self, look: PassResult, snapshot: SourceSnapshot) -> None:
        """Say once that --random-fully cannot be had here."""
        if snapshot.random_fully and look.result.settled and not look.result.random_fully and not self._plain:
            self._plain = True
            self._log.warning("random-fully unsupported", reason="this iptables or kernel does not know --random-fully")

    # --- damage

    def damaged(self, look: PassResult, blame: Blame, wall: float) -> None:
        """Somebody undid our rules: the gaps that this made, and the repair once it is whole. ``wall``: the time of day
        when the look ended."""
        suspect, writer = blame.suspect, blame.suspect.name or "unknown"
        for family, opened in look.opened.items():
            if family not in self._gaps:
                self._gaps[family] = _OpenGap(opened, suspect, look.ended - blame.duration)
                if not look.result.settled:
                    self._gap(family, look.ended, wall, still_open=True)
        self._close_gaps(look, wall)
        if look.result.settled:
            self._metrics.add("hitless_agent_repairs_total", writer=writer)
            self._metrics.add("hitless_agent_repair_seconds_sum", blame.duration)
            told = {"milliseconds": _ms(blame.duration), "transactions": len(look.result.applied)}
            more = {"reason": _BRIDGED} if look.bridged else {}
            self._log.info("repaired", writer=suspect.label, **told, **more)
        self._fought(suspect, blame.verdict)

    def _close_gaps(self, look: PassResult, wall: float) -> None:
        """A gap is counted when it is over, however many tries that took and whoever repaired it."""
        if look.result.settled:
            for family, gap in self._gaps.items():
                self._metrics.add("hitless_agent_gaps_total", family=family.value, writer=gap.suspect.name or "unknown")
                self._metrics.add("hitless_agent_gap_seconds_total", look.ended - gap.since, family=family.value)
                self._gap(family, look.ended, wall, still_open=False)
            self._gaps.clear()

    def _gap(self, family: Family, now: float, wall: float, *, still_open: bool) -> None:
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
        """Who undoes our rules again and again just now."""
        self.health.fighting = tuple(writers)

    # --- the node

    def judged(self, found: Mapping[Family, EgressStatus], *, log: bool) -> None:
        """What becomes of the pods' packets. ``log``: our own rules stand, so that what cuts pods off is logged, once;
        its end is in any case."""
        cut = {family.value: answer.why for family, answer in found.items() if answer.state == "not_carried"}
        self.health.not_carried = cut
        self.health.doubtful = {f.value: answer.why for f, answer in found.items() if answer.state == "cannot_tell"}
        for family in sorted(self._cut_off.keys() - cut.keys()):
            self._log.info("carried again", family=family)
        said = {family: why for family, why in self._cut_off.items() if family in cut}
        for family, why in cut.items() if log else ():
            if said.get(family) != why:
                self._log.notice("not carried", family=family, reason=why)
        self._cut_off = cut if log else said

    def unread(self, own: Mapping[Family, EgressStatus]) -> None:
        """Everybody's rules are not read yet for these families; ``own``: what the chains that are known do. Where they
        let nobody through, others cannot either; all else is not known."""
        cut = {family.value: answer.why for family, answer in own.items() if answer.state == "not_carried"}
        unread = {family.value: UNREAD for family in own if family.value not in cut}
        self.health.not_carried = {**self.health.not_carried, **cut}
        self.health.doubtful = {**self.health.doubtful, **unread}

    def not_judged(self, error: HitlessError, families: Collection[Family]) -> None:
        """What becomes of the pods' packets cannot be told; what was known to cut them off stays said."""
        told = {family.value for family in families} - self.health.not_carried.keys()
        self.health.doubtful = {family: str(error) for family in sorted(told)}
        self._metrics.add("hitless_agent_errors_total", kind="observe")
        self._log.error("rules not read", reason=str(error))

    def healed(self, found: Mapping[Family, int]) -> None:
        """So many flows were freed."""
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
    def patience(self) -> float | None:
        """How often, in seconds, ``alive`` must be said at least; ``None``: nobody asks."""
        return self._notifier.watchdog

    def alive(self) -> None:
        """The loop turns."""
        if self._notifier.watchdog is not None:
            self._notifier.say("WATCHDOG=1")

    def announce(self, backend: Backend, now: float) -> None:
        """Say whether the node is ready; the first time, how long that took."""
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
