"""The figures of a drill: counted from one record, added up over an agent's nodes.

Problem: a table, a JSON object and a verdict must show the same numbers. Promise: ``count`` is a pure function of a
record, ``add`` sums the figures of several nodes; times are milliseconds, rounded to a microsecond. ``attempted`` and
``lost`` cover the whole log, the time before the first restart included; that part is in ``baseline`` as well.
Next stage: ``verdict``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from hitless.evidence.completeness import counted_losses, skipped, unwritten
from hitless.evidence.losses import ExplainedLoss, explain, explain_breaks
from hitless.evidence.records import Outage, Record, Span

__all__ = [
    "AttemptCount",
    "Figures",
    "Round",
    "WriterGaps",
    "add",
    "count",
    "counted_leaks",
    "milliseconds",
    "written_leaks",
]


def milliseconds(nanoseconds: int) -> float:
    """To the microsecond: more digits are noise."""
    return round(nanoseconds / 1e6, 3)


class AttemptCount(msgspec.Struct, frozen=True):
    """Attempts and losses of a part of the drill."""

    attempted: int = 0
    lost: int = 0

    def plus(self, other: AttemptCount) -> AttemptCount:
        """The sum of both."""
        return AttemptCount(self.attempted + other.attempted, self.lost + other.lost)


class WriterGaps(msgspec.Struct, frozen=True):
    """A program that opened gaps; ``comm`` is empty where the writer is unknown."""

    comm: str
    argv: str
    gaps: int
    gap_ms: float


class Round(msgspec.Struct, frozen=True):
    """One restart; ``ready_ms`` is the time from the stop until the agent was ready again, ``None`` if it never was.
    ``evidence``: what shows that the agent restarted; empty if nothing does."""

    node: str
    round: int
    attempted: int
    lost: int
    gaps: int
    gap_ms: float
    ready_ms: float | None
    evidence: str = ""
    pod_to_pod: AttemptCount = AttemptCount()


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's figures."""

    agent: str
    nodes: tuple[str, ...] = ()
    rounds: int = 0
    rounds_asked: int = 0
    restarts: int = 0
    time_to_ready_ms: float = 0.0
    attempted: int = 0
    lost: int = 0
    pod_to_pod: AttemptCount = AttemptCount()
    """Connections between pods of different nodes, in both directions; no other figure includes them."""
    asked: int = 0
    skipped: int = 0
    skipped_why: dict[str, int] = {}
    undecided: int = 0
    delayed: int = 0
    gaps: int = 0
    longest_gap_ms: float = 0.0
    gap_ms: float = 0.0
    standby: str = ""
    """A guard's standby was on the node: "at work", or "left" by a guard that had ended; empty: there was none."""
    bridged_gaps: int = 0
    bridged_ms: float = 0.0
    bridged_flows: int = 0
    leaked: int = 0
    leaks_known: bool = True
    """Whether the drill could see leaked packets. With a far end that the drill did not start, ``leaked`` is 0."""
    leaked_flows: int = 0
    lost_outside: int = 0
    poisoned: int = 0
    unrecovered: int = 0
    slowest_recovery_ms: float = 0.0
    broken_streams: int = 0
    causes: dict[str, int] = {}
    families: dict[str, AttemptCount] = {}
    kinds: dict[str, AttemptCount] = {}
    baseline: AttemptCount = AttemptCount()
    recovery: AttemptCount = AttemptCount()
    control: AttemptCount = AttemptCount()
    writers: tuple[WriterGaps, ...] = ()
    rule_changes: int = 0
    cannot_tell_ms: float = 0.0
    prober_lag_ms: float = 0.0
    latency_p99_ms: float = 0.0
    per_round: tuple[Round, ...] = ()


def _by(record: Record, key: str) -> dict[str, AttemptCount]:
    sums: dict[str, AttemptCount] = {}
    for one in record.attempts:
        name = getattr(one, key)
        sums[name] = sums.get(name, AttemptCount()).plus(AttemptCount(one.sent, one.lost))
    return dict(sorted(sums.items()))


def _within(record: Record, begin: int, end: int) -> AttemptCount:
    """Attempts and losses that began in ``[begin, end)``: losses by their own time, attempts by their interval's."""
    sent = sum(one.sent for one in record.attempts if begin <= one.t < end)
    return AttemptCount(sent, sum(1 for loss in record.losses if begin <= loss.t < end))


def _writers(outages: Iterable[Outage]) -> tuple[WriterGaps, ...]:
    sums: dict[str, list[Outage]] = {}
    for outage in outages:
        sums.setdefault(outage.opened_by.comm if outage.opened_by else "", []).append(outage)
    found = [
        WriterGaps(
            comm,
            next((one.opened_by.argv for one in made if one.opened_by and one.opened_by.argv), ""),
            len(made),
            milliseconds(sum(one.length for one in made)),
        )
        for comm, made in sums.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.gaps, one.comm)))


