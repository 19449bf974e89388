"""The guard's loop: observe, decide, stand by, heal, report.

Problem: everything that the other modules decide has to happen in the right order and at once. Promise: the order is
always the same: the standby first, then healing, then the record. A state of the rules is handled whole before the
next is taken; time-outs are looked at in between. When the loop ends, for whatever reason, the kernel keeps the
standby. With ``observe`` no table is written and no flow is freed. Never writes anything but its own table and never
deletes a connection that the standby's rules would not have translated. Next stage: people (``hitless.cli.guard``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

from hitless import __version__
from hitless.daemon.logs import Log
from hitless.errors import HitlessError, ours
from hitless.guard import primaries, records, statements
from hitless.guard.copying import Unclear
from hitless.guard.deciding import Limits
from hitless.guard.freeing import Healer
from hitless.guard.gaps import OpenGap
from hitless.guard.places import Places
from hitless.guard.primaries import Primary
from hitless.guard.reasons import Code, Reason
from hitless.guard.reporting import Reporter
from hitless.guard.saying import unclear
from hitless.guard.side import Seen, Side
from hitless.guard.standing import Found, Standing, found_in
from hitless.kernel import ipsets
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.model.families import Family, Network
from hitless.model.standby import TABLE
from hitless.observe.rules import Observation, RulesObserver

__all__ = ["Guard", "Settings"]

_TICK = 1.0  # seconds between looks at the counters
_COUNT_SHARE = 100  # after all pods were asked about, so many times as long goes by until they are again
_AGAIN = (0.1, 1.0)  # seconds after a first healing: flows that were on their way then


@dataclass(frozen=True, slots=True)
class Settings:
    """What people may set."""

    primary: Primary = field(default_factory=lambda: primaries.load("flannel"))
    families: tuple[Family, ...] = (Family.IPV4, Family.IPV6)
    networks: tuple[Network, ...] = ()
    uplink: str = ""
    observe: bool = False
    limits: Limits = field(default_factory=Limits)


class Guard:
    """One node's guard; ``run`` returns when ``stop`` is set. For one thread."""

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        log: Log,
        *,
        namespace: Namespace = HERE,
        clock: Clock | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """``ready`` is called once, when the standby stands (or there is nothing to learn from yet)."""
        self.settings = settings
        self._ready = ready
        self.reporter = reporter
        self._log = log
        self._namespace = namespace
        self._clock = clock or Clock.from_environment()
        self._sides: dict[Family, Side] = {}
        self._standing: Standing | None = None
        self._healer: Healer | None = None
        self._places: Places | None = None
        self._spoken = 0.0  # words of the agent that are older than this are void
        self._failed: HitlessError | None = None
        self._due: dict[Family, float] = {}
        self._heals: set[tuple[float, Family]] = set()
        self._freed: dict[Family, int] = {}
        self._tick = 0.0
        self._count_at = 0.0
        self._last: Observation | None = None
        self._up = False  # not refused: from then on there is something to report

    # --- life

    def run(self, stop: threading.Event) -> None:
        """Guard until ``stop``. Raises ``Unclear`` when the primary cannot be understood at start."""
        with RulesObserver(self.settings.families, self._namespace, self._clock, tables=(TABLE,)) as observer:
            self._healer = Healer(self._namespace)
            self._places = Places(self._namespace, self.settings.families, self.settings.uplink)
            try:
                self._begin(observer.first, self._places)
                while not stop.is_set():
                    observation = observer.next(self._patience())
                    if observation is not None:
                        self._observe(observation)
                    self._timely(observer)
            except BaseException as error:
                failure = ours(error, "the guard")
                if self._up:  # what a guard that failed leaves behind says so, until the next one starts
                    self.reporter.ended = str(failure)
                if isinstance(error, Exception):
                    raise failure from error
                raise
            finally:
                self._end()

    def _begin(self, first: Observation, around: Places) -> None:
        found: dict[Family, Found | None] = {}
        for family in self.settings.families:
            found[family] = found_in(first.ruleset, family, around.uplink(family))
            there = found[family]
            installed = there.standby if there is not None else None
            settings = self.settings
            self._sides[family] = Side.of(
                family, settings.primary, settings.networks, around, installed, settings.limits, self._named
            )
        decided = self._see(first)
        self.reporter.guarding = not self.settings.observe
        if not self.settings.observe:
            self._refuse()
            self._standing = Standing(self.settings.families, self._namespace)
            self._standing.adopt(found)
            for side in self._sides.values():
                self._count(side, first.t)  # what an earlier guard's table counted is not news
        self._stand(first)
        if self._failed is not None:
            raise self._failed  # what cannot be written now is for people to mend; later it is tried again
        self._started(found)
        self._told(first, decided)
        if any(side.whole for side in self._sides.values()) and (said := self._stated()) and not said.masquerade:
            self._spoken = time.time()  # the rules stand and say otherwise: that word is of another time
        for family in self.settings.families:
            self._heal(family, "start")
        self._look(first.t)
        self._ready()

    def _refuse(self) -> None:
        """Raise ``Unclear`` when a family's rules cannot be copied and nothing stands for it: before anything is
        written, the other family's standby neither."""
        for family, side in self._sides.items():
            if side.unclear and not side.installed:
                raise Unclear(
                    f"{unclear(self.settings.primary, family, side.unclear)}; nothing was changed. "
                    "Name its chains with --profile, or look on with --observe"
                )

    def _started(self, found: Mapping[Family, Found | None]) -> None:
        """Only a guard that refuses nothing any more has started."""
        self._up = True
        standing = [family.value for family, there in found.items() if there is not None and there.standby is not None]
        self.reporter.record(
            records.Started(
                t=self._clock.now(),
                version=__version__,
                primary=self.settings.primary.name,
                mode="observe" if self.settings.observe else "guard",
                found=f"standby for {', '.join(standing)}" if standing else "",
            )
        )

    def _end(self) -> None:
        with ExitStack() as last:  # each of them, whatever another one raises
            last.callback(self.reporter.close, self._sides)
            for port in (self._places, self._healer, self._standing):
                if port is not None:
                    last.callback(port.close)
            now = self._clock.now()
            for side in self._sides.values() if self._up else ():
                if side.egress.open is not None:
                    self._gap(side, side.egress.open, now, None, still_open=True)
                if side.forward.open is not None:
                    self.reporter.forward_gap(side, side.forward.open, now, None, still_open=True)

    def _patience(self) -> float:
        now = time.monotonic()
        times = [self._tick, *self._due.values(), *(at for at, _ in self._heals)]
        return max(0.0, min(times) - now)

    # --- what happens

    def _observe(self, observation: Observation) -> None:
        decided = self._see(observation)
        self._stand(observation)
        self._told(observation, decided)

    def _see(self, observation: Observation) -> dict[Family, Seen]:
        """Decide; nothing is written yet."""
        now = time.monotonic()
        self._last = observation
        seen = {family: side.see(observation, now, self._stated) for family, side in self._sides.items()}
        decided = {family: one for family, one in seen.items() if one is not None}
        for family, one in decided.items():
            self._schedule(family, one)
        return decided

    def _told(self, observation: Observation, decided: Mapping[Family, Seen]) -> None:
        """Heal and report what was decided."""
        if observation.lost:
            self.reporter.count("lost_events")
        for family, one in decided.items():
            self._tell(self._sides[family], one, observation)
        if decided:  # the state comes last: who reads there that a gap is over finds its record
            self.reporter.state(self._sides, self._standing)

    def _stand(self, observation: Observation | None) -> None:
        """Bring the kernel's table to what was decided. A failure is reported and tried again at the next tick."""
        if self._standing is None:
            return
        try:
            if observation is not None and observation.own and self._standing.restore():
                who = observation.writer.comm if observation.writer is not None else "somebody"
                self.reporter.note("warning", f"{who} took the standby away; it is back")
                self.reporter.bare()
                for family in self._sides:
                    self._heal_later(family)
            self._standing.install({family: side.installed for family, side in self._sides.items()})
            self.reporter.problem, self._failed = "", None
            for side in self._sides.values():
                if side.installed is not None and not side.meter.begun:
                    self._count(
                        side, self._clock.now()
                    )  # before anybody is told that it stands by: from here on it counts
        except HitlessError as error:
            self.reporter.problem, self._failed = str(error), error
            self.reporter.bare()
            self._log.error("cannot write the standby", reason=str(error))

    def _schedule(self, family: Family, seen: Seen) -> None:
        if seen.decision.again is not None:
            self._due[family] = seen.decision.again
        else:
            self._due.pop(family, None)

    def _tell(self, side: Side, seen: Seen, observation: Observation) -> None:
        decision, t = seen.decision, observation.t
        if seen.opened:
            self.reporter.opened(side)
        if decision.action == "install" and decision.standby is not None:
            self.reporter.followed(side, decision.why, decision.standby, t, observation.writer)
            self._heal_later(side.family)
        elif decision.action == "withdraw":
            self.reporter.withdrawn(side, decision.why, t)
        if seen.gap is not None:
            self._heal(side.family, "gap")
            self._gap(side, seen.gap, t, observation)
        if seen.forward_gap is not None:
            self.reporter.forward_gap(side, seen.forward_gap, t, observation.writer)

    def _gap(
        self, side: Side, gap: OpenGap, t: int, observation: Observation | None, *, still_open: bool = False
    ) -> None:
        self._count(side, t)
        healed = self._freed.pop(side.family, 0)
        writer = observation.writer if observation is not None else None
        self.reporter.gap(side, gap, t, writer, healed=healed, still_open=still_open)

    # --- time

    def _timely(self, observer: RulesObserver) -> None:
        now = time.monotonic()
        for family, due in list(self._due.items()):
            if now >= due:
                del self._due[family]
                self._decide_again(self._sides[family], now)
        for at, family in sorted(self._heals):
            if now >= at:
                self._heals.discard((at, family))
                self._heal(family, "again")
        # counters may run ahead of the events that explain them: judge only when there is nothing to catch up with
        if now >= self._tick and not observer.waiting:
            self._tick = now + _TICK
            for side in self._sides.values():
                if side.open:
                    self._decide_again(side, now)
            self._sample(now)
            self._look(self._clock.now())

    def _sample(self, now: float) -> None:
        """Look for the pods that are there, and for the way out (at boot there may be none yet); where they are others
        than before, ask about them now. Then count those that are cut off, if that is not known of these rules."""
        if self._places is None or self._last is None:
            return
        families = self._places.changed(now)
        for family in families & self._sides.keys():
            self._sides[family].ask_again()
        if families:
            self._observe(self._moment(self._last))
        self._count_pods(self._last)

    def _count_pods(self, last: Observation) -> None:
        begun = time.thread_time()
        if time.monotonic() < self._count_at:
            return
        for side in self._sides.values():
            if side.count(last.ruleset):
                self.reporter.partly(side, self._clock.now())
        self._count_at = time.monotonic() + _COUNT_SHARE * (time.thread_time() - begun)

    def _decide_again(self, side: Side, now: float) -> None:
        decision = side.again(now, self._stated)
        if decision.again is not None:
            self._due[side.family] = max(decision.again, now + 0.01)
        if decision.action == "keep" or self._last is None:
            return
        self._stand(None)
        # what the same rules come to depends on what is guarded: a gap that was followed is over
        moment = self._moment(self._last)
        self._tell(side, side.judge(moment, decision), moment)
        self.reporter.state(self._sides, self._standing)

    def _moment(self, last: Observation) -> Observation:
        """The same rules, now: nobody wrote anything."""
        now = self._clock.now()
        return replace(last, t=now, before=now, writer=None, lost=False, own=False)

    def _look(self, t: int) -> None:
        for side in self._sides.values():
            if side.open or not side.whole:
                side.meter.disturb(t)
            self._count(side, t)
            self.reporter.goes_on(side, t)
            self.reporter.quiet(side)
        self._stand(None)
        self.reporter.state(self._sides, self._standing)

    def _count(self, side: Side, t: int) -> None:
        """Read the counters, and act on what they say."""
        if self._standing is None:
            return
        counts = self._standing.counters(side.family)
        if "carried" not in counts or "leaked" not in counts:  # no table, or not yet: nothing can be concluded
            side.meter.disturb(t)
            return
        carried, leaked = counts["carried"].packets, counts["leaked"].packets
        moved = side.meter.sample(t, carried, leaked)
        self.reporter.moved(side.family, moved)
        if moved.leaked:
            self._heal(side.family, "leak", moved.leaked)
        if moved.wrongly and not side.withdrawn:
            reason = Reason(Code.CONTRADICTED, flows=moved.wrongly)
            side.withdraw(reason)
            self._stand(None)
            self.reporter.withdrawn(side, reason, t)

    def _named(self, words: str) -> str:
        return ipsets.named(words, self._namespace)

    def _stated(self) -> statements.Statement | None:
        primary = self.settings.primary
        return statements.read(primary.subnet_files, primary.processes, self._spoken, self._namespace)

    # --- healing

    def _heal_later(self, family: Family) -> None:
        now = time.monotonic()
        self._heals |= {(now + wait, family) for wait in (0.0, *_AGAIN)}

    def _heal(self, family: Family, after: str, packets: int = 0) -> None:
        """Free what is poisoned (``--observe``: list it). ``packets``: leaked ones that led here."""
        side = self._sides[family]
        standby = side.decider.installed
        if self._healer is None or standby is None:
            return
        begin = self._clock.now()
        dry = self._standing is None or side.withdrawn is not None
        try:
            freed = self._healer.heal(standby, dry=dry)
        except HitlessError as error:
            self._log.warning("cannot look for poisoned flows", family=family.value, reason=str(error))
            return
        if after != "again" and (freed.count or packets or after == "gap"):
            now = time.monotonic()
            self._heals |= {(now + wait, family) for wait in _AGAIN}
        self._freed[family] = self._freed.get(family, 0) + (0 if dry else freed.count)
        if packets and not freed.count and self.reporter.lists(family, begin):
            freed.flows += self._healer.untranslated(standby)
        self.reporter.freed(family, freed, after, begin, packets, dry=dry)
