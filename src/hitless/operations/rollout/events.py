"""Kubernetes Events of a rollout: the outcome of each node's step. Building them is pure.

Promise: one Event for each node and step, about the node, with the verdict, the losses and the reason; posting never
decides whether a rollout goes on. Next stage: ``hitless.cli.rollout_work``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from hitless.cleaning import clean
from hitless.cluster.manifests import Document
from hitless.errors import HitlessError
from hitless.kube.api import Api
from hitless.kube.objects import EVENTS
from hitless.operations.rollout.values import NodeTurn, Rollout

__all__ = ["document", "post"]

_LONGEST = 1024  # what the API takes as an Event's message
_REASONS = {"pass": "RolloutStepPassed", "fail": "RolloutStepFailed", "inconclusive": "RolloutStepInconclusive"}


def document(state: Rollout, turn: NodeTurn, now: dt.datetime) -> Document:
    """The Event about a node that was restarted. Events about nodes live in the namespace ``default``."""
    verdict = turn.verdict or "inconclusive"
    what = f"{'undo of ' if state.direction == 'undo' else ''}{state.change.description} of {state.agent}"
    why = f"; {turn.reason}" if turn.reason else ""
    time = now.astimezone(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    name = f"hitless-rollout-{state.drill or state.identity}-{turn.node}"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name[:253].rstrip("-."), "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": turn.node, "uid": turn.node},
        "reason": _REASONS[verdict],
        "message": clean(f"{what}: {verdict}, {turn.lost:,} of {turn.attempted:,} connections lost{why}", _LONGEST),
        "type": "Normal" if verdict == "pass" else "Warning",
        "source": {"component": "hitless-rollout", "host": turn.node},
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    }


async def post(api: Api, state: Rollout, turns: Sequence[NodeTurn], tell: Callable[[str], None]) -> None:
    """Post those of a step; ``tell`` is called when that fails."""
    now = dt.datetime.now(dt.UTC)
    for one in turns:
        try:
            await api.create(EVENTS, document(state, one, now), "default")
        except HitlessError as error:
            tell(f"the Event of {one.node} could not be posted: {error}")
