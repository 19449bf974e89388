"""The prober: lanes, schedules, kinds and books, turned by one loop.

Problem: to see a gap of 50 ms in the traffic of a pod, new flows must begin all the time, at a rate that does not
depend on their answers, and the measure must know its own limits. Promise: attempts begin at t0 + i / rate, on one
core; what the prober could not do (late, out of 5-tuples, out of descriptors) is skipped and counted, each second with
its lag and CPU time; memory, descriptors and knocking flows are bounded. On ``stop``, ``duration`` or ``count`` it
begins nothing more, waits for what is open, and writes the Summary. It never resolves a name and never enters a
namespace. Next stage: the events, merged by ``hitless.drill``, judged by ``hitless.evidence``.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, Protocol

from hitless import __version__
from hitless.errors import InputError
from hitless.kernel.clock import Clock
from hitless.model.events import Event, Header, Heartbeat, Summary
from hitless.model.families import Family
from hitless.probe import icmp
from hitless.probe.accounting import INTERVAL_NS
from hitless.probe.datagrams import Datagrams, Udp
from hitless.probe.engine import Engine
from hitless.probe.flows import Flow, Lane, NoTuple
from hitless.probe.http import Http
from hitless.probe.outcomes import KNOCK_FOR_NS, Outcomes
from hitless.probe.schedule import Schedule, interleave
from hitless.probe.streams import Streams
from hitless.probe.targets import Endpoint, Kind
from hitless.probe.tcp import Tcp
from hitless.probe.tuples import Tuples, fastest

__all__ = ["DEFAULT_MIX", "DEFAULT_RATE", "POLITE_RATE", "Options", "Prober"]

DEFAULT_RATE = 1000.0
"""New flows per second to our own far end: a gap of 10 ms meets ten of them."""

POLITE_RATE = 10.0
"""New flows per second to anybody else's address, unless asked otherwise."""

DEFAULT_MIX: Mapping[str, int] = {"tcp": 60, "udp": 30, "icmp": 9, "http": 1}

_SECOND = 1_000_000_000
_KNOCK_NS = 200_000_000
_SHORTEST_DOZE_NS = 20_000_000
_SPARE_DESCRIPTORS = 128  # for streams, raw sockets, output, and what Python itself opens


@dataclass(frozen=True, slots=True)
class Options:
    """What to do. Rates are new flows per second; ``other_rate`` is for targets that are not our far end.

    ``mix`` weighs the kinds (default: ``DEFAULT_MIX`` to a far end, all alike to others); ``control`` is probed beside,
    at ``POLITE_RATE``, and its outcomes are kept apart.
    """

    endpoints: tuple[Endpoint, ...]
    rate: float = DEFAULT_RATE
    other_rate: float = POLITE_RATE
    mix: Mapping[str, int] | None = None
    timeout_ns: int = 2_500_000_000
    duration_ns: int | None = None
    count: int | None = None
    streams: int = 0
    sources: Mapping[Family, str] = field(default_factory=dict)
    interface: str = ""
    knockers: int = 64
    control: tuple[Endpoint, ...] = ()
    insecure: bool = False


class _Kind(Protocol):
    def start(self, lane: Lane, planned: int) -> None: ...

    def knock(self, flow: Flow) -> None: ...

    def give_up(self, flow: Flow) -> None: ...


@dataclass(slots=True)
class _Track:
    """One schedule and the lanes that take turns in it."""

    schedule: Schedule
    turns: Iterator[str]
    lanes: Mapping[str, Iterator[Lane]]
    counted: bool

    def lane(self) -> Lane:
        """Whose turn it is."""
        return next(self.lanes[next(self.turns)])


