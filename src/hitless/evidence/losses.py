"""The cause of each loss, from all streams of a record.

Problem: the prober only sees that no answer came; the cause is in the other streams. Promise: each loss gets one cause,
by these rules, in this order:

1. an ``error`` of the prober's own machine stays an error;
2. the far end was not running: ``far_end_down``; or, for kinds that use connections, it was full: ``far_end_full``;
3. the first packet left while the rules did not carry it, or reached the far end untranslated: ``gap``; or
   ``poisoned`` if the flow was still untranslated or dead after the rules were back;
4. otherwise the prober's own cause: ``refused``, ``timeout``, ``unreachable``, ``starved``.

If a control probe had losses at the same time, the loss is ``shared``: more than egress was down, so it proves nothing
about the agent. Every loss is counted, whatever its cause. Next stage: ``figures``.
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

CONNECTIONS = tuple(kind for kind, transport in TRANSPORTS.items() if transport == "tcp")
"""Kinds that use connections: they fail when the far end is full."""

MS = 1_000_000

SLACK = 5 * MS
"""Tolerance when a gap's times (the watch's) are compared with a loss's (the prober's). Events of nf_tables arrive
within a millisecond; iptables-legacy is polled every few."""

STILL_DEAD = 100 * MS
"""A flow is poisoned if it was dead for at least this long after the rules were back; a shorter time may be a round
trip and a retry."""

Flow = tuple[str, str, int, str, int]
"""Kind, source, source port, destination, destination port: a prober uses each for one attempt."""


@dataclass(frozen=True, slots=True)
class ExplainedLoss:
    """A loss with its cause; ``outage``: the gap in which it began; ``recovery``: whether and when the flow worked
    again."""

    loss: e.Loss
    cause: e.Cause
    outage: Outage | None = None
    recovery: e.Recovery | None = None
    leaks: int = 0
    shared: bool = False

    @property
    def blames_agent(self) -> bool:
        """Whether the agent may have caused it, and not the prober, the far end or the whole network."""
        return not self.shared and self.cause not in ("starved", "error", "far_end_down", "far_end_full")

    @property
    def dead_for(self) -> int:
        """Nanoseconds for which the flow is known to have been dead, from its first packet."""
        return max(self.loss.end - self.loss.t, self.recovery.duration_ns if self.recovery else 0)


def _flow(event: e.Loss | e.Recovery | e.Leak) -> Flow:
    return (event.kind, event.src, event.sport, event.dst, event.dport)


def down_times(record: Record) -> tuple[tuple[int, int], ...]:
    """When a far end was down: no heartbeat for more than three intervals, or, if it was killed, after the last one."""
    found: list[tuple[int, int]] = []
    # for connections between pods, each node has a far end
    for node in sorted({beat.node for beat in record.heartbeats if beat.tool == "farend"}):
        mine = (beat for beat in record.heartbeats if beat.tool == "farend" and beat.node == node)
        beats = sorted((beat.t, beat.interval_ns) for beat in mine)
        found += [(t, after) for (t, interval), (after, _) in pairwise(beats) if after - t > 3 * interval + SLACK]
        if not any(summary.tool == "farend" and summary.node == node for summary in record.summaries):
            # killed some time after its last heartbeat
            found.append((beats[-1][0], record.last + 1))
    return tuple(found)


def full_times(record: Record) -> tuple[tuple[int, int], ...]:
    """When the far end closed connections because there were too many, to within one heartbeat."""
    beats = (beat for beat in record.heartbeats if beat.tool == "farend" and beat.full)
    return tuple((beat.t - beat.interval_ns, beat.t + 1) for beat in beats)


def _overlaps(spans: Sequence[tuple[int, int]], begin: int, end: int) -> bool:
    return any(first <= end and begin < last for first, last in spans)


def _outage_at(outages: Sequence[Outage], family: str, t: int) -> Outage | None:
    inside = [one for one in outages if one.family == family and one.begin - SLACK <= t <= one.end + SLACK]
    # of two gaps closer than the tolerance: the one that contains the time, else the nearest
    return min(inside, key=lambda one: max(one.begin - t, t - one.end, 0), default=None)


def explain(record: Record) -> tuple[ExplainedLoss, ...]:
    """All losses of the record with their causes, by time."""
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
    if outage is None and not leaks and loss.kind in CONNECTIONS and _overlaps(full, loss.t, loss.end):
        return ExplainedLoss(loss, "far_end_full")
    if outage is not None or leaks:
        back = outage.end if outage is not None else leaks[0]
        dead = recovery is not None and loss.t + recovery.duration_ns > back + STILL_DEAD
        leaked_later = bool(leaks) and leaks[-1] > back + SLACK
        cause: e.Cause = "poisoned" if dead or leaked_later or _retried(loss, back) else "gap"
        return ExplainedLoss(loss, cause, outage, recovery, len(leaks))
    shared = any(begin <= loss.end and loss.t <= end for begin, end in controls)
    return ExplainedLoss(loss, loss.cause, None, recovery, 0, shared)


def _retried(loss: e.Loss, back: int) -> bool:
    """Whether the flow sent a retry after the rules were back, and had time for an answer.

    A SYN is repeated after 1 s (RFC 6298, 2.1), whatever the prober counts; of datagrams, the third try is sent at
    0.75 s. This decides for flows without events of their own: far ends write a bounded number of leaks, and the prober
    watches a bounded number of lost flows.
    """
    if loss.kind in CONNECTIONS:
        again = loss.t + 1000 * MS
    elif loss.tries >= 3:
        again = loss.t + 750 * MS
    else:
        return False
    return back + SLACK < again and again + 500 * MS < loss.end


def explain_breaks(record: Record) -> tuple[tuple[e.StreamBreak, bool], ...]:
    """All broken streams, and whether the agent may have caused it: not while the far end was down or full, or a
    control probe had losses."""
    down = (*down_times(record), *full_times(record))
    begins = sorted(loss.t for loss in record.control_losses)

    def counts(broken: e.StreamBreak) -> bool:
        since = broken.t - broken.stalled_ns
        beside = bisect_right(begins, broken.t) - bisect_left(begins, since)
        return not beside and not _overlaps(down, since, broken.t)

    return tuple((broken, counts(broken)) for broken in record.breaks)
