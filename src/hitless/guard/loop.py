"""The guard's loop: observe, decide, stand by, heal, report.

Problem: everything that the other modules decide has to happen in the right order and at once. Promise: the order is
always the same: the standby first, then healing, then the record. A state of the rules is handled whole before the
next is taken; what is due (``schedule``) comes in between. Rules, tables, connections, surroundings and time are handed
in (``ports``). Without ``tables`` it only observes. Never writes anything but its own table and never deletes a
connection that the standby's rules would not have translated. Next stage: ``running`` opens the ports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from hitless import __version__
from hitless.daemon.logs import Log
from hitless.errors import HitlessError
from hitless.guard import primaries, records
from hitless.guard.deciding import Decision, Limits
from hitless.guard.gaps import OpenGap
from hitless.guard.healing import Healing
from hitless.guard.notices import unclear
from hitless.guard.ports import FlowsPort, GuardTime, RulesPort, StatementsPort, SurroundingsPort, TablesPort
from hitless.guard.primaries import Primary
from hitless.guard.reasons import Code, Reason
from hitless.guard.reporting import Reporter
from hitless.guard.rule_copy import Unclear
from hitless.guard.schedule import Schedule
from hitless.guard.side import Observed, Side
from hitless.guard.standby_table import FoundStandby, found_in
from hitless.guard.statements import Statement
from hitless.model.families import Family, Network
from hitless.observe.rules import Observation

__all__ = ["GuardLoop", "GuardPorts", "GuardSettings"]


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What users may set."""

    primary: Primary = field(default_factory=lambda: primaries.load("flannel"))
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    networks: tuple[Network, ...] = ()
    uplink: str = ""
    observe: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class GuardPorts:
    """The world. ``tables`` ``None``: nothing is written. ``named``: a reason with names for what rules know by
    numbers."""

    rules: RulesPort
    tables: TablesPort | None
    flows: FlowsPort
    around: SurroundingsPort
    stated: StatementsPort
    time: GuardTime
    named: Callable[[str], str] = str


