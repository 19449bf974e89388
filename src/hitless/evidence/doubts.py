"""Doubts about a drill: what may have hidden a failure, so that "nothing was lost" is not proven.

Promise: a reason, with its code and figures, for each tool that was late, starved, killed or is missing from the log,
for each round in which too little was attempted, and for each restart without evidence. Next stage: ``criteria``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.evidence.completeness import differences
from hitless.evidence.figures import Figures
from hitless.evidence.losses import ExplainedLoss, explain_breaks
from hitless.evidence.phrases import by_number, causes, duration, in_rounds, plural
from hitless.evidence.reason_codes import ReasonCode, VerdictReason
from hitless.evidence.records import Record, Span
from hitless.evidence.settings import Settings

__all__ = ["LATE", "NO_SIGN", "doubts", "no_sign", "not_sent", "unproven"]

NO_SIGN = "no sign that an agent restarted"

LATE = 200_000_000
"""From this lag (ns) on, the prober counts as starved: it sent nothing for that time, and would have missed a gap."""

ENOUGH = 0.5
"""The share of the baseline's rate that must have been sent in every round."""

SENT = 0.9
"""The share of the planned attempts that must have been made: attempts that were not made cannot show a gap."""

FEW = 10
"""Attempts that must have begun in each round, for each family. With fewer, a gap of a tenth of the round may meet
none."""


def unproven(record: Record, settings: Settings) -> list[int]:
    """The rounds that ended without evidence that the agent restarted."""
    if not settings.evidence:
        return []
    found = []
    for span in record.spans:
        mine = [step for step in record.restarts if step.round == span.number]
        ended = any(step.step in ("ready", "failed") for step in mine)
        if ended and not any(step.evidence for step in mine):
            found.append(span.number)
    return found


def no_sign(record: Record, numbers: Sequence[int]) -> VerdictReason:
    """The reason for rounds without evidence of a restart, with the detail that the restart recorded, if any."""
    details = (step.detail for step in record.restarts if step.code == "no_sign" and step.round in numbers)
    return VerdictReason(ReasonCode.NO_RESTART_EVIDENCE, next(details, f"{NO_SIGN} in {in_rounds(numbers)}"))


def doubts(
    record: Record, figures: Figures, settings: Settings, losses: Sequence[ExplainedLoss], *, whole: bool
) -> Iterable[VerdictReason]:
    """What may have hidden a failure of one agent on one node; ``whole``: the log's tool wrote its summary."""
    yield from _of_measurement(record, figures, settings, losses)
    yield from _streams(record, settings, whole)


def _of_measurement(
    record: Record, figures: Figures, settings: Settings, losses: Sequence[ExplainedLoss]
) -> Iterable[VerdictReason]:
    if unsent := not_sent(figures):
        yield VerdictReason(ReasonCode.NOT_SENT, unsent)
    if figures.undecided:
        yield VerdictReason(
            ReasonCode.UNDECIDED,
            f"{plural(figures.undecided, 'attempt')} had no answer yet at the end of the record: undecided, not lost",
        )
    yield from (VerdictReason(ReasonCode.TOOL_ERROR, note.text) for note in record.notes if note.level == "error")
    asked = settings.rounds
    if record.spans and figures.rounds < max(asked, len(record.spans)):
        yield VerdictReason(
            ReasonCode.RESTART_FAILED,
            f"only {figures.rounds} of {max(asked, len(record.spans))} restarts came to ready again",
        )
    rounds = unproven(record, settings)
    if rounds and len(rounds) < len(record.spans):
        yield no_sign(record, rounds)
    if record.spans:
        yield from _traffic(record, settings)
        if any(phase.phase == "recovery" for phase in record.phases):
            if not figures.recovery.attempted:
                yield VerdictReason(
                    ReasonCode.NO_RECOVERY_TRAFFIC, "no connection was attempted after the last restart"
                )
        else:
            yield VerdictReason(ReasonCode.NO_RECOVERY, "the time after the last restart was not measured")
    alone = sum(1 for step in record.restarts if step.step == "exited" and not step.method)
    if alone:
        yield VerdictReason(ReasonCode.ENDED_BY_ITSELF, f"the agent ended by itself {plural(alone, 'time')}")
    excused = [one for one in losses if not one.blames_agent and not one.shared]
    if excused:
        yield VerdictReason(
            ReasonCode.FAILURES_WITHOUT_PROOF,
            f"{plural(len(excused), 'failure')} without proof ({causes(excused, settings)})",
        )
    shared = sum(1 for one in losses if one.shared)
    if shared:
        yield VerdictReason(
            ReasonCode.CONTROL_FAILED_TOO,
            f"{plural(shared, 'failure')} while a control probe failed too: more than egress was down",
        )
    unrelated = sum(1 for _, counts in explain_breaks(record) if not counts)
    if unrelated:
        yield VerdictReason(
            ReasonCode.STREAMS_BROKEN_OTHERWISE,
            f"{plural(unrelated, 'stream')} broke while the far end was down or full, or a control probe was down",
        )
    yield from (VerdictReason(ReasonCode.LOG_DIFFERS, text) for text in differences(record))
    yield from _limits_of_tools(record, figures)


