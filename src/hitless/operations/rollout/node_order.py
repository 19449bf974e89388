"""Which nodes are next. Pure.

Problem: a rollout that reaches the second zone before the first one was judged can take down a whole service.
Promise: one zone after another, control planes last in theirs; a step never holds nodes of two zones, nor more nodes
than the width; the first step is a single node. Nodes that are not ready are left out with the reason, nodes that
left or joined are reported, and a node that somebody else restarted is not restarted again. Next stage: ``driver``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from hitless.kube.objects import Node
from hitless.operations.rollout.observation import ObservedAgent, hash_of
from hitless.operations.rollout.values import NodeTurn, Rollout, RolloutChoices

__all__ = ["OPEN", "ZONE", "largest_step", "next_step", "ordered", "reconciled", "steps", "zone_of"]

ZONE = "topology.kubernetes.io/zone"
_OLD_ZONE = "failure-domain.beta.kubernetes.io/zone"
OPEN = ("pending", "restarting")

_NOT_READY = "the node is not Ready"
_NO_POD = "it runs no pod of the DaemonSet"
_OTHERS = "somebody else restarted it while the rollout was under way"


def zone_of(node: Node) -> str:
    """Its zone; empty without one."""
    return node.label(ZONE) or node.label(_OLD_ZONE)


def ordered(nodes: Iterable[Node], choices: RolloutChoices) -> tuple[NodeTurn, ...]:
    """The turns in their order: ``first``, then zone by zone (those named first, the rest by name)."""
    zones = {name: place for place, name in enumerate(choices.zones)}
    first = {name: place for place, name in enumerate(choices.first)}

    def key(node: Node) -> tuple[int, int, str, bool, str]:
        zone = zone_of(node)
        return (first.get(node.name, len(first)), zones.get(zone, len(zones)), zone, _control_plane(node), node.name)

    return tuple(NodeTurn(node.name, zone_of(node)) for node in sorted(nodes, key=key))


def _control_plane(node: Node) -> bool:
    labels = node.metadata.labels or {}
    return any(
        key.startswith("node-role.kubernetes.io/") and key.endswith(("control-plane", "master")) for key in labels
    )


def reconciled(state: Rollout, seen: ObservedAgent) -> Rollout:
    """The turns, updated by the observed nodes and pods."""
    turns = [_turn(state, one, seen) for one in state.turns]
    known = {one.node for one in turns}
    if state.replaces:  # else a node that came was started after the rollout began
        for name in sorted(seen.nodes.keys() - known):
            runs = hash_of(seen.pods.get(name))
            new = NodeTurn(name, zone_of(seen.nodes[name]))
            turns.append(new if runs and runs != state.target else msgspec.structs.replace(new, course="joined"))
    return msgspec.structs.replace(state, turns=tuple(turns))


def _turn(state: Rollout, turn: NodeTurn, seen: ObservedAgent) -> NodeTurn:
    node, pod = seen.nodes.get(turn.node), seen.pods.get(turn.node)

    def now(**changes: object) -> NodeTurn:
        return msgspec.structs.replace(turn, **changes)

    if node is None:
        left = "the node left the cluster, or the DaemonSet does not run there any more"
        return turn if turn.course in ("done", "joined", "kept", "left") else now(course="left", reason=left)
    match turn.course:
        case "pending" | "skipped" | "left" if state.target and hash_of(pod) == state.target:
            return now(course="done", verdict="inconclusive", unseen=True, reason=_OTHERS)
        case "pending" | "skipped" if not node.ready:
            return now(course="skipped", reason=_NOT_READY)
        case "pending" | "skipped" if pod is None and turn.node not in seen.ending:
            return now(course="skipped", reason=_NO_POD)
        case "skipped":
            return now(course="pending", reason="")
        case "done" if state.target and pod is not None and hash_of(pod) != state.target:
            return now(course="pending", verdict="", unseen=False, reason="")
        case _:
            return turn


def next_step(turns: Sequence[NodeTurn], width: int) -> tuple[NodeTurn, ...]:
    """The next nodes: those whose restart has begun before all others."""
    begun = tuple(one for one in turns if one.course == "restarting")
    if begun:
        return begun
    waiting = [one for one in turns if one.course == "pending"]
    if not waiting:
        return ()
    alone = not any(one.course == "done" for one in turns)
    step = waiting[:1]
    for one in waiting[1:]:
        if alone or len(step) >= width or one.zone != step[0].zone:
            break
        step.append(one)
    return tuple(step)


def steps(turns: Sequence[NodeTurn], width: int) -> list[tuple[NodeTurn, ...]]:
    """All steps that are left, when everything goes well."""
    found, left = [], list(turns)
    while step := next_step(left, width):
        found.append(step)
        names = {one.node for one in step}
        left = [msgspec.structs.replace(one, course="done") if one.node in names else one for one in left]
    return found


def largest_step(state: Rollout) -> int:
    """How many nodes the largest of its remaining steps restarts at once; 1 at least."""
    return max((len(step) for step in steps(state.turns, state.choices.width)), default=1)
