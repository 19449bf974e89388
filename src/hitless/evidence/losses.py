"""Why each loss happened: the streams of a record joined.

Problem: the prober only sees that nothing answered; the reason stands in the other streams. Promise: each loss gets one
cause, by these rules, in this order:

1. an ``error`` of the prober's own machine stays one;
2. the far end was not alive: ``far_end_down``; or, for what it keeps open, it was full: ``far_end_full``;
3. its first packet left while the rules did not carry it (or the far end saw it un-translated): ``gap``, or
   ``poisoned`` where the flow was still un-translated or dead after the rules were back;
4. else what the prober said: ``refused``, ``timeout``, ``unreachable``, ``starved``.

A loss during which a control probe lost too is ``shared``: more than egress was down, so it proves nothing about the
agent. Never: a loss explained away; every one is counted. Next stage: ``figures``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hitless.evidence.records import Outage, Record
from hitless.model import events as e
from hitless.model.event_fields import TRANSPORTS

__all__ = ["ExplainedLoss", "Flow", "down_times", "explain", "explain_breaks", "full_times"]

TAKEN = tuple(kind for kind, transport in TRANSPORTS.items() if transport == "tcp")
"""Kinds that a far end takes connections for: those fail when it is full."""

MS = 1_000_000

SLACK = 5 * MS
"""A gap's ends are the watcher's times and a loss's begin is the prober's: they are compared with this tolerance.
Events of the nf_tables come within a millisecond; iptables-legacy is polled every few."""

STILL_DEAD = 100 * MS
"""A flow is poisoned when it was dead for at least this long after the rules were back: shorter is within a round trip
and a retry of the prober's."""

Flow = tuple[str, str, int, str, int]
"""Kind, source, source port, destination, destination port: a probe uses each for one attempt."""


@dataclass(frozen=True, slots=True)
class ExplainedLoss:
    """A loss with its cause; ``outage`` is the gap that it fell into, ``recovery`` what became of the flow."""

    loss: e.Loss
    cause: e.Cause
    outage: Outage | None = None
    recovery: e.Recovery | None = None
    leaks: int = 0
    shared: bool = False

    @property
    def blames_agent(self) -> bool:
        """Whether it counts against the agent: not the prober's, the far end's or everybody's trouble."""
        return not self.shared and self.cause not in ("starved", "error", "far_end_down", "far_end_full")

    @property
    def dead_for(self) -> int:
        """Nanoseconds for which the flow is known to have been dead, from its first packet."""
        return max(self.loss.end - self.loss.t, self.recovery.duration_ns if self.recovery else 0)


def _flow(event: e.Loss | e.Recovery | e.Leak) -> Flow:
    return (event.kind, event.src, event.sport, event.dst, event.dport)


def down_times(record: Record) -> tuple[tuple[int, int], ...]:
    """When a far end was not heard of: silences of more than three of its heartbeats, and after a death."""
    found: list[tuple[int, int]] = []
    # between pods there is a far end on each node
    for node in sorted({beat.node for beat in record.heartbeats if beat.tool == "farend"}):
        mine = (beat for beat in record.heartbeats if beat.tool == "farend" and beat.node == node)
        beats = sorted((beat.t, beat.interval_ns) for beat in mine)
        found += [(t, after) for (t, interval), (after, _) in pairwise(beats) if after - t > 3 * interval + SLACK]
        if not any(summary.tool == "farend" and summary.node == node for summary in record.summaries):
            # It died some time after its last word: what was waiting from then on proves nothing.
            found.append((beats[-1][0], record.last + 1))
    return tuple(found)


def full_times(record: Record) -> tuple[tuple[int, int], ...]:
    """When the far end closed connections because there were too many, to within one of its heartbeats."""
    beats = (beat for beat in record.heartbeats if beat.tool == "farend" and beat.full)
    return tuple((beat.t - beat.interval_ns, beat.t + 1) for beat in beats)


def _overlaps(spans: Sequence[tuple[int, int]], begin: int, end: int) -> bool:
    return any(first <= end and begin < last for first, last in spans)


def _outage_at(outages: Sequence[Outage], family: str, t: int) -> Outage | None:
    inside = [one for one in outages if one.family == family and one.begin - SLACK <= t <= one.end + SLACK]
    # Two gaps closer than the slack: the one that holds the time, else the nearest.
    return min(inside, key=lambda one: max(one.begin - t, t - one.end, 0), default=None)


def explain(record: Record) -> tuple[ExplainedLoss, ...]:
    """Every loss of the record with its cause, in the order of time."""
    outages = record.outages
    down, full = down_times(record), full_times(record)
    leaks: dict[Flow, list[int]] = defaultdict(list)
    for leak in record.leaks:
        leaks[_flow(leak)].append(leak.t)
    recoveries = {_flow(recovery): recovery for recovery in record.recoveries}
    controls = sorted((loss.t, loss.end) for loss in record.control_losses)
    return tuple(
        _explain(loss, outages, down, full, leaks.get(_flow(loss), []), recoveries.get(_flow(loss)), controls)
        for loss in record.losses
    )


def _explain(
    loss: e.Loss,
    outages: Sequence[Outage],
    down: Sequence[tuple[int, int]],
    full: Sequence[tuple[int, int]],
    leaks: Sequence[int],
    recovery: e.Recovery | None,
    controls: Sequence[tuple[int, int]],
) -> ExplainedLoss:
    if loss.cause == "error":
        return ExplainedLoss(loss, "error")
    outage = _outage_at(outages, loss.family, loss.t)
    if outage is None and not leaks and _overlaps(down, loss.t, loss.end):
        return ExplainedLoss(loss, "far_end_down")
    if outage is None and not leaks and loss.kind in TAKEN and _overlaps(full, loss.t, loss.end):
        return ExplainedLoss(loss, "far_end_full")
    if outage is not None or leaks:
        back = outage.end if outage is not None else leaks[0]
        dead = recovery is not None and loss.t + recovery.duration_ns > back + STILL_DEAD
        leaked_later = bool(leaks) and leaks[-1] > back + SLACK
        cause: e.Cause = "poisoned" if dead or leaked_later or _asked_again(loss, back) else "gap"
        return ExplainedLoss(loss, cause, outage, recovery, len(leaks))
    shared = any(begin <= loss.end and loss.t <= end for begin, end in controls)
    return ExplainedLoss(loss, loss.cause, None, recovery, 0, shared)


def _asked_again(loss: e.Loss, back: int) -> bool:
    """Whether the flow asked again when the rules were back, and had time to be answered.

    A SYN is repeated after 1 s (RFC 6298, 2.1), whatever the prober counts; datagrams as its tries say, the third at
    0.75 s. Far ends write a bounded number of leaks, and a bounded number of flows goes on knocking: this is what is
    known of all the others.
    """
    if loss.kind in TAKEN:
        again = loss.t + 1000 * MS
    elif loss.tries >= 3:
        again = loss.t + 750 * MS
    else:
        return False
    return back + SLACK < again and again + 500 * MS < loss.end


def explain_breaks(record: Record) -> tuple[tuple[e.StreamBreak, bool], ...]:
    """Every broken stream, and whether it counts against the agent.

    Not while the far end was down or full, or a control was down.
    """
    down = (*down_times(record), *full_times(record))
    begins = sorted(loss.t for loss in record.control_losses)

    def counts(broken: e.StreamBreak) -> bool:
        since = broken.t - broken.stalled_ns
        beside = bisect_right(begins, broken.t) - bisect_left(begins, since)
        return not beside and not _overlaps(down, since, broken.t)

    return tuple((broken, counts(broken)) for broken in record.breaks)
