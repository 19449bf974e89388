"""The end of each attempt: counted once, written as a loss if it failed, and watched on if it was lost.

Problem: all kinds end their attempts in the same few ways, and each end must be counted exactly once. Promise: only
``begun``, ``answered``, ``failed``, ``silent`` and ``recovered`` count; a loss is written with its 5-tuple, real send
time and cause; a bounded number of lost flows keep *knocking*: they retry on their 5-tuple, so that the time until a
poisoned flow works again is measured. No sockets and no timers here. Next stage: ``emit`` takes the events, and
``hitless.evidence`` reads them.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal

from hitless.model.events import Event, Leak, Loss, Note, Recovery
from hitless.probe import causes, wire
from hitless.probe.accounting import Ledger
from hitless.probe.engine import Engine
from hitless.probe.flows import Connecting, Lane, ProbeFlow

__all__ = ["KNOCK_FOR_NS", "Outcomes"]

KNOCK_FOR_NS = 150_000_000_000
"""How long a lost flow is watched: longer than the 120 s for which an unanswered conntrack entry can live."""

_WINDOW = 10  # buckets of 100 ms around an attempt whose results are compared with it
_REMEMBERED = 600  # tenths of a second: a minute, the longest timeout
_SKIPPED = {
    "skipped_tuples": "every 5-tuple was used in the last 130 s; give more targets or a lower rate",
    "skipped_ports": "the source ports in turn are taken by other sockets",
    "skipped_descriptors": "too many are open at a time for this process's limit of descriptors (ulimit -n)",
}
_LEAKS_WRITTEN = 1000  # leaks seen by the prober are all counted, and so many are written


class Outcomes:
    """Counts the attempts of one run."""

    def __init__(self, engine: Engine, emit: Callable[[Event], None], timeout_ns: int, knockers: int) -> None:
        self.engine = engine
        self.emit = emit
        self.timeout_ns = timeout_ns
        self.ledger = Ledger()
        self.control = Ledger("control")
        self.knocking: dict[ProbeFlow, None] = {}
        self._knockers = knockers
        self._share: Counter[str] = Counter()
        self._pairs = 1
        self._translated: set[str] = set()
        self._recent: deque[tuple[int, bool]] = deque(maxlen=4096)  # (begin, ok) of the control's attempts
        self._answered: dict[int, None] = {}  # tenths of a second in which at least one attempt was answered

    @property
    def totals(self) -> Counter[str]:
        """The counters of the summary."""
        return self.ledger.totals

    def share_knockers(self, pairs: int) -> None:
        """Each of ``pairs`` (kind, family) may have an equal share of the lost flows that are watched."""
        self._pairs = max(1, pairs)

    def begun(self, lane: Lane, planned: int, begin: int) -> ProbeFlow:
        """Count an attempt whose first packet is sent at ``begin``."""
        ledger = self.control if lane.control else self.ledger
        bucket = ledger.begin(lane.kind, lane.family, begin, begin - planned)
        return ProbeFlow(lane, bucket, planned, begin, self.engine.asleep)

    def connecting(self, lane: Lane, planned: int, connecting: Connecting) -> ProbeFlow:
        """Count an attempt whose socket is connecting."""
        flow = self.begun(lane, planned, connecting.begin)
        flow.sock, flow.sport, flow.dport = connecting.sock, connecting.sport, connecting.dport
        return flow

    def skipped(self, why: str, *, control: bool = False) -> None:
        """Count a planned attempt that was not made; the first one for each reason is also a note."""
        if control:
            self.totals[f"control_{why}"] += 1
            return
        self.totals[why] += 1
        if self.totals[why] == 1:
            self.note("warning", f"attempts are skipped: {_SKIPPED.get(why, why)}")

    def answered(self, flow: ProbeFlow, *, delayed: bool = False, seen: wire.Seen | None = None) -> None:
        """The attempt was answered now; ``seen`` is the source that the far end saw."""
        flow.ended = True
        now = self.engine.clock.now()
        if flow.lane.control:
            self._recent.append((flow.begin, True))
            flow.bucket.answered(now - flow.begin, delayed=delayed)
            return
        leaked = seen is not None and self._leaked(flow, seen)
        flow.bucket.answered(now - flow.begin, delayed=delayed, leaked=leaked)
        if flow.bucket.t not in self._answered:
            self._answered[flow.bucket.t] = None
            if len(self._answered) > _REMEMBERED:
                del self._answered[next(iter(self._answered))]

    def _leaked(self, flow: ProbeFlow, seen: wire.Seen) -> bool:
        """Whether the far end saw our own address although this path translates.

        A path that never translated (no NAT between prober and far end) leaks nothing.
        """
        if seen.address != wire.plain(flow.lane.source):
            self._translated.add(flow.lane.endpoint.address)
            return False
        if flow.lane.endpoint.address not in self._translated:
            self.totals["untranslated"] += 1
            return False
        if self.totals["leaks_written"] < _LEAKS_WRITTEN:
            self.totals["leaks_written"] += 1
            self.emit(
                Leak(
                    t=flow.begin,
                    kind=flow.lane.kind,
                    family=flow.lane.family.value,
                    src=flow.lane.source,
                    sport=flow.sport,
                    dst=flow.lane.endpoint.address,
                    dport=flow.dport,
                )
            )
        return True

    def refused(self, flow: ProbeFlow, number: int, detail: str = "") -> None:
        """The attempt ended with a socket error."""
        self.failed(flow, os.strerror(number) if not detail else f"{detail}: {os.strerror(number)}", number)

    def failed(self, flow: ProbeFlow, detail: str, number: int = 0) -> None:
        """The attempt ended with an invalid answer; ``number`` is its errno if it has one."""
        if flow.ended:
            self._stop_knocking(flow, recovered=False)
            return
        self._lose(flow, causes.cause_of_errno(number), detail)

    def silent(self, flow: ProbeFlow, *, knock: bool = True) -> bool:
        """The attempt was not answered in time; returns whether the flow is watched (if its kind can)."""
        slept = self.engine.asleep - flow.slept
        ok = lost = 0
        if self._recent:
            near = [good for begin, good in self._recent if abs(begin - flow.begin) <= _WINDOW * 100_000_000]
            ok, lost = near.count(True), near.count(False)
        first = flow.begin - _WINDOW * 100_000_000
        others = sum(1 for tenth in self._answered if first <= tenth <= flow.begin)
        cause = causes.cause_of_silence(slept, self.timeout_ns, control_ok=ok, control_lost=lost, ok=others)
        detail = f"the prober slept {slept // 1_000_000} ms of it" if cause == "starved" else ""
        if cause == "timeout" and flow.hint:
            cause, detail = causes.cause_of_errno(flow.hint), os.strerror(flow.hint)
        self._lose(flow, cause, detail)
        return knock and cause != "starved" and self._may_knock(flow)

    def overflowed(self, flow: ProbeFlow) -> None:
        """The attempt was not answered, and the kernel dropped answers because we read too slowly."""
        self._lose(flow, "starved", "the receive buffer overflowed")

    def _lose(self, flow: ProbeFlow, cause: causes.Cause, detail: str) -> None:
        flow.ended = True
        flow.bucket.failed(cause)
        if flow.lane.control:
            self._recent.append((flow.begin, False))
        self.emit(
            Loss(
                t=flow.begin,
                stream=flow.bucket.ledger.stream,
                kind=flow.lane.kind,
                family=flow.lane.family.value,
                src=flow.lane.source,
                sport=flow.sport,
                dst=flow.lane.endpoint.address,
                dport=flow.dport,
                planned=flow.planned,
                end=self.engine.clock.now(),
                cause=cause,
                tries=flow.tries,
                detail=detail,
            )
        )

    def _may_knock(self, flow: ProbeFlow) -> bool:
        pair = f"{flow.lane.kind} {flow.lane.family}"
        if flow.lane.control or self._share[pair] >= max(1, self._knockers // self._pairs):
            return False
        if len(self.knocking) >= self._knockers:
            return False
        self._share[pair] += 1
        flow.knocking = True
        self.knocking[flow] = None
        return True

    def recovered(self, flow: ProbeFlow) -> None:
        """A flow that was knocking was answered."""
        self._stop_knocking(flow, recovered=True)

    def give_up(self, flow: ProbeFlow) -> None:
        """A flow that was knocking is no longer watched."""
        self._stop_knocking(flow, recovered=False)

    def _stop_knocking(self, flow: ProbeFlow, *, recovered: bool) -> None:
        if not flow.knocking:
            return
        flow.knocking = False
        del self.knocking[flow]
        self._share[f"{flow.lane.kind} {flow.lane.family}"] -= 1
        self.totals["recovered" if recovered else "not_recovered"] += 1
        now = self.engine.clock.now()
        self.emit(
            Recovery(
                t=now,
                kind=flow.lane.kind,
                family=flow.lane.family.value,
                src=flow.lane.source,
                sport=flow.sport,
                dst=flow.lane.endpoint.address,
                dport=flow.dport,
                begin=flow.begin,
                duration_ns=now - flow.begin,
                recovered=recovered,
            )
        )

    def note(self, level: Literal["info", "warning"], text: str) -> None:
        """Write a note."""
        self.emit(Note(t=self.engine.clock.now(), level=level, text=text))
