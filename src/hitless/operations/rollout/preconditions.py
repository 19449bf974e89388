"""Checks before a rollout begins: the options, and every reason not to begin now. Writes nothing.

Problem: a wrong container name that is found at the third node leaves a broken cluster. Promise: a wrong option is
refused, with its name, before anything is changed; a DaemonSet that is still rolling, pods that are not ready and
disruption budgets that forbid it are all reported at once; nodes that are not Ready are left out and reported. Next
stage: ``driver``.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from hitless.errors import InputError
from hitless.kube.api import Api
from hitless.kube.objects import Container, DaemonSet, Node
from hitless.operations.rollout import daemonset, guards, node_order, observation
from hitless.operations.rollout.observation import ObservedAgent
from hitless.operations.rollout.ports import now
from hitless.operations.rollout.record import WHERE
from hitless.operations.rollout.values import MOST_NODES, NodeTurn, Rollout, RolloutChange, RolloutChoices
from hitless.survey.cni import Survey
from hitless.survey.nodes import exhausted, selected

__all__ = ["against", "image", "new", "patch", "undone"]


def image(daemon_set: DaemonSet, assignments: Sequence[str]) -> RolloutChange:
    """CONTAINER=IMAGE …; raises ``InputError`` for a container that is not there, and where nothing would change."""
    spec = daemon_set.spec.template.spec
    kinds: dict[str, Sequence[Container]] = {
        "containers": spec.containers or [],
        "initContainers": spec.init_containers or [],
    }
    known = {one.name: (kind, one) for kind, found in kinds.items() for one in found}
    chosen: dict[str, list[dict[str, str]]] = {}
    changed = False
    for assignment in assignments:
        name, sign, wanted = assignment.partition("=")
        if not sign or not wanted:
            raise InputError(
                f"{assignment!r} names no image", where="CONTAINER=IMAGE", expected=f"e.g. {_example(known)}"
            )
        if name not in known:
            raise InputError(f"there is no container {name!r}", where="CONTAINER=IMAGE", expected=", ".join(known))
        kind, container = known[name]
        if any(one["name"] == name for one in chosen.get(kind, ())):
            raise InputError(f"the container {name!r} was named twice", where="CONTAINER=IMAGE", expected="once")
        changed = changed or container.image != wanted
        chosen.setdefault(kind, []).append({"name": name, "image": wanted})
    if not changed:
        raise InputError(
            "these are the images that it has: nothing would change", where="CONTAINER=IMAGE", expected="another image"
        )
    return RolloutChange("image", f"image {' '.join(assignments)}", {"spec": chosen})


def _example(known: Mapping[str, tuple[str, Container]]) -> str:
    return next((f"{name}={one.image}" for name, (_, one) in known.items()), "kube-flannel=REGISTRY/flannel:v0.28.9")


def patch(document: Any, where: str) -> RolloutChange:
    """A strategic merge patch of the pod template, or (as kubectl takes it) of the DaemonSet's spec.template alone."""
    expected = "a pod template's metadata and spec, or spec: {template: …} as for kubectl patch daemonset"
    if not isinstance(document, dict) or not document:
        raise InputError("is not a mapping", where=where, expected=expected)
    spec = document.get("spec")
    if isinstance(spec, dict) and "template" in spec:
        for key in [*(one for one in document if one != "spec"), *(f"spec.{one}" for one in spec if one != "template")]:
            raise InputError(f"changes {key} too", where=where, expected="spec.template alone")
        document = spec["template"]
    if not isinstance(document, dict) or not document or set(document) - {"metadata", "spec"}:
        wrong = ", ".join(map(str, sorted(set(document) - {"metadata", "spec"}))) if isinstance(document, dict) else ""
        raise InputError(f"has the field {wrong}" if wrong else "changes nothing", where=where, expected=expected)
    if not all(isinstance(part, dict) for part in document.values()):
        raise InputError("its metadata or spec is not a mapping", where=where, expected=expected)
    return RolloutChange("patch", f"patch {where}", document)