class Prober:
    """One run. ``emit`` takes each event; ``flush`` is called every 100 ms."""

    def __init__(
        self,
        options: Options,
        emit: Callable[[Event], None],
        *,
        clock: Clock,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._emit = emit
        self._flush = flush
        self._engine = Engine(clock, max(_SHORTEST_DOZE_NS, options.timeout_ns // 10))
        self._outcomes = Outcomes(self._engine, emit, options.timeout_ns, options.knockers)
        self._stopping = False
        self._hurry = False
        self._limit = _raise_descriptor_limit() - _SPARE_DESCRIPTORS - options.knockers - options.streams
        self._kinds: dict[tuple[Kind, Family], _Kind] = {}
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._engine.close)
        self._lanes: list[Lane] = []
        self._tracks: list[_Track] = []
        self._beat_at = self._tick_at = self._knock_at = self._began = 0
        self._cpu = self._cpu_began = self._max_lag = 0
        self._streams: Streams | None = None

    def stop(self) -> None:
        """Begin nothing more and end; called again: end without waiting. Safe in a signal handler."""
        self._hurry = self._stopping
        self._stopping = True

    def run(self, config: Mapping[str, Any] | None = None) -> dict[str, int]:
        """Probe until stopped, and return the totals; ``config`` goes into the stream's header."""
        engine, options = self._engine, self._options
        with self._closing:
            remarks = self._prepare()
            now = engine.clock.now()
            self._emit(Header(t=now, tool="probe", version=__version__, pid=os.getpid(), config=dict(config or {})))
            for remark in remarks:
                self._outcomes.note("warning", remark)
            self._began = now = engine.clock.now()
            engine.turn(now)  # what the preparation took is no lag of the run
            engine.lag()
            self._begin(engine.clock.now())
            end = None if options.duration_ns is None else self._began + options.duration_ns
            while not self._stopping and not self._done():
                if end is not None and engine.now >= end:
                    break
                self._turn(end)
                self._send()
            self._drain()
            return self._finish()

    # --- before ------------------------------------------------------------------------------------------------

    def _prepare(self) -> list[str]:
        """Make lanes and kinds; returns what people should know beforehand. Raises what is wrong with the options."""
        options = self._options
        ours = [end for end in options.endpoints if end.target.scheme == "farend" and end.kind != "stream"]
        others = [end for end in options.endpoints if end.target.scheme != "farend"]
        mix = DEFAULT_MIX if options.mix is None else options.mix
        ours = [end for end in ours if mix.get(end.kind, 0) > 0]
        if not ours and not others and not options.streams:
            raise InputError(
                "leaves nothing to do for these targets", where="--mix", expected="a kind that --to offers"
            )
        streams = [end for end in options.endpoints if end.kind == "stream"]
        if options.streams and not streams:
            raise InputError("only a far end has streams", where="--streams", expected="a --to farend://…")
        pairs = {(end.kind, end.family) for end in (*ours, *others) if end.kind != "http"}
        self._outcomes.share_knockers(len(pairs))
        remarks: list[str] = []
        if ours:
            remarks += self._add_track(ours, options.rate, {kind: mix[kind] for kind in {end.kind for end in ours}})
        if others:
            asked = options.mix or {}  # a target that was named is probed, whatever the mix leaves out
            remarks += self._add_track(
                others, options.other_rate, {end.kind: asked.get(end.kind, 1) or 1 for end in others}
            )
        if options.control:
            kinds = {end.kind for end in options.control}
            remarks += self._add_track(options.control, POLITE_RATE, dict.fromkeys(kinds, 1), control=True)
        if options.streams:
            lanes = [self._lane(end) for end in streams]
            self._streams = Streams(self._engine, self._outcomes, lanes, options.streams)
        return remarks

    def _add_track(
        self, endpoints: Sequence[Endpoint], rate: float, weights: Mapping[str, int], *, control: bool = False
    ) -> list[str]:
        remarks: list[str] = []
        lanes: dict[str, list[Lane]] = {kind: [] for kind in weights}
        for end in endpoints:
            lanes[end.kind].append(self._lane(end, control=control))
        for kind, group in lanes.items():
            share = rate * weights[kind] / sum(weights.values()) / len(group)
            slots = fastest(len(group[0].endpoint.ports)) if kind != "icmp" else 65535 / 130
            if share > slots:
                remarks.append(
                    f"{share:.0f} {kind} flows per second to {group[0].endpoint.address} are more than its 5-tuples "
                    f"allow ({slots:.0f}/s with none used twice in 130 s): the rest will be skipped; give more targets"
                )
        self._tracks.append(
            _Track(
                Schedule(0, rate, None if control else self._options.count),
                cycle(interleave(weights)),
                {kind: cycle(group) for kind, group in lanes.items()},
                counted=not control,
            )
        )
        return remarks

    def _lane(self, end: Endpoint, *, control: bool = False) -> Lane:
        options = self._options
        start = int.from_bytes(os.urandom(4), "big")  # so that a second run soon after uses other 5-tuples
        tuples = (
            Tuples((0,), first=1, last=65535, start=start) if end.kind == "icmp" else Tuples(end.ports, start=start)
        )
        lane = Lane(
            end, tuples, source=options.sources.get(end.family, ""), interface=options.interface, control=control
        )
        if end.kind != "stream" and (end.kind, end.family) not in self._kinds:
            self._kinds[end.kind, end.family] = self._kind(end.kind, end.family)
        self._lanes.append(lane)
        return lane

    def _kind(self, kind: Kind, family: Family) -> _Kind:
        engine, outcomes = self._engine, self._outcomes
        if kind == "tcp":
            return Tcp(engine, outcomes)
        if kind == "udp":
            return Datagrams(engine, outcomes, Udp())
        if kind == "icmp":
            if icmp.way(family) == "ping":
                return Datagrams(engine, outcomes, icmp.PingAsking(family))
            raw = icmp.RawIcmp(engine, outcomes, family, self._options.interface)
            self._closing.callback(raw.close)
            return raw
        return Http(engine, outcomes, insecure=self._options.insecure)

    def _begin(self, now: int) -> None:
        for track in self._tracks:
            track.schedule.begin_at(now)
        self._beat_at = now + _SECOND
        self._tick_at = now + INTERVAL_NS
        self._knock_at = now + _KNOCK_NS
        self._cpu = self._cpu_began = time.process_time_ns()
        if self._streams is not None:
            self._streams.next_at = now

    def _done(self) -> bool:
        """Whether ``count`` is reached; without new flows to make, streams alone go on until stopped."""
        counted = [track.schedule for track in self._tracks if track.counted]
        return bool(counted) and all(schedule.next_at is None for schedule in counted)

    # --- during ------------------------------------------------------------------------------------------------

    def _turn(self, end: int | None) -> None:
        wake = min(self._tick_at, self._beat_at)
        if end is not None:
            wake = min(wake, end)
        if not self._stopping:
            for track in self._tracks:
                if track.schedule.next_at is not None:
                    wake = min(wake, track.schedule.next_at)
            if self._streams is not None:
                wake = min(wake, self._streams.next_at)
        self._engine.turn(wake)
        now = self._engine.now
        if self._streams is not None and not self._stopping and now >= self._streams.next_at:
            self._streams.tick()
        if now >= self._tick_at:
            self._write_buckets(now)
            self._flush()
            self._tick_at += INTERVAL_NS * (1 + (now - self._tick_at) // INTERVAL_NS)
        if now >= self._knock_at:
            self._knock(now)
            self._knock_at += _KNOCK_NS * (1 + (now - self._knock_at) // _KNOCK_NS)
        if now >= self._beat_at:
            self._beat(now)

    def _send(self) -> None:
        engine, outcomes = self._engine, self._outcomes
        for track in self._tracks:
            schedule = track.schedule
            while (planned := schedule.take(engine.now)) is not None:
                lane = track.lane()
                if engine.watched >= self._limit:
                    outcomes.skipped("skipped_descriptors")
                    continue
                try:
                    self._kinds[lane.kind, lane.family].start(lane, planned)
                except NoTuple as why:
                    outcomes.skipped(str(why))

    def _knock(self, now: int) -> None:
        for flow in list(self._outcomes.knocking):
            kind = self._kinds[flow.lane.kind, flow.lane.family]
            if now - flow.begin > KNOCK_FOR_NS:
                kind.give_up(flow)
            else:
                kind.knock(flow)

    def _beat(self, now: int) -> None:
        for lane in self._lanes:
            if not lane.source:
                lane.find_source()
        cpu, lag = time.process_time_ns(), self._engine.lag()
        self._max_lag = max(self._max_lag, lag)
        self._emit(
            Heartbeat(
                t=now,
                tool="probe",
                interval_ns=now - self._beat_at + _SECOND,
                max_lag_ns=lag,
                cpu_ns=cpu - self._cpu,
                detail=f"{self._outcomes.ledger.open} open, {self._skipped()} skipped so far, "
                f"{len(self._outcomes.knocking)} knocking",
            )
        )
        self._cpu = cpu
        self._beat_at = now + _SECOND

    def _write_buckets(self, now: int) -> None:
        for ledger in (self._outcomes.ledger, self._outcomes.control):
            for bucket in ledger.harvest(now):
                self._emit(bucket)

    def _skipped(self) -> int:
        late = sum(track.schedule.skipped for track in self._tracks)
        return late + sum(count for name, count in self._outcomes.totals.items() if name.startswith("skipped_"))

    # --- after -------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        self._stopping = True
        if self._streams is not None:
            self._streams.close()
        while self._outcomes.ledger.open and not self._hurry:
            self._turn(None)

    def _finish(self) -> dict[str, int]:
        engine, outcomes = self._engine, self._outcomes
        if self._streams is not None:
            self._streams.close()
        for flow in list(outcomes.knocking):
            self._kinds[flow.lane.kind, flow.lane.family].give_up(flow)
        now = engine.clock.now()
        self._write_buckets(now + INTERVAL_NS)
        self._beat(now)
        totals = dict(outcomes.totals)
        totals["skipped_late"] = sum(track.schedule.skipped for track in self._tracks)
        totals["abandoned"] = outcomes.ledger.open
        totals["control_sent"], totals["control_lost"] = outcomes.control.sent(), outcomes.control.lost()
        totals["sent"] = outcomes.ledger.sent()
        totals["slept_ns"] = engine.asleep
        totals["duration_ns"] = now - self._began
        totals["cpu_ns"] = time.process_time_ns() - self._cpu_began
        totals["max_lag_ns"] = self._max_lag
        self._remarks(totals)
        self._emit(Summary(t=now, tool="probe", totals=totals))
        self._flush()
        return totals

    def _remarks(self, totals: Mapping[str, int]) -> None:
        """What a reader of the totals might otherwise puzzle over."""
        note = self._outcomes.note
        asked = [end.target for end in self._options.endpoints if end.target.scheme == "udp"]
        if asked and not totals.get("udp_ok"):
            note("warning", f"nothing answered at {asked[0]}: udp:// needs a hitless far end there")
        if totals.get("untranslated"):
            note(
                "info", f"{totals['untranslated']} answers name our own address: nothing translates on this path (yet)"
            )


def _raise_descriptor_limit() -> int:
    """Raise the soft limit of descriptors to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