def _ready(record: Record, span: Span) -> int | None:
    """Nanoseconds from the round's stop to the last time in it that the agent became ready."""
    mine = [step for step in record.restarts if step.round == span.number and span.holds(step.t)]
    stop = next((step.t for step in mine if step.step in ("stop", "killed", "exited")), None)
    started = [step.t for step in mine if step.step == "started"]
    ready = [step.t for step in mine if step.step == "ready" and started and step.t >= started[-1]]
    return ready[-1] - stop if stop is not None and ready else None


def _evidence(record: Record, span: Span) -> str:
    """The evidence of the round's last start, else of the agent's end."""
    mine = [step for step in record.restarts if step.round == span.number and span.holds(step.t) and step.evidence]
    return next((one.evidence for one in reversed(mine) if one.step in ("started", "ready")), "") or (
        mine[-1].evidence if mine else ""
    )


def _rounds(record: Record, outages: Sequence[Outage]) -> tuple[Round, ...]:
    found: list[Round] = []
    for span in record.spans:
        inside = [one for one in outages if span.holds(one.begin)]
        sums = _within(record, span.begin, span.end)
        ready = _ready(record, span)
        found.append(
            Round(
                record.node,
                span.number,
                sums.attempted,
                sums.lost,
                len(inside),
                milliseconds(sum(one.length for one in inside)),
                None if ready is None else milliseconds(ready),
                _evidence(record, span),
                _within(record.pods, span.begin, span.end) if record.pods is not None else AttemptCount(),
            )
        )
    return tuple(found)


def _cannot_tell(record: Record) -> int:
    """Nanoseconds, from the first restart on, in which the rules of a pod network were not known or not understood."""
    total = 0
    for family in {one.family for one in record.states}:
        first = min(one.t for one in record.states if one.family == family)
        total += max(0, first - record.measured.begin)
    for family, network in {(one.family, one.network) for one in record.states}:
        mine = [one for one in record.states if (one.family, one.network) == (family, network)]
        ends = [one.t for one in mine[1:]] + [record.last]
        total += sum(
            max(0, end - max(one.t, record.measured.begin))
            for one, end in zip(mine, ends, strict=True)
            if one.state == "cannot_tell"
        )
    return total


def _lag(record: Record) -> int:
    begin = record.measured.begin
    own = [one.max_lag_ns for one in record.attempts if one.t + one.interval_ns > begin]
    beats = [one.max_lag_ns for one in record.heartbeats if one.tool == "probe" and one.t > begin]
    return max(own + beats, default=0)


def written_leaks(record: Record, before: int | None = None) -> int:
    """Leaked packets with an event of their own (those ``before`` a time only).

    A far end and a prober may both report the same packet, so the figure is the larger one of the two streams.
    """
    streams = Counter(leak.stream for leak in record.leaks if before is None or leak.t < before)
    return max(streams.values(), default=0)


def counted_leaks(record: Record) -> int:
    """Leaked packets by the far ends' summaries: of many packets, only the first ones have an event."""
    return sum(one.totals.get("leaks", 0) for one in record.summaries if one.tool == "farend")


def _leaked(record: Record) -> int:
    return max(written_leaks(record), counted_leaks(record), sum(one.leaked for one in record.attempts))


def _standby(record: Record) -> str:
    there = [one for one in record.standbys if one.present]
    return ("at work" if any(one.guard for one in there) else "left") if there else ""


def _unrecovered(poisoned: Iterable[ExplainedLoss]) -> int:
    return sum(1 for one in poisoned if one.recovery is None or not one.recovery.recovered)


