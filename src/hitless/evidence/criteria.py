"""The criteria of a verdict: when a drill is invalid, has failed, or leaves doubts.

Problem: "nothing was lost" means something only if losses would have been noticed. Promise: lists of reasons from one
record, each a sentence with its figures. ``invalid``: the drill proves nothing (no traffic, no restart, unhealthy
before it). ``failures``: connections were lost, or the rules did not carry egress. ``doubts``: a failure may have gone
unnoticed. They are applied in this order, and only a drill without any of them passes.
Next stage: ``verdict`` combines the reasons of an agent's nodes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from hitless.evidence.completeness import differences
from hitless.evidence.figures import Figures, counted_leaks, written_leaks
from hitless.evidence.losses import ExplainedLoss, explain, explain_breaks
from hitless.evidence.records import Record, Span, program
from hitless.evidence.settings import Settings

__all__ = ["LATE", "NO_SIGN", "SENT", "VerdictReasons", "not_sent", "reasons"]

LATE = 200_000_000
"""From this lag (ns) on, the prober counts as starved: it sent nothing for that time, and would have missed a gap."""

ENOUGH = 0.5
"""The share of the baseline's rate that must have been sent in every round."""

SENT = 0.9
"""The share of the planned attempts that must have been made: attempts that were not made cannot show a gap."""

FEW = 10
"""Attempts that must have begun in each round, for each family. With fewer, a gap of a tenth of the round may meet
none."""

NO_SIGN = "no sign that an agent restarted"

_Key = TypeVar("_Key", bound=str)

_WHY = {
    "gap": "in a gap",
    "poisoned": "poisoned: dead after the rules were back",
    "refused": "refused",
    "timeout": "no answer although the rules carried them",
    "unreachable": "unreachable",
    "far_end_down": "the far end was down",
    "far_end_full": "the far end was full",
    "starved": "the prober was starved",
    "error": "ended in an error",
}


@dataclass(frozen=True, slots=True)
class VerdictReasons:
    """Reasons, as sentences; ``passed``: those for a pass."""

    invalid: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    """Reported with every verdict except a pass, whose own reasons include them."""


def plural(number: int, noun: str) -> str:
    """``1 gap``, ``2,000 gaps``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(ms: float) -> str:
    """Milliseconds as text: ``48.1 ms``, ``3.2 s``."""
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.1f} ms"


def _causes(losses: Iterable[ExplainedLoss], settings: Settings) -> str:
    counted = Counter(one.cause for one in losses)
    # an error may be the prober's own or an answer such as HTTP 503: the detail shows which
    details = Counter(one.loss.detail for one in losses if one.cause == "error" and one.loss.detail)
    mostly = f": {_by_number(details)[0][0]}" if details else ""
    return ", ".join(
        f"{number:,} {_why(cause, by_traffic=settings.by_traffic)}{mostly if cause == 'error' else ''}"
        for cause, number in _by_number(counted)
    )


def _why(cause: str, *, by_traffic: bool) -> str:
    return "no answer" if cause == "timeout" and by_traffic else _WHY[cause]


def _by_number(counted: Mapping[_Key, int]) -> list[tuple[_Key, int]]:
    """The most frequent first, then by name, so that the order in which streams arrived does not matter."""
    return sorted(counted.items(), key=lambda each: (-each[1], each[0]))


def reasons(record: Record, figures: Figures, settings: Settings, *, whole: bool) -> VerdictReasons:
    """The reasons of one agent on one node; ``whole``: the log's tool wrote its summary."""
    losses = explain(record)
    return VerdictReasons(
        invalid=tuple(_invalid(record, figures, settings, losses)),
        failures=tuple(_failures(record, figures, settings, losses)),
        doubts=(*_doubts(record, figures, settings, losses), *_streams(record, settings, whole)),
        remarks=tuple(_bridged(figures)),
        passed=tuple(_passed(record, figures, settings)),
    )


def _unproven(record: Record, settings: Settings) -> list[int]:
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


def _no_sign(record: Record, numbers: Sequence[int]) -> str:
    """The detail that was recorded for the restart, if there is one."""
    details = (step.detail for step in record.restarts if step.code == "no_sign" and step.round in numbers)
    return next(details, f"{NO_SIGN} in {_rounds(numbers)}")


