"""The loop of the watch: from committed rule sets to events.

Problem: what a commit did to the pods' packets must be known at once, also when thousands of commits concern no packet.
Promise: ``begin`` yields the header and the first states, ``turn`` waits for one commit and yields what follows from it
and from the time that has passed, ``end`` yields what is still open and the summary. Rules are evaluated only when a
chain changed that took part in the last answer. The mirrored rules are compared with the kernel's now and then; a
difference is reported, and everything is read again. Feed, node, standby tables and time are handed in (``ports``).
Next stage: ``watching`` opens the real ones.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from hitless.kernel.clock import Clock
from hitless.model.events import Event, LostEvents, Note
from hitless.model.families import Backend, Family
from hitless.model.headers import PacketHeader
from hitless.semantics import HOOKS
from hitless.watch import records
from hitless.watch.feeds import ChangedTable, Step
from hitless.watch.heartbeat import HeartbeatTimer, Totals, Urgency
from hitless.watch.networks import Networks, better
from hitless.watch.options import WatchOptions
from hitless.watch.ports import World
from hitless.watch.schedule import WatchSchedule
from hitless.watch.standbys import Standbys

__all__ = ["WatchLoop"]

_LAST_S = 5.0  # to wait for the last commits, and to work on a backlog of thousands
_LAST_WAITS = 10
_HOOKS = frozenset(HOOKS)  # whose base chains decide about a pod's packets


class WatchLoop:
    """For one thread: ``begin``, then ``turn`` until ``over``, then ``end``. ``named``: the networks are given, and are
    not to be found in the rules."""

    def __init__(
        self,
        options: WatchOptions,
        networks: Networks,
        world: World,
        clock: Clock,
        *,
        families: Sequence[Family],
        backends: Collection[Backend],
        named: bool,
    ) -> None:
        self.totals = Totals()
        self._options, self._families, self._backends, self._named = options, tuple(families), tuple(backends), named
        self._networks, self._feed, self._time, self._clock = networks, world.feed, world.time, clock
        self._standbys = Standbys(families, world.standby)
        self._urgency = Urgency(wanted=False)
        self._schedule = self._scheduled()
        self._heartbeats = HeartbeatTimer(options.heartbeat_s, self._time.monotonic)
        self._feed.towards = self._headers

    def _scheduled(self) -> WatchSchedule:
        options, now = self._options, self._time.monotonic()
        return WatchSchedule(now, verify_s=options.verify_s, duration_s=options.duration_s)

    @property
    def over(self) -> bool:
        """Whether the time to watch has passed."""
        return self._schedule.over(self._time.monotonic())

    # --- the stream

    def begin(self) -> Iterator[Event]:
        """The header, and the state of each network. The time to watch begins here."""
        self._schedule = self._scheduled()
        self._urgency = Urgency(self._options.urgent)
        yield from self._opening()
        self._heartbeats = HeartbeatTimer(self._options.heartbeat_s, self._time.monotonic)

    def once(self) -> Iterator[Event]:
        """The state of now as a whole stream: header, the state of each network, summary."""
        yield from self._opening()
        now = self._clock.now()
        yield from self._standbys.finish(now)
        yield records.summary(now, self._networks, self.totals)

    def turn(self) -> Iterator[Event]:
        """Wait for the next commit, or until something is due, and handle it."""
        patience = self._schedule.patience(self._time.monotonic(), self._heartbeats.due)
        self._urgency.fit(self._feed.backlog)
        step = self._feed.next(patience)
        if step is not None:
            yield from self._step(step)
        now = self._time.monotonic()
        if now >= self._heartbeats.due:
            yield from self._beat(now)
        if self._schedule.verifies(now):
            begun = self._time.worked()  # not the time on a clock: this process may be stopped meanwhile
            yield from self._verify()
            self._schedule.verified(now, self._time.worked() - begun)

    def end(self) -> Iterator[Event]:
        """What was committed before now, what is still open, and the summary."""
        self._urgency.end()
        self._feed.finish()
        waits, worked = _LAST_WAITS, self._time.worked()
        while (behind := self._feed.behind) and waits and self._time.worked() - worked < _LAST_S:
            step = self._feed.next(_LAST_S / _LAST_WAITS)
            if step is None:
                waits -= 1
            else:
                yield from self._step(step)
        now = self._clock.now()
        self.totals.late(self._feed.take_lag())
        if behind:
            self.totals.lost_events += 1
            yield LostEvents(t=now, resynced=now, detail=f"the last commits did not come within {_LAST_S:.0f} s")
        for watched in self._networks:
            yield from watched.tracker.finish(now)
        yield from self._standbys.finish(now)
        yield records.summary(now, self._networks, self.totals)

    def _opening(self) -> Iterator[Event]:
        now = self._clock.now()
        found = list(self._find_networks(now))
        self._networks.settle(self._feed.current)
        yield records.header(
            now, self._options, self._networks, families=self._families, backends=self._backends,
            legacy=self._feed.legacy, named=self._named,
        )  # fmt: skip
        yield from found
        if not any(self._networks):
            yield Note(t=now, level="warning", text=self._networks.unknown())
        if fits := better(self._feed.current, self._options.profile):
            yield Note(t=now, level="warning", text=fits)
        yield from self._judge(self._clock.now(), None, self._feed.generation, whole=True)

    def _find_networks(self, t: int) -> Iterator[Note]:
        """Watch the pod networks that the rules name, in families that have none yet."""
        if not self._named:
            for network, chain in self._networks.find(self._feed.current):
                yield Note(t=t, level="info", text=f"pod network {network}, as the rules of {chain} say")

    # --- a commit

    def _step(self, step: Step) -> Iterator[Event]:
        self.totals.commits += 1
        if step.changes is None:
            yield from self._resynced(step)
            relevant = True
        else:
            relevant = False
            for change in step.changes:
                matters = self._matters(change)
                relevant = relevant or matters
                if matters or self._options.all_changes or self._of_interest(change):
                    self.totals.changes += 1
                    yield from records.changes(step, change, self._families, relevant=matters)
        if relevant:
            self.totals.relevant += 1
        else:
            self.totals.foreign += 1
        if not self._named and (step.changes is None or any(self._names_networks(change) for change in step.changes)):
            new = list(self._find_networks(step.t))
            yield from new
            relevant = relevant or bool(new)
        if relevant:
            yield from self._judge(step.t, step, step.generation)
        self.totals.late(max(self._feed.take_lag(), self._clock.now() - step.t))

    def _resynced(self, step: Step) -> Iterator[Event]:
        if step.lost:
            self.totals.lost_events += 1
            yield LostEvents(t=step.noticed, resynced=step.t, detail=step.reason)
            return
        self.totals.resyncs += 1
        yield Note(t=step.t, level="info", text=f"everything was read again: {step.reason}")

    def _matters(self, change: ChangedTable) -> bool:
        """Whether it touched something that an answer was made of."""
        if change.hooks & _HOOKS:
            return True
        for watched in self._networks:
            if watched.answer is None:
                return True
            for chain in watched.chains:
                if chain[0] == change.family and chain[1] == change.table:
                    if chain[2] in change.chains:
                        return True
                    if change.sets and change.sets & self._feed.sets_used(chain):
                        return True
        return False

    def _of_interest(self, change: ChangedTable) -> bool:
        return bool(self._options.profile.of_interest(change.table) & change.chains)

    def _names_networks(self, change: ChangedTable) -> bool:
        return bool(self._options.profile.names_networks(change.table) & change.chains)

    def _judge(self, t: int, step: Step | None, generation: int, *, whole: bool = False) -> list[Event]:
        """Evaluate the current rules; ``whole``: count all pods, for networks where these rules' pods are not yet
        counted."""
        ruleset = self._feed.current
        self._networks.settle(ruleset)
        events: list[Event] = list(self._standbys.seen(t, ruleset))
        writer = step.writer if step is not None else None
        for watched in self._networks:
            if whole and watched.counted:
                continue
            answer = watched.judge.count(ruleset) if whole else watched.judge.answer(ruleset)
            watched.take(answer)
            self.totals.evaluations += 1
            events += watched.tracker.observe(t, answer, writer, generation)
            events += self._standbys.judge(t, watched, answer, ruleset, writer)
        self._feed.follow = self._followed()
        return events

    def _headers(self) -> Iterator[PacketHeader]:
        """The headers of the witness packets and of the answers to them."""
        for each in self._networks:
            yield from each.judge.witnesses.headers

    def _followed(self) -> frozenset[tuple[str, str, str]]:
        """The chains to compare with the kernel's: those that took part in an answer, and those of the profile."""
        found = {chain for each in self._networks for chain in each.chains}
        for table in self._options.profile.tables:
            found |= {(family.nft, table.name, chain) for family in self._families for chain in table.chains}
        return frozenset(found)

    # --- time

    def _beat(self, now: float) -> Iterator[Event]:
        step = self._feed.find_legacy()
        if step is not None:
            yield from self._step(step)
        # members of ipsets and facts of the node change without an event of nf_tables
        if self._networks.refresh() or self._feed.surroundings.refresh():
            yield from self._judge(self._clock.now(), None, self._feed.generation)
        yield from self._count(now)
        self.totals.late(self._feed.take_lag())
        beat = self._heartbeats.beat(now, self._clock.now(), self.totals)
        if beat is not None:
            yield beat

    def _count(self, now: float) -> Iterator[Event]:
        """How many pods are carried: counted soon after a change, and not while the change itself is evaluated."""
        if self._schedule.counts(now) and not all(watched.counted for watched in self._networks):
            begun = self._time.worked()
            yield from self._judge(self._clock.now(), None, self._feed.generation, whole=True)
            self._schedule.counted(now, self._time.worked() - begun)

    def _verify(self) -> Iterator[Event]:
        step = self._feed.verify(self._followed())
        self.totals.verified += 1
        if step is not None:
            yield Note(t=self._clock.now(), level="warning", text=step.reason)
            yield from self._step(step)
