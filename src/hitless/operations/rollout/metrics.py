"""A rollout's metrics in Prometheus' text format, from its record alone. Pure.

Promise: gauges that say whether it is driven, stopped or ended, how many nodes are where, and what each finished node
lost; the time of the last change, so that a rollout that hangs can be alerted on. Next stage:
``hitless.cli.rollout_metrics``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import get_args

from hitless.cleaning import cleaned
from hitless.daemon.exposition import Sample, exposition
from hitless.operations.rollout.values import UNTOUCHED, Course, Rollout, VerdictName, verdict

__all__ = ["render"]

_STATES = ("driven", "stopped", "ended")
_HELP = {
    "info": "Which rollout this is, and who drives it; always 1.",
    "state": "1 for the state that it is in: driven, stopped (it can be resumed) or ended.",
    "verdict": "1 for what it came to so far, over all nodes that were restarted.",
    "nodes": "Nodes by the state of their turn.",
    "attempted": "Connections attempted while the agents of finished nodes were restarted.",
    "lost": "Of these, connections lost.",
    "unseen_nodes": "Nodes that were restarted while nothing measured them.",
    "node_attempted": "Connections attempted on a finished node.",
    "node_lost": "Connections lost on a finished node.",
    "node_verdict": "1 for the verdict of a finished node.",
    "forced_windows": "Times that it was driven outside of its maintenance windows (--force-window).",
    "begin_timestamp_seconds": "When it began.",
    "end_timestamp_seconds": "When it ended.",
    "update_timestamp_seconds": "When these metrics were written: at the begin, after each step, at the end.",
}
_KNOWN = {f"hitless_rollout_{name}": ("gauge", text) for name, text in _HELP.items()}


def render(state: Rollout, at: dt.datetime) -> str:
    """The gauges as text; ``at``: now."""
    samples = (Sample(f"hitless_rollout_{name}", value, labels) for name, value, labels in _samples(state, at))
    return exposition(_KNOWN, samples)


def _samples(state: Rollout, at: dt.datetime) -> Iterator[tuple[str, float, dict[str, str]]]:
    state = cleaned(state)
    agent = {"agent": state.agent}
    facts = {"rollout": state.identity, "change": state.change.kind, "direction": state.direction}
    yield "info", 1, {**agent, **facts, "driver": state.driver}
    now = "ended" if state.phase == "ended" else "driven" if state.driver else "stopped"
    for one in _STATES:
        yield "state", one == now, {**agent, "state": one}
    touched = any(turn.course not in UNTOUCHED for turn in state.turns)
    for name in get_args(VerdictName):
        yield "verdict", touched and verdict(state.turns) == name, {**agent, "verdict": name}
    for course in get_args(Course):
        yield "nodes", sum(turn.course == course for turn in state.turns), {**agent, "state": course}
    yield "attempted", sum(turn.attempted for turn in state.turns), agent
    yield "lost", sum(turn.lost for turn in state.turns), agent
    yield "unseen_nodes", sum(turn.unseen for turn in state.turns), agent
    for turn in state.turns:
        if turn.course == "done":
            of_node = {**agent, "node": turn.node}
            yield "node_attempted", turn.attempted, of_node
            yield "node_lost", turn.lost, of_node
            for name in get_args(VerdictName):
                yield "node_verdict", turn.verdict == name, {**of_node, "verdict": name}
    yield "forced_windows", len(state.forced), agent
    for key, text in (("begin_timestamp_seconds", state.begun), ("end_timestamp_seconds", state.ended)):
        if text:
            yield key, int(dt.datetime.fromisoformat(text).timestamp()), agent
    yield "update_timestamp_seconds", int(at.timestamp()), agent