def _invalid(record: Record, figures: Figures, settings: Settings, losses: Sequence[ExplainedLoss]) -> Iterable[str]:
    measured = record.measured
    trouble = [note.text for note in record.notes if note.level == "error"]
    if not figures.attempted:
        yield "no connection was attempted: a verdict needs traffic" + (f" ({trouble[0]})" if trouble else "")
    if not record.spans:
        yield "the agent was never restarted" + (f" ({trouble[0]})" if trouble and figures.attempted else "")
        return
    unproven = _unproven(record, settings)
    if unproven and len(unproven) == len(record.spans):
        yield _no_sign(record, unproven)
    if figures.attempted and not figures.baseline.attempted:
        yield "no connection was attempted before the first restart: there is no baseline to compare with"
    early = [one for one in losses if one.loss.t < measured.begin and one.blames_agent]
    if early:
        share = f"{len(early):,} of {figures.baseline.attempted:,}"
        yield f"unhealthy before the first restart: {share} attempts failed ({_causes(early, settings)})"
    for outage in record.outages:
        if outage.begin < measured.begin:
            why = f": {outage.reason}" if outage.reason else ""
            yield f"the rules did not carry {outage.family} egress before the first restart{why}"
            break
    early_leaks = sum(1 for leak in record.leaks if leak.t < measured.begin)
    if early_leaks:
        yield f"{plural(early_leaks, 'packet')} left with a pod's source address before the first restart"


def _failures(record: Record, figures: Figures, settings: Settings, losses: Sequence[ExplainedLoss]) -> Iterable[str]:
    measured = record.measured
    blamed = [one for one in losses if measured.holds(one.loss.t) and one.blames_agent]
    if blamed:
        yield f"lost {len(blamed):,} of {figures.attempted:,} attempts ({_causes(blamed, settings)})"
    unlisted = figures.lost - len(losses)
    if unlisted > 0:
        yield f"lost {unlisted:,} attempts that the prober counted without saying which"
    gaps = [one for one in record.outages if measured.holds(one.begin)]
    if gaps:
        longest = duration(max(one.length for one in gaps) / 1e6)
        total = duration(sum(one.length for one in gaps) / 1e6)
        writers = [one.opened_by for one in gaps]
        made = {program(by.comm, by.argv) if by and by.comm else "an unknown writer" for by in writers}
        by = f", made by {', '.join(sorted(made))}" if made else ""
        many = f"{plural(len(gaps), 'gap')} in the rules: longest {longest}, {total} in all" if len(gaps) > 1 else ""
        unnoticed = "" if blamed or figures.leaked else "; no attempt happened to fall into one"
        yield (many or f"a gap of {longest} in the rules") + by + unnoticed
        still = [one for one in gaps if one.open]
        if still:
            yield f"the rules did not carry {still[-1].family} egress when the drill ended: {still[-1].reason}"
    # the first packets have events of their own: those that were only counted came after the first restart
    seen = figures.leaked if any(measured.holds(leak.t) for leak in record.leaks) else counted_leaks(record)
    leaked = seen - written_leaks(record, before=measured.begin)
    if leaked > 0:
        yield f"{plural(leaked, 'packet')} left the node with a pod's source address"
    if figures.lost_outside:
        ours = settings.target == "cluster" and settings.far_end
        far_end = "the far end is a node of the cluster and" if ours else "this far end"
        yield (
            f"{plural(figures.lost_outside, 'connection')} answered only because {far_end} knows a way back to pods: "
            "lost to anything outside the cluster"
        )
    if figures.poisoned and blamed:
        more = "more than " if figures.unrecovered else ""
        flows = "flow was" if figures.poisoned == 1 else "flows were"
        slowest = duration(figures.slowest_recovery_ms)
        yield f"{figures.poisoned:,} {flows} still dead after the rules were back, the slowest for {more}{slowest}"
    broken = [one for one, counts in explain_breaks(record) if counts and measured.holds(one.t)]
    if broken:
        yield f"{plural(len(broken), 'long-lived stream')} broke"