class GuardLoop:
    """One node's guard. For one thread: ``begin``, then ``turn`` again and again, then ``end``."""

    def __init__(self, settings: GuardSettings, ports: GuardPorts, reporter: Reporter, log: Log) -> None:
        self.settings = settings
        self.reporter = reporter
        self.sides: dict[Family, Side] = {}
        self.up = False  # not refused: from then on there is something to report
        self._ports = ports
        self._tables = ports.tables
        self._time = ports.time
        self._log = log
        self._schedule = Schedule()
        self._healing = Healing(ports, self._schedule, reporter, log)
        self._spoken = 0.0  # statements of the agent that are older than this do not count
        self._failed: HitlessError | None = None
        self._last: Observation | None = None

    # --- life

    def begin(self) -> None:
        """Take over, learn, and stand by. Raises ``Unclear`` when the primary cannot be understood, and what the
        kernel refuses: then nothing was changed."""
        first, around, settings = self._ports.rules.first, self._ports.around, self.settings
        found: dict[Family, FoundStandby | None] = {}
        for family in settings.families:
            found[family] = there = found_in(first.ruleset, family, around.uplink(family))
            installed = there.standby if there is not None else None
            self.sides[family] = Side.of(
                family, settings.primary, settings.networks, around, installed, settings.limits, self._ports.named
            )
        decided = self._see(first)
        self.reporter.guarding = not settings.observe
        if self._tables is not None:
            self._refuse()
            self._tables.adopt(found)
            for side in self.sides.values():
                self._count(side, first.t)  # what an earlier guard's table counted is not news
        self._stand(first)
        if self._failed is not None:
            raise self._failed  # what cannot be written now is for users to repair; later it is tried again
        self._started(found)
        self._report(first, decided)
        whole = any(side.whole for side in self.sides.values())
        if whole and (statement := self._stated()) and not statement.masquerade:
            self._spoken = self._time.wall()  # the rules are there, so the statement is older: it does not count
        for side in self.sides.values():
            self._healing.heal(side, "start")
        self._look(first.t)

    def turn(self) -> None:
        """Wait for what comes next, and handle it."""
        observation = self._ports.rules.next(self._schedule.patience(self._time.monotonic()))
        if observation is not None:
            self._observe(observation)
        self._timely()

    def end(self) -> None:
        """Report what is still open. The kernel keeps the standby."""
        now = self._time.now()
        for side in self.sides.values() if self.up else ():
            if side.egress.open is not None:
                self._gap(side, side.egress.open, now, None, still_open=True)
            if side.forward.open is not None:
                self.reporter.forward_gap(side, side.forward.open, now, None, still_open=True)

    def _refuse(self) -> None:
        """Raise ``Unclear`` when a family's rules cannot be copied and no standby is installed for it: before anything
        is written, the other family's standby neither."""
        for family, side in self.sides.items():
            if side.unclear and not side.installed:
                raise Unclear(
                    f"{unclear(self.settings.primary, family, side.unclear)}; nothing was changed. "
                    "Name its chains with --profile, or only report with --observe"
                )

    def _started(self, found: Mapping[Family, FoundStandby | None]) -> None:
        """Only a guard that refuses nothing any more has started."""
        self.up = True
        standing = [family.value for family, there in found.items() if there is not None and there.standby is not None]
        self.reporter.record(
            records.Started(
                t=self._time.now(),
                version=__version__,
                primary=self.settings.primary.name,
                mode="observe" if self.settings.observe else "guard",
                found=f"standby for {', '.join(standing)}" if standing else "",
            )
        )

    # --- what happens

    def _observe(self, observation: Observation) -> None:
        decided = self._see(observation)
        self._stand(observation)
        self._report(observation, decided)

    def _see(self, observation: Observation) -> dict[Family, Observed]:
        """Decide; nothing is written yet."""
        now = self._time.monotonic()
        self._last = observation
        seen = {family: side.see(observation, now, self._stated) for family, side in self.sides.items()}
        decided = {family: one for family, one in seen.items() if one is not None}
        for family, one in decided.items():
            self._schedule.decide(family, one.decision.again)
        return decided

    def _report(self, observation: Observation, decided: Mapping[Family, Observed]) -> None:
        """Heal and report what was decided."""
        if observation.lost:
            self.reporter.count("lost_events")
        for family, one in decided.items():
            self._report_one(self.sides[family], one, observation)
        if decided:  # the state comes last: who reads there that a gap is over finds its record
            self.reporter.state(self.sides, self._tables)

    def _stand(self, observation: Observation | None) -> None:
        """Bring the kernel's table to what was decided. A failure is reported and tried again at the next tick."""
        if self._tables is None:
            return
        try:
            if observation is not None and observation.own and self._tables.restore():
                who = observation.writer.comm if observation.writer is not None else "somebody"
                self.reporter.note("warning", f"{who} took the standby away; it is back")
                self.reporter.bare()
                for family in self.sides:
                    self._healing.later(family)
            self._tables.install({family: side.installed for family, side in self.sides.items()})
            self.reporter.problem, self._failed = "", None
            for side in self.sides.values():
                if side.installed is not None and not side.meter.begun:
                    self._count(side, self._time.now())  # before it is reported as standing by: from here on it counts
        except HitlessError as error:
            self.reporter.problem, self._failed = str(error), error
            self.reporter.bare()
            self._log.error("cannot write the standby", reason=str(error))

    def _report_one(self, side: Side, seen: Observed, observation: Observation) -> None:
        decision, t = seen.decision, observation.t
        if seen.opened:
            self.reporter.opened(side)
        if decision.action == "install" and decision.standby is not None:
            self.reporter.followed(side, decision.why, decision.standby, t, observation.writer)
            self._healing.later(side.family)
        elif decision.action == "withdraw":
            self.reporter.withdrawn(side, decision.why, t)
        if seen.gap is not None:
            self._healing.heal(side, "gap")
            self._gap(side, seen.gap, t, observation)
        if seen.forward_gap is not None:
            self.reporter.forward_gap(side, seen.forward_gap, t, observation.writer)

    def _gap(
        self, side: Side, gap: OpenGap, t: int, observation: Observation | None, *, still_open: bool = False
    ) -> None:
        self._count(side, t)
        writer = observation.writer if observation is not None else None
        healed = self._healing.take(side.family)
        self.reporter.gap(side, gap, t, writer, healed=healed, still_open=still_open)

    # --- time

    def _timely(self) -> None:
        now = self._time.monotonic()
        for family in self._schedule.take_decisions(now):
            self._decide_again(self.sides[family], now)
        for family in self._schedule.take_heals(now):
            self._healing.heal(self.sides[family], "again")
        # counters may run ahead of the events that explain them: judge only when there is nothing to catch up with
        if not self._ports.rules.waiting and self._schedule.take_tick(now):
            for side in self.sides.values():
                if side.open:
                    self._decide_again(side, now)
            self._check_surroundings(now)
            self._look(self._time.now())

    def _check_surroundings(self, now: float) -> None:
        """Evaluate again the families whose pods or uplink changed (at boot there may be none yet); then count the pods
        that are cut off, unless that was done for these rules."""
        if self._last is None:
            return
        families = self._ports.around.changed(now)
        for family in families & self.sides.keys():
            self.sides[family].ask_again()
        if families:
            self._observe(self._moment(self._last))
        if self._schedule.may_count(self._time.monotonic()):
            begun = self._time.worked()
            for side in self.sides.values():
                if side.count(self._last.ruleset):
                    self.reporter.partly(side, self._time.now())
            self._schedule.counted(self._time.monotonic(), self._time.worked() - begun)

    def _decide_again(self, side: Side, now: float) -> None:
        decision = side.again(now, self._stated)
        self._schedule.decide_again(side.family, decision.again, now)
        if (decision.action != "keep" or side.due) and self._last is not None:
            self._carry_out(side, decision, self._last)

    def _carry_out(self, side: Side, decision: Decision, last: Observation) -> None:
        self._stand(None)
        # what the same rules come to depends on what is guarded: a gap that was followed is over
        moment = self._moment(last)
        self._report_one(side, side.judge(moment, decision), moment)
        self.reporter.state(self.sides, self._tables)

    def _moment(self, last: Observation) -> Observation:
        """The same rules, now: without a commit."""
        now = self._time.now()
        return replace(last, t=now, before=now, writer=None, lost=False, own=False)

    def _look(self, t: int) -> None:
        for side in self.sides.values():
            if side.open or not side.whole:
                side.meter.disturb(t)
            self._count(side, t)
            self.reporter.goes_on(side, t)
            self.reporter.quiet(side)
        self._stand(None)
        self.reporter.state(self.sides, self._tables)

    def _count(self, side: Side, t: int) -> None:
        """Read the counters, and act on them."""
        if self._tables is None:
            return
        counts = self._tables.counters(side.family)
        if "carried" not in counts or "leaked" not in counts:  # no table, or not yet: nothing can be concluded
            side.meter.disturb(t)
            return
        carried, leaked = counts["carried"].packets, counts["leaked"].packets
        moved = side.meter.sample(t, carried, leaked)
        self.reporter.moved(side.family, moved)
        if moved.leaked:
            self._healing.heal(side, "leak", moved.leaked)
        if moved.wrongly and not side.withdrawn:
            reason = Reason(Code.CONTRADICTED, flows=moved.wrongly)
            side.withdraw(reason)
            self._stand(None)
            self.reporter.withdrawn(side, reason, t)

    def _stated(self) -> Statement | None:
        return self._ports.stated(self._spoken)
