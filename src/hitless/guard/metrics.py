"""The guard's numbers in Prometheus' text form (0.0.4).

Promise: bounded labels (writers beyond 64 are "other"), escaped; rendered when asked. The alert rules that go with them
are in deploy/chart/files/alerts.yaml.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hitless import __version__
from hitless.cleaning import clean
from hitless.guard.reporting import Numbers, Reporter

__all__ = ["render"]

_LONGEST_LABEL = 200

_HELP = {
    "hitless_guard_protected": ("gauge", "1 while a standby for a pod network stands in the kernel."),
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
    samples: dict[str, list[str]] = {name: [] for name in _HELP}
    for family, numbers in reporter.numbers.items():
        for name, labels, value in _family(numbers):
            text = ",".join(f'{key}="{_escape(word)}"' for key, word in {"family": family.value, **labels}.items())
            samples[name].append(f"{name}{{{text}}} {value:.10g}")
    families = reporter.status.get("families", {})
    for name, facts in families.items() if isinstance(families, dict) else ():
        state = facts["state"]
        for metric, holds in (
            ("hitless_guard_protected", state in ("standing by", "carrying")),
            ("hitless_guard_withdrawn", state == "withdrawn"),
            ("hitless_guard_gap_open", bool(facts["gap_since"])),
            ("hitless_guard_forward_gap_open", bool(facts["forward_gap_since"])),
        ):
            samples[metric].append(f'{metric}{{family="{name}"}} {int(holds)}')
        for metric, number in (
            ("hitless_guard_pods", facts.get("pods", 0)),
            ("hitless_guard_pods_not_carried", facts.get("pods_not_carried", 0)),
        ):
            samples[metric].append(f'{metric}{{family="{name}"}} {number}')
    samples["hitless_guard_lost_events_total"].append(
        f"hitless_guard_lost_events_total {reporter.counts['lost_events']}"
    )
    samples["hitless_guard_records_lost_total"].append(
        f"hitless_guard_records_lost_total {reporter.status.get('records_lost', 0)}"
    )
    samples["hitless_guard_visitors_turned_away_total"].append(
        f"hitless_guard_visitors_turned_away_total {turned_away}"
    )
    samples["hitless_guard_problem"].append(f"hitless_guard_problem {int(bool(reporter.status.get('problem')))}")
    samples["hitless_build_info"].append(f'hitless_build_info{{version="{__version__}"}} 1')
    lines: list[str] = []
    for name, (kind, words) in _HELP.items():
        lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}", *samples[name]]
    return "\n".join(lines) + "\n"


def _family(numbers: Numbers) -> Iterator[tuple[str, dict[str, str], float]]:
    gaps: Counter[str] = Counter()  # two names may be the same when they are clean, and a series must not come twice
    for writer, count in numbers.gaps.items():
        gaps[clean(writer, _LONGEST_LABEL)] += count
    for writer, count in gaps.items():
        yield "hitless_guard_gaps_total", {"writer": writer}, count
    yield "hitless_guard_gap_seconds_total", {}, numbers.gap_ns / 1e9
    yield "hitless_guard_uncovered_gaps_total", {}, numbers.uncovered
    yield "hitless_guard_forward_gaps_total", {}, numbers.forward_gaps
    yield "hitless_guard_forward_gap_seconds_total", {}, numbers.forward_gap_ns / 1e9
    yield "hitless_guard_carried_flows_total", {}, numbers.carried
    yield "hitless_guard_leaked_packets_total", {}, numbers.leaked
    yield "hitless_guard_healed_flows_total", {}, numbers.healed


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
