"""The criteria of a verdict: when a drill is invalid, has failed, or leaves doubts.

Problem: "nothing was lost" means something only if losses would have been noticed. Promise: lists of reasons from one
record, each a code with a sentence and its figures. ``invalid``: the drill proves nothing (no traffic, no restart,
unhealthy before it). ``failures``: connections were lost, or the rules did not carry egress. ``doubts``: a failure may
have gone unnoticed. They are applied in this order, and only a drill without any of them passes.
Next stage: ``verdict`` combines the reasons of an agent's nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hitless.evidence.doubts import doubts, no_sign, unproven
from hitless.evidence.figures import Figures, counted_leaks, written_leaks
from hitless.evidence.losses import ExplainedLoss, explain, explain_breaks
from hitless.evidence.phrases import causes, duration, plural
from hitless.evidence.reason_codes import ReasonCode, VerdictReason
from hitless.evidence.records import Record, program
from hitless.evidence.settings import Settings

__all__ = ["VerdictReasons", "reasons"]


@dataclass(frozen=True, slots=True)
class VerdictReasons:
    """The reasons of an agent on a node; ``passed``: those for a pass."""

    invalid: tuple[VerdictReason, ...] = ()
    failures: tuple[VerdictReason, ...] = ()
    doubts: tuple[VerdictReason, ...] = ()
    passed: tuple[VerdictReason, ...] = ()
    remarks: tuple[VerdictReason, ...] = ()
    """Reported with every verdict except a pass, whose own reasons include them."""


def reasons(record: Record, figures: Figures, settings: Settings, *, whole: bool) -> VerdictReasons:
    """The reasons of one agent on one node; ``whole``: the log's tool wrote its summary."""
    losses = explain(record)
    return VerdictReasons(
        invalid=tuple(_invalid(record, figures, settings, losses)),
        failures=tuple(_failures(record, figures, settings, losses)),
        doubts=tuple(doubts(record, figures, settings, losses, whole=whole)),
        remarks=tuple(_bridged(figures)),
        passed=tuple(_passed(record, figures, settings)),
    )


def _invalid(
    record: Record, figures: Figures, settings: Settings, losses: Sequence[ExplainedLoss]
) -> Iterable[VerdictReason]:
    measured = record.measured
    error = next((note.text for note in record.notes if note.level == "error"), "")
    because = f" ({error})" if error else ""
    if not figures.attempted:
        text = f"no connection was attempted: a verdict needs traffic{because}"
        yield VerdictReason(ReasonCode.NO_TRAFFIC, text, quoted=error)
    if not record.spans:
        text = f"the agent was never restarted{because if figures.attempted else ''}"
        yield VerdictReason(ReasonCode.NEVER_RESTARTED, text, quoted=error)
        return
    rounds = unproven(record, settings)
    if rounds and len(rounds) == len(record.spans):
        yield no_sign(record, rounds)
    if figures.attempted and not figures.baseline.attempted:
        yield VerdictReason(
            ReasonCode.NO_BASELINE,
            "no connection was attempted before the first restart: there is no baseline to compare with",
        )
    early = [one for one in losses if one.loss.t < measured.begin and one.blames_agent]
    if early:
        share = f"{len(early):,} of {figures.baseline.attempted:,}"
        yield VerdictReason(
            ReasonCode.UNHEALTHY_BEFORE,
            f"unhealthy before the first restart: {share} attempts failed ({causes(early, settings)})",
        )
    for outage in record.outages:
        if outage.begin < measured.begin:
            why = f": {outage.reason}" if outage.reason else ""
            yield VerdictReason(
                ReasonCode.NOT_CARRIED_BEFORE,
                f"the rules did not carry {outage.family} egress before the first restart{why}",
            )
            break
    early_leaks = sum(1 for leak in record.leaks if leak.t < measured.begin)
    if early_leaks:
        yield VerdictReason(
            ReasonCode.LEAKED_BEFORE,
            f"{plural(early_leaks, 'packet')} left with a pod's source address before the first restart",
        )


