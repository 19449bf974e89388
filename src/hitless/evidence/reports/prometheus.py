"""Prometheus text, for node_exporter's textfile collector or a push gateway: gauges of one drill, labelled by agent.

Written by hand: the format is a few lines, and a report must not need the metrics extra.
"""

from __future__ import annotations

from collections.abc import Iterable

from hitless.cleaning import cleaned
from hitless.evidence import citing
from hitless.evidence.records import Story
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
    ("slowest_recovery_ms", "slowest_recovery_seconds", 1e-3, "How long the slowest poisoned flow was dead."),
    ("broken_streams", "broken_streams", 1.0, "Long-lived streams that broke."),
    ("time_to_ready_ms", "time_to_ready_seconds", 1e-3, "The longest time from a stop to ready again."),
    ("prober_lag_ms", "prober_lag_seconds", 1e-3, "How late the prober was at most."),
)


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") if value % 1 else str(int(value))


def _lines(told: Story, verdict: Verdict) -> Iterable[str]:
    told, verdict = cleaned((told, verdict))
    for key, name, scale, text in _GAUGES:
        yield f"# HELP hitless_drill_{name} {text}"
        yield f"# TYPE hitless_drill_{name} gauge"
        for agent in verdict.agents:
            if key == "leaked" and not agent.leaks_known:
                continue  # no sample: 0 would be an answer
            yield f'hitless_drill_{name}{{agent="{_escape(agent.agent)}"}} {_number(getattr(agent, key) * scale)}'
    yield "# HELP hitless_drill_stand_in 1 for an agent that replays another program's commands, 0 for a real one."
    yield "# TYPE hitless_drill_stand_in gauge"
    for agent in verdict.agents:
        yield f'hitless_drill_stand_in{{agent="{_escape(agent.agent)}"}} {int(agent.stand_in)}'
    yield "# HELP hitless_drill_verdict 1 for the verdict that the agent got."
    yield "# TYPE hitless_drill_verdict gauge"
    for agent in verdict.agents:
        for word in ("pass", "fail", "inconclusive"):
            labels = f'agent="{_escape(agent.agent)}",verdict="{word}"'
            yield f"hitless_drill_verdict{{{labels}}} {int(agent.verdict == word)}"
    yield "# HELP hitless_drill_judged 1 for an agent whose verdict is the drill's; of several the worst is."
    yield "# TYPE hitless_drill_judged gauge"
    for agent in verdict.agents:
        yield f'hitless_drill_judged{{agent="{_escape(agent.agent)}"}} {int(agent.agent in verdict.judged)}'
    found = citing.provenance(told)
    facts = {"drill": found.drill, "host": found.host, "kernel": found.kernel, "version": found.version}
    facts["log_sha256"] = found.log_sha256
    forced = told.header.config.get("forced") if told.header is not None else None
    if isinstance(forced, str) and forced:
        facts["forced_window"] = forced
    named = ",".join(f'{key}="{_escape(text)}"' for key, text in facts.items())
    yield "# HELP hitless_drill_info Where and with what the drill was recorded; always 1."
    yield "# TYPE hitless_drill_info gauge"
    yield f"hitless_drill_info{{{named}}} 1"
    yield "# HELP hitless_drill_end_timestamp_seconds When the drill's last event was recorded."
    yield "# TYPE hitless_drill_end_timestamp_seconds gauge"
    last = max((record.last for record in told.records), default=0)
    yield f"hitless_drill_end_timestamp_seconds {last // 1_000_000_000}"


def render(told: Story, verdict: Verdict) -> str:
    """The gauges as text."""
    return "\n".join(_lines(told, verdict)) + "\n"