def count(record: Record, rounds_asked: int = 0) -> Figures:
    """The figures of one record."""
    outages = record.outages
    explained = explain(record)
    poisoned = [one for one in explained if one.cause == "poisoned"]
    recovery = next((phase.t for phase in record.phases if phase.phase == "recovery"), record.last + 1)
    per_round = _rounds(record, outages)
    ready = [one.ready_ms for one in per_round if one.ready_ms is not None]
    without_record, (not_made, why) = unwritten(record), skipped(record)
    attempted = sum(one.sent for one in record.attempts) + without_record
    between = count(record.pods) if record.pods is not None else None
    return Figures(
        agent=record.agent,
        nodes=(record.node,) if record.node else (),
        rounds=len(ready),
        rounds_asked=rounds_asked,
        restarts=sum(1 for step in record.restarts if step.step == "started" and record.measured.holds(step.t)),
        time_to_ready_ms=max(ready, default=0.0),
        attempted=attempted,
        # a stream that was cut off may have losses without their interval, a damaged log neither
        lost=max(sum(one.lost for one in record.attempts), len(explained), counted_losses(record)),
        pod_to_pod=AttemptCount(between.attempted, between.lost) if between is not None else AttemptCount(),
        asked=attempted + not_made,
        skipped=not_made,
        skipped_why=why,
        undecided=without_record + sum(one.undecided for one in record.attempts),
        delayed=sum(one.delayed for one in record.attempts),
        gaps=len(outages),
        longest_gap_ms=milliseconds(max((one.length for one in outages), default=0)),
        gap_ms=milliseconds(sum(one.length for one in outages)),
        standby=_standby(record),
        bridged_gaps=len(record.bridges),
        bridged_ms=milliseconds(sum(one.length for one in record.bridges)),
        bridged_flows=record.bridged_flows,
        leaked=_leaked(record),
        leaked_flows=len({(leak.kind, leak.src, leak.sport, leak.dst, leak.dport) for leak in record.leaks}),
        lost_outside=sum(one.leaked for one in record.attempts),
        poisoned=len(poisoned),
        unrecovered=_unrecovered(poisoned),
        slowest_recovery_ms=milliseconds(max((one.dead_for for one in poisoned), default=0)),
        broken_streams=sum(1 for _, counts in explain_breaks(record) if counts),
        causes=dict(sorted(Counter(one.cause for one in explained).items())),
        families=_by(record, "family"),
        kinds=_by(record, "kind"),
        baseline=_within(record, record.first, record.measured.begin),
        recovery=_within(record, recovery, record.last + 1),
        control=AttemptCount(sum(one.sent for one in record.control_attempts), len(record.control_losses)),
        writers=_writers(outages),
        rule_changes=len(record.changes),
        cannot_tell_ms=milliseconds(_cannot_tell(record)),
        prober_lag_ms=milliseconds(_lag(record)),
        latency_p99_ms=milliseconds(max((one.latency_p99_ns for one in record.attempts), default=0)),
        per_round=per_round,
    )


def _sum_counts(parts: Sequence[dict[str, AttemptCount]]) -> dict[str, AttemptCount]:
    names = sorted({name for part in parts for name in part})
    return {name: _total([part.get(name, AttemptCount()) for part in parts]) for name in names}


def _total(counts: Iterable[AttemptCount]) -> AttemptCount:
    total = AttemptCount()
    for one in counts:
        total = total.plus(one)
    return total


def _sum_writers(parts: Iterable[WriterGaps]) -> tuple[WriterGaps, ...]:
    sums: dict[str, WriterGaps] = {}
    for one in parts:
        before = sums.get(one.comm, WriterGaps(one.comm, one.argv, 0, 0.0))
        argv = before.argv or one.argv
        sums[one.comm] = WriterGaps(one.comm, argv, before.gaps + one.gaps, round(before.gap_ms + one.gap_ms, 3))
    return tuple(sorted(sums.values(), key=lambda one: (-one.gaps, one.comm)))


_SUMS = ("rounds", "rounds_asked", "restarts", "attempted", "lost", "delayed", "gaps", "leaked", "leaked_flows")
_SUMS_TOO = (
    "lost_outside",
    "asked",
    "skipped",
    "undecided",
    "poisoned",
    "unrecovered",
    "broken_streams",
    "rule_changes",
    "bridged_gaps",
    "bridged_flows",
)
_MAXIMA = ("time_to_ready_ms", "longest_gap_ms", "slowest_recovery_ms", "prober_lag_ms", "latency_p99_ms")
_TOTALS_MS = ("gap_ms", "bridged_ms", "cannot_tell_ms")


def add(agent: str, parts: Sequence[Figures]) -> Figures:
    """An agent's figures over all its nodes: counts and gap times are sums, maxima are the worst node's."""
    if len(parts) == 1:
        return parts[0]
    values: dict[str, object] = {key: sum(getattr(part, key) for part in parts) for key in (*_SUMS, *_SUMS_TOO)}
    values |= {key: max((getattr(part, key) for part in parts), default=0.0) for key in _MAXIMA}
    values |= {key: round(sum(getattr(part, key) for part in parts), 3) for key in _TOTALS_MS}
    causes: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for part in parts:
        causes.update(part.causes)
        skipped.update(part.skipped_why)
    values |= {
        "agent": agent,
        "standby": next((word for word in ("left", "at work") if any(part.standby == word for part in parts)), ""),
        "nodes": tuple(node for part in parts for node in part.nodes),
        "causes": dict(sorted(causes.items())),
        "skipped_why": dict(sorted(skipped.items())),
        "families": _sum_counts([part.families for part in parts]),
        "kinds": _sum_counts([part.kinds for part in parts]),
        "baseline": _total(part.baseline for part in parts),
        "recovery": _total(part.recovery for part in parts),
        "control": _total(part.control for part in parts),
        "pod_to_pod": _total(part.pod_to_pod for part in parts),
        "writers": _sum_writers(writer for part in parts for writer in part.writers),
        "per_round": tuple(one for part in parts for one in part.per_round),
    }
    return msgspec.convert(values, Figures, from_attributes=True)