def _failures(
    record: Record, figures: Figures, settings: Settings, losses: Sequence[ExplainedLoss]
) -> Iterable[VerdictReason]:
    measured = record.measured
    blamed = [one for one in losses if measured.holds(one.loss.t) and one.blames_agent]
    if blamed:
        yield VerdictReason(
            ReasonCode.LOST, f"lost {len(blamed):,} of {figures.attempted:,} attempts ({causes(blamed, settings)})"
        )
    unlisted = figures.lost - len(losses)
    if unlisted > 0:
        yield VerdictReason(
            ReasonCode.LOST_UNLISTED, f"lost {unlisted:,} attempts that the prober counted without saying which"
        )
    gaps = [one for one in record.outages if measured.holds(one.begin)]
    if gaps:
        longest = duration(max(one.length for one in gaps) / 1e6)
        total = duration(sum(one.length for one in gaps) / 1e6)
        writers = [one.opened_by for one in gaps]
        made = {program(by.comm, by.argv) if by and by.comm else "an unknown writer" for by in writers}
        by = f", made by {', '.join(sorted(made))}" if made else ""
        many = f"{plural(len(gaps), 'gap')} in the rules: longest {longest}, {total} in all" if len(gaps) > 1 else ""
        unnoticed = "" if blamed or figures.leaked else "; no attempt happened to fall into one"
        yield VerdictReason(ReasonCode.GAP, (many or f"a gap of {longest} in the rules") + by + unnoticed)
        still = [one for one in gaps if one.open]
        if still:
            yield VerdictReason(
                ReasonCode.NOT_CARRIED_AT_END,
                f"the rules did not carry {still[-1].family} egress when the drill ended: {still[-1].reason}",
            )
    # the first packets have events of their own: those that were only counted came after the first restart
    seen = figures.leaked if any(measured.holds(leak.t) for leak in record.leaks) else counted_leaks(record)
    leaked = seen - written_leaks(record, before=measured.begin)
    if leaked > 0:
        yield VerdictReason(ReasonCode.LEAKED, f"{plural(leaked, 'packet')} left the node with a pod's source address")
    if figures.lost_outside:
        ours = settings.target == "cluster" and settings.far_end
        far_end = "the far end is a node of the cluster and" if ours else "this far end"
        yield VerdictReason(
            ReasonCode.LOST_OUTSIDE,
            f"{plural(figures.lost_outside, 'connection')} answered only because {far_end} knows a way back to pods: "
            "lost to anything outside the cluster",
        )
    if figures.poisoned and blamed:
        more = "more than " if figures.unrecovered else ""
        flows = "flow was" if figures.poisoned == 1 else "flows were"
        slowest = duration(figures.slowest_recovery_ms)
        yield VerdictReason(
            ReasonCode.POISONED,
            f"{figures.poisoned:,} {flows} still dead after the rules were back, the slowest for {more}{slowest}",
        )
    broken = [one for one, counts in explain_breaks(record) if counts and measured.holds(one.t)]
    if broken:
        yield VerdictReason(ReasonCode.STREAMS_BROKEN, f"{plural(len(broken), 'long-lived stream')} broke")


def _bridged(figures: Figures) -> Iterable[VerdictReason]:
    """What a guard's standby on the node carried."""
    if not figures.standby:
        return
    whose = "of a guard at work" if figures.standby == "at work" else "that a guard which is gone has left"
    if not figures.bridged_gaps and not figures.bridged_flows:
        yield VerdictReason(
            ReasonCode.STANDBY_NOT_NEEDED,
            f"a standby {whose} is on the node; it was not needed: the agent's own rules carried egress",
        )
        return
    flows = f"{plural(figures.bridged_flows, 'flow')} carried"
    gaps = f"{plural(figures.bridged_gaps, 'gap')} of the agent's rules ({duration(figures.bridged_ms)} in all)"
    yield VerdictReason(
        ReasonCode.STANDBY_BRIDGED,
        f"a standby {whose} is on the node and bridged {gaps}, {flows}: without it pods would have felt them",
    )


def _passed(record: Record, figures: Figures, settings: Settings) -> Iterable[VerdictReason]:
    lost = f"0 of {figures.attempted:,} attempts lost over {plural(figures.restarts, 'restart')}"
    if settings.by_traffic:
        yield VerdictReason(
            ReasonCode.NOTHING_LOST, f"{lost}; judged by traffic alone: this agent's rules are not known here"
        )
    else:
        yield VerdictReason(
            ReasonCode.NOTHING_LOST,
            f"{lost}; the rules carried egress throughout ({plural(figures.rule_changes, 'rule change')} seen)",
        )
    yield from _bridged(figures)
    if figures.delayed:
        yield VerdictReason(ReasonCode.DELAYED, f"{plural(figures.delayed, 'attempt')} answered only after a retry")