def _limits_of_tools(record: Record, figures: Figures) -> Iterable[VerdictReason]:
    """What the far end, the prober and the watch could not do or see."""
    full = sum(beat.full for beat in record.heartbeats if beat.tool == "farend")
    if full:
        yield VerdictReason(
            ReasonCode.FAR_END_FULL,
            f"the far end was full: it closed {plural(full, 'connection')} for others, so that it may have failed us",
        )
    if figures.prober_lag_ms * 1e6 > LATE:
        yield VerdictReason(
            ReasonCode.PROBER_LATE,
            f"the prober was up to {duration(figures.prober_lag_ms)} late: this machine was too busy to see "
            "shorter outages of traffic",
        )
    late = _polling_lag(record)
    if late > LATE:
        yield VerdictReason(
            ReasonCode.WATCH_LATE,
            f"the watch was up to {duration(late / 1e6)} late: iptables-legacy does not report its changes and must be "
            "polled, so that shorter gaps may be missed",
        )
    if figures.cannot_tell_ms:
        why = next((state.reason for state in record.states if state.state == "cannot_tell"), "")
        yield VerdictReason(
            ReasonCode.CANNOT_TELL,
            f"for {duration(figures.cannot_tell_ms)} the rules could not be understood" + (f": {why}" if why else ""),
        )
    if record.lost_events:
        missed = sum(max(0, one.resynced - one.t) for one in record.lost_events)
        yield VerdictReason(
            ReasonCode.RULE_EVENTS_LOST,
            f"rule events were lost ({plural(len(record.lost_events), 'time')}, {duration(missed / 1e6)})",
        )


_NOT_SENT = {
    "late": "this machine was too busy to send in time",
    "tuples": "more than one source and far end have 5-tuples for",
    "ports": "source ports taken by others",
    "descriptors": "too many open at a time for ulimit -n",
}


def not_sent(figures: Figures) -> str:
    """The reason if too few of the planned attempts were sent; empty if enough were."""
    if not figures.skipped or figures.attempted >= SENT * figures.asked:
        return ""
    why = "; ".join(f"{number:,}: {_NOT_SENT.get(key, key)}" for key, number in by_number(figures.skipped_why))
    share = 100 * figures.attempted // figures.asked
    return (
        f"only {figures.attempted:,} of {figures.asked:,} planned attempts were sent ({share} %), {figures.skipped:,} "
        f"were skipped{f' ({why})' if why else ''}: lower --rate, or give more far ends"
    )


def _polling_lag(record: Record) -> int:
    """The largest lag (ns) of a watch that polls, from the first restart on; events of nf_tables are queued for it."""
    polls = any(header.config.get("legacy_tables") for header in record.headers if header.tool == "watch")
    beats = (beat.max_lag_ns for beat in record.heartbeats if beat.tool == "watch" and record.measured.holds(beat.t))
    return max(beats, default=0) if polls else 0


def _traffic(record: Record, settings: Settings) -> Iterable[VerdictReason]:
    measured = record.measured
    for family in settings.families:
        which = f" {family}" if len(settings.families) > 1 else ""
        few = [span.number for span in record.spans if _sent(record, span, family) < FEW]
        if not sum(one.sent for one in record.attempts if one.family == family and measured.holds(one.t)):
            yield VerdictReason(
                ReasonCode.NO_TRAFFIC_OF_FAMILY, f"no {family} connection was attempted during the restarts"
            )
        elif few:
            yield VerdictReason(
                ReasonCode.TOO_FEW_ATTEMPTS,
                f"fewer than {FEW}{which} attempts in {in_rounds(few)}: too few to tell; raise --rate or --settle",
            )
    begin = record.phases[0].t
    baseline = Span(0, begin, measured.begin)
    if baseline.end <= begin:
        return
    rate = _sent(record, baseline) / (baseline.end - begin)
    thin = [
        span.number
        for span in record.spans
        # at a few attempts a second, one more or less is chance
        if _sent(record, span) + 1 < ENOUGH * rate * (span.end - span.begin)
    ]
    if thin:
        yield VerdictReason(ReasonCode.RATE_TOO_LOW, f"the prober sent less than half of its rate in {in_rounds(thin)}")


def _sent(record: Record, span: Span, family: str = "") -> float:
    """Attempts (of a family) in the span; of an interval that overlaps only partly, its share."""
    total = 0.0
    for one in record.attempts:
        if family and one.family != family:
            continue
        inside = min(span.end, one.t + one.interval_ns) - max(span.begin, one.t)
        if inside > 0:
            total += one.sent * (inside / one.interval_ns)
    return total


def _streams(record: Record, settings: Settings, whole: bool) -> Iterable[VerdictReason]:
    # several streams of one tool: a control probe beside the probe; between pods, a far end on each node
    begun = {(header.tool, header.node, header.stream) for header in record.headers}
    begun |= {(beat.tool, beat.node, beat.stream) for beat in record.heartbeats}
    ended = {(summary.tool, summary.node, summary.stream) for summary in record.summaries}
    expected = ["probe"] if settings.by_traffic else ["watch", "probe"]
    expected += ["farend"] if settings.far_end else []
    for tool in expected:
        mine = {one for one in begun if one[0] == tool}
        if not mine and not (tool == "probe" and record.attempts):
            yield VerdictReason(
                ReasonCode.NO_RECORD, f"there is no record of {tool}: what it would have seen is unknown"
            )
        elif mine - ended or not any(one[0] == tool for one in ended):
            yield VerdictReason(
                ReasonCode.RECORD_CUT_OFF, f"the record of {tool} is cut off: it did not come to its end"
            )
    if "watch" in expected and record.spans:
        for family in settings.families:
            if not any(state.family == family for state in record.states):
                yield VerdictReason(
                    ReasonCode.NO_RULE_STATE, f"the watch did not report whether the rules carry {family} egress"
                )
    if not whole:
        yield VerdictReason(ReasonCode.LOG_CUT_OFF, "the log is cut off: the drill did not come to its end")
