"""The guard's metrics.

Promise: bounded labels (writers beyond 64 are "other"); made at each request. The alert rules that go with them are in
deploy/chart/files/alerts.yaml.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hitless import __version__
from hitless.daemon.exposition import Sample, exposition, label_text
from hitless.guard.reasons import PROTECTING, GuardState
from hitless.guard.reporting import Numbers, Reporter

__all__ = ["render"]

_HELP = {
    "hitless_guard_protected": ("gauge", "1 while a standby for a pod network is in the kernel."),
    "hitless_guard_withdrawn": ("gauge", "1 while the standby has withdrawn, or cannot tell what the primary means."),
    "hitless_guard_gap_open": ("gauge", "1 while the primary does not carry the pods' egress."),
    "hitless_guard_gaps_total": ("counter", "Times in which the primary did not carry the pods' egress, by writer."),
    "hitless_guard_gap_seconds_total": ("counter", "How long they lasted."),
    "hitless_guard_uncovered_gaps_total": ("counter", "Gaps that the standby did not cover from begin to end."),
    "hitless_guard_forward_gap_open": ("gauge", "1 while forwarding drops pods' new flows."),
    "hitless_guard_forward_gaps_total": ("counter", "Times in which forwarding dropped pods' flows."),
    "hitless_guard_forward_gap_seconds_total": ("counter", "How long they lasted."),
    "hitless_guard_pods": ("gauge", "Pods that were asked about."),
    "hitless_guard_pods_not_carried": ("gauge", "Pods of them that the rules cut off: by a policy, or by damage."),
    "hitless_guard_carried_flows_total": ("counter", "Flows that the standby translated: without it they were lost."),
    "hitless_guard_leaked_packets_total": ("counter", "Packets that left un-translated and should not have."),
    "hitless_guard_healed_flows_total": ("counter", "Flows freed from a binding without translation."),
    "hitless_guard_lost_events_total": ("counter", "Times that the kernel dropped events for the guard."),
    "hitless_guard_records_lost_total": ("counter", "Records that could not be written to the journal."),
    "hitless_guard_visitors_turned_away_total": (
        "counter",
        "Connections to this page's address that were too slow or too many.",
    ),
    "hitless_guard_problem": ("gauge", "1 while the guard cannot do its work."),
    "hitless_build_info": ("gauge", "This version."),
}


def render(reporter: Reporter, turned_away: int = 0) -> str:
    """The whole page."""
    return exposition(_HELP, _samples(reporter, turned_away))


def _samples(reporter: Reporter, turned_away: int) -> Iterator[Sample]:
    for family, numbers in reporter.numbers.items():
        yield from _of_family(numbers, family.value)
    families = reporter.status.get("families", {})
    for name, facts in families.items() if isinstance(families, dict) else ():
        of_family, state = {"family": name}, facts["state"]
        yield Sample("hitless_guard_protected", state in PROTECTING, of_family)
        yield Sample("hitless_guard_withdrawn", state == GuardState.WITHDRAWN, of_family)
        yield Sample("hitless_guard_gap_open", bool(facts["gap_since"]), of_family)
        yield Sample("hitless_guard_forward_gap_open", bool(facts["forward_gap_since"]), of_family)
        yield Sample("hitless_guard_pods", facts.get("pods", 0), of_family)
        yield Sample("hitless_guard_pods_not_carried", facts.get("pods_not_carried", 0), of_family)
    yield Sample("hitless_guard_lost_events_total", reporter.counts["lost_events"])
    lost = reporter.status.get("records_lost", 0)
    yield Sample("hitless_guard_records_lost_total", lost if isinstance(lost, int) else 0)
    yield Sample("hitless_guard_visitors_turned_away_total", turned_away)
    yield Sample("hitless_guard_problem", bool(reporter.status.get("problem")))
    yield Sample("hitless_build_info", 1, {"version": __version__})


def _of_family(numbers: Numbers, family: str) -> Iterator[Sample]:
    gaps: Counter[str] = Counter()  # two names may be the same when they are clean: one series, and all of its gaps
    for writer, count in numbers.gaps.items():
        gaps[label_text(writer)] += count
    for writer, count in gaps.items():
        yield Sample("hitless_guard_gaps_total", count, {"family": family, "writer": writer})
    for name, value in (
        ("gap_seconds", numbers.gap_ns / 1e9),
        ("uncovered_gaps", numbers.uncovered),
        ("forward_gaps", numbers.forward_gaps),
        ("forward_gap_seconds", numbers.forward_gap_ns / 1e9),
        ("carried_flows", numbers.carried),
        ("leaked_packets", numbers.leaked),
        ("healed_flows", numbers.healed),
    ):
        yield Sample(f"hitless_guard_{name}_total", value, {"family": family})
