"""Counters and gauges, and Prometheus' text form of them.

Problem: the client library costs 10 MB and 0.1 s of start, and the agent has a dozen numbers. Promise: the text format
0.0.4, with HELP and TYPE; label values are bounded (a writer's name comes from outside), the rest is counted as
"other". One thread writes, one reads; numbers are plain.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.cleaning import clean

__all__ = ["Metrics"]

_MOST_LABELS = 64
_LONGEST_LABEL = 200

_KNOWN: Mapping[str, tuple[str, str]] = {
    "hitless_agent_ready": ("gauge", "1 while every rule stands and the egress path is carried."),
    "hitless_agent_passes_total": ("counter", "Comparisons of the node with what it should have."),
    "hitless_agent_transactions_total": ("counter", "Transactions committed, by backend."),
    "hitless_agent_plan_changes": ("gauge", "Changes that the last comparison asked for."),
    "hitless_agent_last_sync_timestamp_seconds": ("gauge", "When the node was last found, or made, as it should be."),
    "hitless_agent_repairs_total": ("counter", "Damage repaired, by who did it."),
    "hitless_agent_repair_seconds_sum": ("counter", "Time from the event that told of damage to its repair."),
    "hitless_agent_gaps_total": (
        "counter",
        "Times in which the rules did not carry the egress path, by who opened them.",
    ),
    "hitless_agent_gap_seconds_total": ("counter", "How long they lasted, as far as this agent saw."),
    "hitless_agent_healed_flows_total": ("counter", "Flows freed from a binding without translation."),
    "hitless_agent_fights_total": ("counter", "Times that another writer was found to undo our rules again and again."),
    "hitless_agent_errors_total": ("counter", "Failures, by kind."),
    "hitless_agent_event_lag_seconds": ("gauge", "From the last relevant kernel event to the look at the rules."),
    "hitless_agent_lost_events_total": ("counter", "Times that the kernel dropped events for us."),
    "hitless_agent_start_to_ready_seconds": ("gauge", "From this process's start to the first ready."),
    "hitless_agent_commands_total": ("counter", "Programs run."),
    "hitless_agent_visitors_turned_away_total": (
        "counter",
        "Connections to this page's address that were too slow or too many.",
    ),
    "hitless_build_info": ("gauge", "This version."),
}


class Metrics:
    """Numbers by name and labels."""

    def __init__(self) -> None:
        self._values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Count."""
        series, key = self._series(name, labels)
        series[key] = series.get(key, 0.0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        series, key = self._series(name, labels)
        series[key] = value

    def value(self, name: str, **labels: str) -> float:
        """What stands there; 0 where nothing does."""
        return self._values.get(name, {}).get(_key(labels), 0.0)

    def total(self, name: str) -> float:
        """The sum over all labels."""
        return sum(self._values.get(name, {}).values())

    def render(self) -> str:
        """Prometheus' text."""
        lines: list[str] = []
        for name, (kind, words) in _KNOWN.items():
            lines += [f"# HELP {name} {words}", f"# TYPE {name} {kind}"]
            series = dict(self._values.get(name, {}))
            if not series and kind == "counter":
                series = {(): 0.0}
            for key, value in sorted(series.items()):
                labels = ",".join(f'{label}="{_escape(text)}"' for label, text in key)
                lines.append(f"{name}{{{labels}}} {value:.10g}" if labels else f"{name} {value:.10g}")
        return "\n".join(lines) + "\n"

    def _series(
        self, name: str, labels: Mapping[str, str]
    ) -> tuple[dict[tuple[tuple[str, str], ...], float], tuple[tuple[str, str], ...]]:
        if name not in _KNOWN:
            raise KeyError(name)
        series = self._values.setdefault(name, {})
        key = _key(labels)
        if key not in series and len(series) >= _MOST_LABELS:
            key = tuple((label, "other") for label, _ in key)
        return series, key


def _key(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((label, clean(text, _LONGEST_LABEL)) for label, text in sorted(labels.items()))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