def _doubts(record: Record, figures: Figures, settings: Settings, losses: Sequence[ExplainedLoss]) -> Iterable[str]:
    if unsent := not_sent(figures):
        yield unsent
    if figures.undecided:
        yield f"{plural(figures.undecided, 'attempt')} had no answer yet at the end of the record: undecided, not lost"
    yield from (note.text for note in record.notes if note.level == "error")
    asked = settings.rounds
    if record.spans and figures.rounds < max(asked, len(record.spans)):
        yield f"only {figures.rounds} of {max(asked, len(record.spans))} restarts came to ready again"
    unproven = _unproven(record, settings)
    if unproven and len(unproven) < len(record.spans):
        yield _no_sign(record, unproven)
    if record.spans:
        yield from _traffic(record, settings)
        if any(phase.phase == "recovery" for phase in record.phases):
            if not figures.recovery.attempted:
                yield "no connection was attempted after the last restart"
        else:
            yield "the time after the last restart was not measured"
    alone = sum(1 for step in record.restarts if step.step == "exited" and not step.method)
    if alone:
        yield f"the agent ended by itself {plural(alone, 'time')}"
    excused = [one for one in losses if not one.blames_agent and not one.shared]
    if excused:
        yield f"{plural(len(excused), 'failure')} without proof ({_causes(excused, settings)})"
    shared = sum(1 for one in losses if one.shared)
    if shared:
        yield f"{plural(shared, 'failure')} while a control probe failed too: more than egress was down"
    unrelated = sum(1 for _, counts in explain_breaks(record) if not counts)
    if unrelated:
        yield f"{plural(unrelated, 'stream')} broke while the far end was down or full, or a control probe was down"
    yield from differences(record)
    full = sum(beat.full for beat in record.heartbeats if beat.tool == "farend")
    if full:
        yield f"the far end was full: it closed {plural(full, 'connection')} for others, so that it may have failed us"
    if figures.prober_lag_ms * 1e6 > LATE:
        yield (
            f"the prober was up to {duration(figures.prober_lag_ms)} late: this machine was too busy to see "
            "shorter outages of traffic"
        )
    late = _polling_lag(record)
    if late > LATE:
        yield (
            f"the watch was up to {duration(late / 1e6)} late: iptables-legacy does not report its changes and must be "
            "polled, so that shorter gaps may be missed"
        )
    if figures.cannot_tell_ms:
        why = next((state.reason for state in record.states if state.state == "cannot_tell"), "")
        yield f"for {duration(figures.cannot_tell_ms)} the rules could not be understood" + (f": {why}" if why else "")
    if record.lost_events:
        missed = sum(max(0, one.resynced - one.t) for one in record.lost_events)
        yield f"rule events were lost ({plural(len(record.lost_events), 'time')}, {duration(missed / 1e6)})"


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
    why = "; ".join(f"{number:,}: {_NOT_SENT.get(key, key)}" for key, number in _by_number(figures.skipped_why))
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


def _traffic(record: Record, settings: Settings) -> Iterable[str]:
    measured = record.measured
    for family in settings.families:
        which = f" {family}" if len(settings.families) > 1 else ""
        few = [span.number for span in record.spans if _sent(record, span, family) < FEW]
        if not sum(one.sent for one in record.attempts if one.family == family and measured.holds(one.t)):
            yield f"no {family} connection was attempted during the restarts"
        elif few:
            yield f"fewer than {FEW}{which} attempts in {_rounds(few)}: too few to tell; raise --rate or --settle"
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
        yield f"the prober sent less than half of its rate in {_rounds(thin)}"


def _rounds(numbers: Sequence[int]) -> str:
    """``round 3``, ``rounds 1, 2, 3, 4, 5…``."""
    listed = ", ".join(str(number) for number in numbers[:5]) + ("…" if len(numbers) > 5 else "")
    return f"round{'' if len(numbers) == 1 else 's'} {listed}"


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


def _streams(record: Record, settings: Settings, whole: bool) -> Iterable[str]:
    # several streams of one tool: a control probe beside the probe; between pods, a far end on each node
    begun = {(header.tool, header.node, header.stream) for header in record.headers}
    begun |= {(beat.tool, beat.node, beat.stream) for beat in record.heartbeats}
    ended = {(summary.tool, summary.node, summary.stream) for summary in record.summaries}
    expected = ["probe"] if settings.by_traffic else ["watch", "probe"]
    expected += ["farend"] if settings.far_end else []
    for tool in expected:
        mine = {one for one in begun if one[0] == tool}
        if not mine and not (tool == "probe" and record.attempts):
            yield f"there is no record of {tool}: what it would have seen is unknown"
        elif mine - ended or not any(one[0] == tool for one in ended):
            yield f"the record of {tool} is cut off: it did not come to its end"
    if "watch" in expected and record.spans:
        for family in settings.families:
            if not any(state.family == family for state in record.states):
                yield f"the watch did not report whether the rules carry {family} egress"
    if not whole:
        yield "the log is cut off: the drill did not come to its end"


def _bridged(figures: Figures) -> Iterable[str]:
    """What a guard's standby on the node carried."""
    if not figures.standby:
        return
    whose = "of a guard at work" if figures.standby == "at work" else "that a guard which is gone has left"
    if not figures.bridged_gaps and not figures.bridged_flows:
        yield f"a standby {whose} is on the node; it was not needed: the agent's own rules carried egress"
        return
    flows = f"{plural(figures.bridged_flows, 'flow')} carried"
    gaps = f"{plural(figures.bridged_gaps, 'gap')} of the agent's rules ({duration(figures.bridged_ms)} in all)"
    yield f"a standby {whose} is on the node and bridged {gaps}, {flows}: without it pods would have felt them"


def _passed(record: Record, figures: Figures, settings: Settings) -> Iterable[str]:
    lost = f"0 of {figures.attempted:,} attempts lost over {plural(figures.restarts, 'restart')}"
    if settings.by_traffic:
        yield f"{lost}; judged by traffic alone: this agent's rules are not known here"
    else:
        yield f"{lost}; the rules carried egress throughout ({plural(figures.rule_changes, 'rule change')} seen)"
    yield from _bridged(figures)
    if figures.delayed:
        yield f"{plural(figures.delayed, 'attempt')} answered only after a retry"
