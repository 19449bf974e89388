"""The prober: lanes, schedules, clients and counters, driven by one loop.

Problem: to see a gap of 50 ms in a pod's traffic, new flows must begin all the time, at a rate that does not depend on
their answers, and the prober must know its own limits. Promise: attempts begin at t0 + i / rate, on one core; attempts
that cannot be made (late, no 5-tuple, no descriptor) are skipped and counted, each second, with lag and CPU time;
memory, descriptors and watched flows are bounded. After ``stop``, ``duration`` or ``count`` it begins nothing more,
waits for open attempts, and writes the Summary. It resolves no names and enters no namespace. Next stage: the events
are merged by ``hitless.drill`` and judged by ``hitless.evidence``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from hitless import __version__
from hitless.kernel import machine
from hitless.kernel.clock import Clock
from hitless.kernel.cpu_priority import given_back
from hitless.kernel.visitors import raise_descriptor_limit
from hitless.model.events import Event, Header, Heartbeat, Note, Summary
from hitless.probe.accounting import INTERVAL_NS
from hitless.probe.engine import Engine
from hitless.probe.flows import NoTuple
from hitless.probe.options import ProbeOptions
from hitless.probe.outcomes import KNOCK_FOR_NS, Outcomes
from hitless.probe.traffic import Traffic

__all__ = ["Prober"]

_SECOND = 1_000_000_000
_KNOCK_NS = 200_000_000
_LEAST_SLEEP_NS = 20_000_000
_SPARE_DESCRIPTORS = 128  # for streams, raw sockets, output, and what Python itself opens


class Prober:
    """One run. ``emit`` takes each event; ``flush`` is called every 100 ms."""

    def __init__(
        self,
        options: ProbeOptions,
        emit: Callable[[Event], None],
        *,
        clock: Clock,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._emit = emit
        self._flush = flush
        self._engine = Engine(clock, max(_LEAST_SLEEP_NS, options.timeout_ns // 10))
        self._outcomes = Outcomes(self._engine, emit, options.timeout_ns, options.knockers)
        self._stopping = False
        self._hurry = False
        self._limit = raise_descriptor_limit() - _SPARE_DESCRIPTORS - options.knockers - options.streams
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._engine.close)
        # raises for options that cannot work; ``run`` closes the descriptors that it opens
        self._traffic = Traffic(options, self._engine, self._outcomes)
        self._closing.callback(self._traffic.close)
        self._beat_at = self._tick_at = self._knock_at = self._began = 0
        self._cpu = self._cpu_began = self._max_lag = 0
        self._warned = False

    def stop(self) -> None:
        """Begin nothing more, and end; a second call ends without waiting. Safe in a signal handler."""
        self._hurry = self._stopping
        self._stopping = True

    def run(self, config: Mapping[str, Any] | None = None) -> dict[str, int]:
        """Probe until stopped, and return the totals; ``config`` goes into the stream's header."""
        engine, options = self._engine, self._options
        with self._closing:
            now = engine.clock.now()
            given, here = dict(config or {}), machine.kernel()
            self._emit(Header(t=now, tool="probe", version=__version__, pid=os.getpid(), config=given, machine=here))
            for remark in self._traffic.remarks:
                self._outcomes.note("warning", remark)
            engine.turn(engine.clock.now())  # the time of the preparation is not a lag of the run
            engine.lag()
            self._begin(engine.clock.now())
            end = None if options.duration_ns is None else self._began + options.duration_ns
            while not self._stopping and not self._traffic.done:
                if end is not None and engine.now >= end:
                    break
                self._turn(end)
                self._send()
            self._drain()
            return self._finish()

    def _begin(self, now: int) -> None:
        self._traffic.begin(now)
        self._began = now
        self._beat_at = now + _SECOND
        self._tick_at = now + INTERVAL_NS
        self._knock_at = now + _KNOCK_NS
        self._cpu = self._cpu_began = time.process_time_ns()

    # --- during ------------------------------------------------------------------------------------------------

    def _turn(self, end: int | None) -> None:
        wake = min(self._tick_at, self._beat_at)
        if end is not None:
            wake = min(wake, end)
        if not self._stopping:
            for track in self._traffic.tracks:
                if track.schedule.next_at is not None:
                    wake = min(wake, track.schedule.next_at)
            if self._traffic.streams is not None:
                wake = min(wake, self._traffic.streams.next_at)
        self._engine.turn(wake)
        now = self._engine.now
        if self._traffic.streams is not None and not self._stopping and now >= self._traffic.streams.next_at:
            self._traffic.streams.tick()
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
        for track in self._traffic.tracks:
            schedule = track.schedule
            while (planned := schedule.take(engine.now)) is not None:
                lane = track.lane()
                if engine.watched >= self._limit:
                    outcomes.skipped("skipped_descriptors", control=lane.control)
                    continue
                try:
                    self._traffic.kind(lane).start(lane, planned)
                except NoTuple as why:
                    outcomes.skipped(str(why), control=lane.control)

    def _knock(self, now: int) -> None:
        for flow in list(self._outcomes.knocking):
            kind = self._traffic.kind(flow.lane)
            if now - flow.begin > KNOCK_FOR_NS:
                kind.give_up(flow)
            else:
                kind.knock(flow)

    def _beat(self, now: int) -> None:
        for lane in self._traffic.lanes:
            if not lane.source:
                lane.find_source()
        if (text := given_back()) and not self._warned:
            self._warned = True
            self._emit(Note(t=now, level="warning", text=text))
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
                begun=self._outcomes.ledger.begun(),
                skipped=self._skipped(),
                open=self._outcomes.ledger.open,
            )
        )
        self._cpu = cpu
        self._beat_at = now + _SECOND

    def _write_buckets(self, now: int, *, whole: bool = True) -> None:
        for ledger in (self._outcomes.ledger, self._outcomes.control):
            for bucket in ledger.harvest(now, whole=whole):
                self._emit(bucket)

    def _skipped(self) -> int:
        return self._traffic.skipped_late + sum(
            count for name, count in self._outcomes.totals.items() if name.startswith("skipped_")
        )

    # --- after -------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        self._stopping = True
        if self._traffic.streams is not None:
            self._traffic.streams.close()
        while (self._outcomes.ledger.open or self._traffic.lingering) and not self._hurry:
            self._turn(None)

    def _finish(self) -> dict[str, int]:
        engine, outcomes = self._engine, self._outcomes
        if self._traffic.streams is not None:
            self._traffic.streams.close()
        for flow in list(outcomes.knocking):
            self._traffic.kind(flow.lane).give_up(flow)
        now = engine.clock.now()
        abandoned = outcomes.ledger.open
        self._write_buckets(now + INTERVAL_NS, whole=False)
        self._beat(now)
        totals = dict(outcomes.totals)
        totals["skipped_late"] = self._traffic.skipped_late
        totals["abandoned"] = abandoned
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
        """Notes that explain the totals."""
        note = self._outcomes.note
        asked = [end for end in self._options.endpoints if end.target.scheme != "farend" and end.answers]
        for end in asked:
            if not totals.get(f"{end.kind}_ok"):
                needs = f"{end.target.scheme}:// needs a hitless far end there"
                note("warning", f"nothing answered at {end.target}: {needs}")
                break
        if totals.get("untranslated"):
            note(
                "info", f"{totals['untranslated']} answers name our own address: nothing translates on this path (yet)"
            )