async def new(
    api: Api, survey: Survey, change: RolloutChange, choices: RolloutChoices
) -> tuple[Rollout, ObservedAgent]:
    """The rollout as it would be written down first; raises ``InputError``."""
    daemon_set = survey.cni.daemon_set
    assert daemon_set is not None, "an agent without one was refused"
    place, name = survey.cni.namespace, daemon_set.name
    if change.patch is not None and (choices.nodes or choices.node_selector):
        raise InputError(
            "a new template reaches every node in the end",
            where="--node" if choices.nodes else "--node-selector",
            expected="--first NODE and --steps N, to restart some nodes before the others",
        )
    seen = await observation.see(api, place, name)
    nodes = _chosen(survey, seen, choices)
    if len(nodes) > MOST_NODES:
        raise InputError(f"{len(nodes):,} nodes", where="--node-selector", expected=f"at most {MOST_NODES:,} at a time")
    for one in choices.first:
        if all(one != node.name for node in nodes):
            names = ", ".join(node.name for node in nodes)
            raise InputError(f"{one!r} is not one of its nodes", where="--first", expected=names)
    zones = {node_order.zone_of(node) for node in nodes}
    for zone in choices.zones:
        if zone not in zones:
            raise InputError(f"no node is in zone {zone!r}", where="--zones", expected=", ".join(sorted(zones - {""})))
    before = ""
    if change.patch is not None:
        before = observation.newest(await observation.revisions(api, daemon_set))
    state = Rollout(
        identity=secrets.token_hex(4),
        namespace=place,
        name=name,
        uid=daemon_set.metadata.uid,
        change=change,
        choices=choices,
        generation=daemon_set.metadata.generation,
        strategy=daemonset.strategy_of(daemon_set) if change.patch is not None else None,
        before=before,
        turns=node_order.ordered(nodes, choices),
        begun=now(),
    )
    return node_order.reconciled(state, seen), seen


def _chosen(survey: Survey, seen: ObservedAgent, choices: RolloutChoices) -> list[Node]:
    found = list(seen.nodes.values())
    if choices.nodes:
        missing = [name for name in choices.nodes if name not in seen.nodes]
        if missing:
            raise InputError(f"{missing[0]!r} is not one of its nodes", where="--node", expected=", ".join(seen.nodes))
        return [seen.nodes[name] for name in dict.fromkeys(choices.nodes)]
    if choices.node_selector:
        fit = [node for node in found if selected(node, choices.node_selector)]
        if not fit:
            raise InputError("no node has these labels", where="--node-selector", expected="labels of a node of it")
        return fit
    if not found:
        raise InputError(f"{survey.cni.title} runs on no node", where="--agent", expected="one that does")
    return found


async def undone(api: Api, state: Rollout) -> Rollout:
    """The same rollout, going back: its nodes in the opposite order; raises ``InputError`` where none can."""
    if not state.replaces:
        raise InputError(
            "a restart changes nothing that could be put back", where="rollout undo", expected="hitless rollout end"
        )
    if state.direction == "undo":
        raise InputError(
            "it is being undone already" if state.phase != "ended" else "it was undone already",
            where="rollout undo",
            expected="hitless rollout resume" if state.phase != "ended" else "a rollout that was not",
        )
    seen = await observation.see(api, state.namespace, state.name)
    there = seen.daemon_set
    if there is None or (state.phase != "preparing" and observation.foreign(state, there)):
        raise InputError(
            observation.foreign(state, there), where=WHERE, expected="the DaemonSet as the rollout left it"
        )
    turns = []
    for one in reversed(state.turns):
        again = NodeTurn(one.node, one.zone)
        if one.course == "left":
            again = one
        elif observation.hash_of(seen.pods.get(one.node)) == state.before:
            again = replace(again, course="kept", reason="it has the former revision still")
        turns.append(again)
    return replace(
        state,
        direction="undo",
        phase="preparing",
        generation=there.metadata.generation,
        turns=tuple(turns),
        target="",
        ended="",
        stopped="",
    ).logged(f"{now()} undo begins")


async def against(api: Api, state: Rollout, survey: Survey, seen: ObservedAgent, *, known: str = "") -> list[str]:
    """Every reason not to begin it now; empty when there is none. ``known``: the rollout that is under way."""
    one = seen.daemon_set
    if one is None:
        return [observation.foreign(state, None)]
    found: list[str] = []
    name = f"DaemonSet {state.agent}"
    mark = (one.metadata.annotations or {}).get(observation.MARK, "")
    if mark and mark.partition(" ")[0] != known:
        found.append(
            f"{name} is in the hands of rollout {mark}, of which there is no record: look at its updateStrategy, then "
            f"kubectl -n {state.namespace} annotate daemonset {state.name} {observation.MARK}-"
        )
    if one.status.observed_generation and one.status.observed_generation < one.metadata.generation:
        found.append(f"{name}: a change of it is still being carried out")
    names = [turn.node for turn in state.turns if turn.course == "pending"]
    if not names:
        found.append("no node is left to restart: " + "; ".join(f"{turn.node}: {turn.reason}" for turn in state.turns))
    for node in names:
        pod = seen.pods.get(node)
        if pod is None or not pod.ready:
            found.append(f"the agent on {node} is not ready")
        elif state.before and observation.hash_of(pod) != state.before and one.spec.update_strategy.type != "OnDelete":
            found.append(f"{name}: a rollout of it is under way ({node} has not the latest revision)")
    found += exhausted(survey.budgets, one, node_order.largest_step(state))
    if state.choices.require_guard and (why := guards.missing(await guards.guarded(api), names)):
        found.append(why)
    return found
