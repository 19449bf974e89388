"""The watch: every committed change of the rules that carry egress, as events.

Problem: ``watch iptables -L`` on an idle machine sees less than half of the gaps of an agent's restart (the shorter,
the fewer), and never who made them. Promise: ``Watch.events`` yields a ``Header``, the state of each pod network, then
what happens: changes with their writers, states, gaps, lost events, a heartbeat that measures the watch itself, and a
``Summary`` at the end, however it ends. Answers come from the evaluator, and only when a chain changed that took part
in the last answer. What is mirrored is compared with the kernel now and then; a difference is said and mended. Next
stages: ``hitless.cli.watch``, ``drill``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from hitless import __version__
from hitless.errors import InputError
from hitless.kernel import machine
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.model.events import Change, Event, Header, LostEvents, Note, Summary
from hitless.model.families import Backend, Family, Network, family_of
from hitless.model.headers import PacketHeader
from hitless.observe import LiveNode
from hitless.semantics import HOOKS
from hitless.watch.feeds import Changed, Feed, Step
from hitless.watch.interest import interest
from hitless.watch.networks import Networks, better
from hitless.watch.ports import FeedPort, MachineTime, World
from hitless.watch.profiles import Profile
from hitless.watch.pulse import TOOL, Pulse, Totals, Urgency
from hitless.watch.standbys import Standbys

__all__ = ["Options", "Watch"]

_VERIFY_S = 10.0
_VERIFY_SHARE = 300  # and at least so many times what the last comparison took: a third of a per cent of a core
_COUNT_SHARE = 100
"""After all pods were asked about, so many times as long goes by until they are again: a per cent of a core."""
_LAST_S = 5.0  # waiting for the last commits, and as much work on a backlog of thousands; a stop is neither
_LAST_WAITS = 10
_HOOKS = frozenset(HOOKS)
"""Where a pod's packet on its way out is decided upon."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to watch. ``networks`` empty: those of the profile, else those that the rules name; ``backends`` and
    ``families`` empty: those of the profile; ``uplink`` empty: the profile's, else as the routes say. ``heartbeat_s``
    0: none. ``all_changes``: also those that matter to no packet. ``duration_s`` ``None``: until ``stop``. ``urgent``:
    ask for a real-time priority."""

    profile: Profile
    namespace: Namespace = HERE
    networks: tuple[Network, ...] = ()
    uplink: str = ""
    backends: frozenset[Backend] = frozenset()
    families: tuple[Family, ...] = ()
    heartbeat_s: float = 1.0
    verify_s: float = _VERIFY_S
    duration_s: float | None = None
    all_changes: bool = False
    receive_buffer: int = 8 << 20
    urgent: bool = True


class Watch:
    """A context manager. ``events`` may be iterated once; ``stop`` ends it from a signal handler or another thread.

    Opening raises ``MissingError`` without permission, ``InputError`` when the options contradict each other.
    """

    def __init__(self, options: Options, clock: Clock | None = None, *, world: World | None = None) -> None:
        """``world``: another one than this machine's."""
        profile = options.profile
        self.options = options
        self.clock = clock or Clock.from_environment()
        self.families = options.families or profile.families
        self.backends = options.backends or profile.backends
        named = options.networks or tuple(each for each in profile.networks if family_of(each) in self.families)
        for network in named:
            if family_of(network) not in self.families:
                raise InputError(f"{network} is of a family that is not watched", where="--network")
        world = world or self._machine()
        self._feed, self._time = world.feed, world.time
        self._networks = Networks(profile, self.families, world.node, self._time.monotonic)
        self._named = bool(named)
        self._standbys = Standbys(self.families, options.namespace)
        self._totals = Totals()
        self._count_at = 0.0
        self._stopping = False
        self._feed.towards = self._headers
        try:
            for network in named:
                self._networks.add(network)
        except BaseException:
            self.close()
            raise

    def _machine(self) -> World:
        options = self.options
        feed = Feed(
            options.namespace,
            self.families,
            self.backends,
            clock=self.clock,
            interest=interest(options.profile),
            receive_buffer=options.receive_buffer,
            urgent=options.urgent,
        )
        try:
            uplink = options.uplink or options.profile.uplink
            return World(feed, LiveNode(options.namespace, self.families, uplink=uplink), MachineTime())
        except BaseException:
            feed.close()
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End watching."""
        self._feed.close()
        self._networks.close()

    def stop(self) -> None:
        """End ``events`` with its summary."""
        self._stopping = True
        self._feed.wake()

    def once(self) -> Iterator[Event]:
        """How things stand now, as a whole stream: Header, the state of each pod network, Summary."""
        yield from self._opening()
        now = self.clock.now()
        yield from self._standbys.finish(now)
        yield _summary(now, self._networks, self._totals)

    # --- the stream ----------------------------------------------------------------------------------------------

    def events(self) -> Iterator[Event]:
        """Header, what happens, Summary."""
        begin = self._time.monotonic()
        urgency = Urgency(self.options.urgent)
        yield from self._opening()
        end = None if self.options.duration_s is None else begin + self.options.duration_s
        pulse = Pulse(self.options.heartbeat_s, self._time.monotonic)
        verify_at = begin + self.options.verify_s
        while not self._stopping:
            now_s = self._time.monotonic()
            if end is not None and now_s >= end:
                break
            due = min(pulse.due, verify_at, end if end is not None else pulse.due)
            urgency.fit(self._feed.backlog)
            step = self._feed.next(max(0.0, due - now_s))
            if step is not None:
                yield from self._step(step)
            now_s = self._time.monotonic()
            if now_s >= pulse.due:
                yield from self._beat(pulse, now_s)
            if now_s >= verify_at:
                begun = self._time.worked()  # a stop of this process, or of the reader, is no work
                yield from self._verify()
                verify_at = now_s + max(self.options.verify_s, _VERIFY_SHARE * (self._time.worked() - begun))
        urgency.end()
        yield from self._finish()

    def _opening(self) -> Iterator[Event]:
        now = self.clock.now()
        found = list(self._find_networks(now))
        self._networks.settle(self._feed.current)
        yield _header(now, self, self._feed, self._networks, named=self._named)
        yield from found
        if not any(self._networks):
            yield Note(t=now, level="warning", text=self._networks.unknown())
        if fits := better(self._feed.current, self.options.profile):
            yield Note(t=now, level="warning", text=fits)
        yield from self._judge(self.clock.now(), None, self._feed.generation, whole=True)

    def _find_networks(self, t: int) -> Iterator[Note]:
        """Take up the pod networks that the rules name, in families that have none yet."""
        if not self._named:
            for network, chain in self._networks.find(self._feed.current):
                yield Note(t=t, level="info", text=f"pod network {network}, as the rules of {chain} say")

    def _finish(self) -> Iterator[Event]:
        # what was committed before the end belongs to the record, however late this process is run
        self._feed.finish()
        waits, worked = _LAST_WAITS, self._time.worked()
        while (behind := self._feed.behind) and waits and self._time.worked() - worked < _LAST_S:
            step = self._feed.next(_LAST_S / _LAST_WAITS)
            if step is None:
                waits -= 1
            else:
                yield from self._step(step)
        now = self.clock.now()
        self._totals.late(self._feed.take_lag())
        if behind:
            self._totals.lost_events += 1
            yield LostEvents(t=now, resynced=now, detail=f"the last commits did not come within {_LAST_S:.0f} s")
        for watched in self._networks:
            yield from watched.tracker.finish(now)
        yield from self._standbys.finish(now)
        yield _summary(now, self._networks, self._totals)

    def _step(self, step: Step) -> Iterator[Event]:
        self._totals.commits += 1
        if step.changes is None:
            yield from self._resynced(step)
            relevant = True
        else:
            relevant = False
            for change in step.changes:
                matters = self._matters(change)
                relevant = relevant or matters
                if matters or self.options.all_changes or self._of_interest(change):
                    self._totals.changes += 1
                    yield from _changes(step, change, self.families, matters=matters)
        if relevant:
            self._totals.relevant += 1
        else:
            self._totals.foreign += 1
        if not self._named and (step.changes is None or any(self._of_interest(change) for change in step.changes)):
            fresh = list(self._find_networks(step.t))
            yield from fresh
            relevant = relevant or bool(fresh)
        if relevant:
            yield from self._judge(step.t, step, step.generation)
        self._totals.late(max(self._feed.take_lag(), self.clock.now() - step.t))

    def _resynced(self, step: Step) -> Iterator[Event]:
        if step.lost:
            self._totals.lost_events += 1
            yield LostEvents(t=step.noticed, resynced=step.t, detail=step.reason)
            return
        self._totals.resyncs += 1
        yield Note(t=step.t, level="info", text=f"everything was read again: {step.reason}")

    def _matters(self, change: Changed) -> bool:
        """Whether it touched what some answer was made of."""
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

    def _of_interest(self, change: Changed) -> bool:
        return bool(self.options.profile.of_interest(change.table) & change.chains)

    def _judge(self, t: int, step: Step | None, generation: int, *, whole: bool = False) -> list[Event]:
        """What the rules of now come to; ``whole``: also of how many pods, where that is not known of these rules."""
        ruleset = self._feed.current
        self._networks.settle(ruleset)
        events: list[Event] = list(self._standbys.seen(t, ruleset))
        writer = step.writer if step is not None else None
        for watched in self._networks:
            if whole and watched.counted:
                continue
            answer = watched.judge.count(ruleset) if whole else watched.judge.answer(ruleset)
            watched.take(answer)
            self._totals.evaluations += 1
            events += watched.tracker.observe(t, answer, writer, generation)
            events += self._standbys.judge(t, watched, answer, ruleset, writer)
        self._feed.follow = self._followed()
        return events

    def _count(self, now_s: float) -> Iterator[Event]:
        """Of how many pods it is so: told soon after a change, and not while one is judged."""
        if now_s >= self._count_at and not all(watched.counted for watched in self._networks):
            begun = self._time.worked()
            yield from self._judge(self.clock.now(), None, self._feed.generation, whole=True)
            self._count_at = now_s + _COUNT_SHARE * (self._time.worked() - begun)

    def _headers(self) -> Iterator[PacketHeader]:
        """What the packets that are asked about, and the answers to them, have in their headers."""
        for each in self._networks:
            yield from each.judge.whom.headers

    def _followed(self) -> frozenset[tuple[str, str, str]]:
        """What is compared with the kernel: chains that took part in an answer, and those of the profile."""
        found = {chain for each in self._networks for chain in each.chains}
        for table in self.options.profile.tables:
            found |= {(family.nft, table.name, chain) for family in self.families for chain in table.chains}
        return frozenset(found)

    def _beat(self, pulse: Pulse, now_s: float) -> Iterator[Event]:
        step = self._feed.find_legacy()
        if step is not None:
            yield from self._step(step)
        # members of ipsets and facts of the node change without an event of nf_tables
        if self._networks.refresh() or self._feed.surroundings.refresh():
            yield from self._judge(self.clock.now(), None, self._feed.generation)
        yield from self._count(now_s)
        self._totals.late(self._feed.take_lag())
        beat = pulse.beat(now_s, self.clock.now(), self._totals)
        if beat is not None:
            yield beat

    def _verify(self) -> Iterator[Event]:
        step = self._feed.verify(self._followed())
        self._totals.verified += 1
        if step is not None:
            yield Note(t=self.clock.now(), level="warning", text=step.reason)
            yield from self._step(step)


def _summary(now: int, networks: Networks, totals: Totals) -> Summary:
    trackers = [watched.tracker for watched in networks]
    return Summary(
        t=now,
        tool=TOOL,
        totals={
            "commits": totals.commits,
            "changes": totals.changes,
            "relevant": totals.relevant,
            "evaluations": totals.evaluations,
            "gaps": sum(tracker.gaps for tracker in trackers),
            "gap_ns": sum(tracker.gap_ns for tracker in trackers),
            "longest_gap_ns": max((tracker.longest_ns for tracker in trackers), default=0),
            "lost_events": totals.lost_events,
            "resyncs": totals.resyncs,
            "verified": totals.verified,
            "max_lag_ns": totals.max_lag_ns,
            "cpu_ns": time.process_time_ns(),
        },
    )


def _changes(step: Step, change: Changed, families: Sequence[Family], *, matters: bool) -> Iterator[Change]:
    concerned = families if change.family == "inet" else (_family(change.family),)
    for family in concerned:
        yield Change(
            t=step.t,
            family=family.value,
            backend=change.backend.value,
            table=change.table,
            writer=step.writer,
            generation=step.generation,
            added=change.added,
            removed=change.removed,
            summary=change.summary,
            relevant=matters,
        )


def _header(now: int, watch: Watch, feed: FeedPort, networks: Networks, *, named: bool) -> Header:
    options = watch.options
    config = {
        "profile": options.profile.name,
        "families": [family.value for family in watch.families],
        "backends": sorted(backend.value for backend in watch.backends),
        "legacy_tables": feed.legacy,
        "networks": [str(watched.network) for watched in networks],
        "networks_from": ("option" if options.networks else "profile") if named else "rules",
        "namespace": options.namespace.name,
        "witnesses": {str(each.network): each.judge.whom.witnesses for each in networks},
        "interfaces": {str(each.network): each.judge.whom.interfaces for each in networks},
        "pods": {str(each.network): len(each.judge.whom.pods) for each in networks},
    }
    return Header(t=now, tool=TOOL, version=__version__, pid=os.getpid(), config=config, machine=machine.kernel())


def _family(word: str) -> Family:
    return Family.IPV4 if word == "ip" else Family.IPV6
