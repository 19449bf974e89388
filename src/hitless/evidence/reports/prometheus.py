"""Prometheus text for node_exporter's textfile collector or a Pushgateway: gauges of one drill, labelled by agent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hitless.cleaning import cleaned
from hitless.daemon.exposition import Sample, exposition
from hitless.evidence import provenance
from hitless.evidence.records import RecordedDrill
from hitless.evidence.verdict import Verdict

__all__ = ["render"]

_GAUGES = (
    ("rounds", "rounds", 1.0, "Rounds of restart that came to ready again."),
    ("restarts", "restarts", 1.0, "Times the agent was started again."),
    ("attempted", "attempts", 1.0, "Connections attempted, baseline and recovery included."),
    ("lost", "lost", 1.0, "Connections lost."),
    ("asked", "planned_attempts", 1.0, "Connections that should have been attempted: those sent and those skipped."),
    ("skipped", "skipped", 1.0, "Planned connections that the prober could not attempt."),
    ("undecided", "undecided", 1.0, "Connections without an answer yet when the record ended."),
    ("delayed", "delayed", 1.0, "Connections answered only after a retry."),
    ("gaps", "gaps", 1.0, "Times in which the rules did not carry egress."),
    ("longest_gap_ms", "longest_gap_seconds", 1e-3, "The longest gap."),
    ("gap_ms", "gap_seconds", 1e-3, "All gaps together."),
    ("bridged_gaps", "bridged_gaps", 1.0, "Gaps of the agent's rules that a guard's standby carried."),
    ("bridged_flows", "bridged_flows", 1.0, "Flows that a guard's standby carried."),
    ("leaked", "leaked_packets", 1.0, "Packets that left the node with a pod's source address."),
    ("lost_outside", "lost_outside", 1.0, "Connections answered un-translated: lost to anything outside the cluster."),
    ("poisoned", "poisoned_flows", 1.0, "Flows that stayed dead after the rules were back."),
    ("unrecovered", "unrecovered_flows", 1.0, "Poisoned flows that had not recovered at the end."),
    ("slowest_recovery_ms", "slowest_recovery_seconds", 1e-3, "How long the slowest poisoned flow was dead."),
    ("broken_streams", "broken_streams", 1.0, "Long-lived streams that broke."),
    ("time_to_ready_ms", "time_to_ready_seconds", 1e-3, "The longest time from a stop to ready again."),
    ("cannot_tell_ms", "cannot_tell_seconds", 1e-3, "Time in which the rules were not known or not understood."),
    ("prober_lag_ms", "prober_lag_seconds", 1e-3, "How late the prober was at most."),
)


_OTHERS = {
    "pod_to_pod_attempted": "Connections attempted between pods of different nodes.",
    "pod_to_pod_lost": "Connections lost between pods of different nodes.",
    "stand_in": "1 for an agent that replays another program's commands, 0 for a real one.",
    "verdict": "1 for the verdict that the agent got.",
    "reasons": "Reasons for the verdict, by their code.",
    "judged": "1 for an agent whose verdict is the drill's; of several the worst is.",
    "log_complete": "1 if the drill came to its end, 0 if its log is cut off.",
    "info": "Where and with what the drill was recorded; always 1.",
    "end_timestamp_seconds": "When the drill's last event was recorded.",
}
_KNOWN = {
    f"hitless_drill_{name}": ("gauge", text)
    for name, text in (*((name, text) for _, name, _, text in _GAUGES), *_OTHERS.items())
}


def _samples(recorded: RecordedDrill, verdict: Verdict) -> Iterator[tuple[str, float, dict[str, str]]]:
    recorded, verdict = cleaned((recorded, verdict))
    for agent in verdict.agents:
        of_agent = {"agent": agent.agent}
        for key, name, scale, _ in _GAUGES:
            if key == "leaked" and not agent.leaks_known:
                continue  # unknown: a sample of 0 would be wrong
            yield name, round(getattr(agent, key) * scale, 6), of_agent
        if agent.pod_to_pod.attempted:
            yield "pod_to_pod_attempted", agent.pod_to_pod.attempted, of_agent
            yield "pod_to_pod_lost", agent.pod_to_pod.lost, of_agent
        yield "stand_in", agent.stand_in, of_agent
        for value in ("pass", "fail", "inconclusive"):
            yield "verdict", agent.verdict == value, {**of_agent, "verdict": value}
        for code, number in sorted(Counter(agent.reason_codes).items()):
            yield "reasons", number, {**of_agent, "reason": code}
        yield "judged", agent.agent in verdict.judged, of_agent
    yield "log_complete", verdict.whole, {}
    found = provenance.provenance(recorded)
    facts = {"drill": found.drill, "host": found.host, "kernel": found.kernel, "version": found.version}
    facts["log_sha256"] = found.log_sha256
    forced = recorded.header.config.get("forced") if recorded.header is not None else None
    if isinstance(forced, str) and forced:
        facts["forced_window"] = forced
    yield "info", 1, facts
    yield "end_timestamp_seconds", max((record.last for record in recorded.records), default=0) // 1_000_000_000, {}


def render(recorded: RecordedDrill, verdict: Verdict) -> str:
    """The metrics as text."""
    samples = (Sample(f"hitless_drill_{name}", value, labels) for name, value, labels in _samples(recorded, verdict))
    return exposition(_KNOWN, samples)
