"""Which nodes of a cluster are meant, and every reason not to touch them now.

Problem: a drill or a rollout on an unhealthy cluster would measure other problems. Promise: nodes are chosen by name,
number, labels or in turn; all objections are collected and reported together. Pure. Next stages: ``hitless.cluster``,
``hitless.operations``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.errors import InputError
from hitless.kube.objects import DaemonSet, DisruptionBudget, Node
from hitless.survey.cni import Survey

__all__ = ["choose", "exhausted", "objections", "selected"]


def choose(
    survey: Survey, names: Sequence[str], count: int | None, selector: str, *, after: str | None = None
) -> tuple[Node, ...]:
    """The nodes to drill: those named, or ``count`` (default 1) of those that the selector takes, workers first.

    ``after``: in turn, those that follow this name (empty: from the first).
    """
    by_name = {node.name: node for node in survey.nodes}
    if names:
        missing = [name for name in names if name not in by_name]
        if missing:
            raise InputError(
                f"there is no node {missing[0]!r}", where="--node", expected=", ".join(by_name) or "a node"
            )
        return tuple(by_name[name] for name in dict.fromkeys(names))
    fit = [node for node in survey.nodes if selected(node, selector) and _linux(node)]
    if after is None:
        fit.sort(key=lambda node: (_control_plane(node), not node.ready, node.name))
    else:
        fit.sort(key=lambda node: (node.name <= after, node.name))
    wanted = 1 if count is None else count
    if len(fit) < wanted:
        raise InputError(
            f"only {len(fit)} nodes fit" if fit else "no node fits",
            where="--nodes",
            expected=f"1 to {len(fit)}" if fit else "another --node-selector: no node has these labels and is Ready",
        )
    return tuple(fit[:wanted])


def _linux(node: Node) -> bool:
    return node.status.node_info.operating_system in ("", "linux")


def _control_plane(node: Node) -> bool:
    labels = node.metadata.labels or {}
    return any(
        key.startswith("node-role.kubernetes.io/") and key.endswith(("control-plane", "master")) for key in labels
    )


def selected(node: Node, selector: str) -> bool:
    """Whether the node has the labels; raises ``InputError`` for an invalid selector."""
    labels = node.metadata.labels or {}
    for term in filter(None, (part.strip() for part in selector.split(","))):
        key, sign, value = term.partition("=")
        if not key or key.endswith("!") or value.startswith("="):
            raise InputError(f"{term!r}", where="--node-selector", expected="KEY=VALUE or KEY, separated by commas")
        if key not in labels or (sign and labels[key] != value):
            return False
    return True


def objections(survey: Survey, chosen: Sequence[Node], *, by_rollout: bool = False) -> list[str]:
    """Every reason not to begin now; empty when there is none. ``by_rollout``: the DaemonSet is to replace its pods."""
    found = [f"node {node.name} is not ready" for node in survey.nodes if not node.ready]
    found += [f"node {node.name} is not a Linux node" for node in chosen if not _linux(node)]
    daemon_set = survey.cni.daemon_set
    if daemon_set is None:
        return found
    if by_rollout and daemon_set.spec.update_strategy.type == "OnDelete":
        found.append(
            f"DaemonSet {survey.cni.namespace}/{daemon_set.name} has updateStrategy OnDelete: a rollout does nothing"
        )
    status = daemon_set.status
    name = f"DaemonSet {survey.cni.namespace}/{daemon_set.name}"
    if status.number_ready < status.desired_number_scheduled:
        found.append(f"{name}: {status.number_ready} of {status.desired_number_scheduled} pods are ready")
    if status.observed_generation and status.observed_generation < daemon_set.metadata.generation:
        found.append(f"{name}: a change of it is still being carried out")
    return found + exhausted(survey.budgets, daemon_set, 1)


def exhausted(budgets: Iterable[DisruptionBudget], daemon_set: DaemonSet, pods: int) -> list[str]:
    """The PodDisruptionBudgets of a DaemonSet's pods that do not allow so many of them to go at once."""
    labels, found = daemon_set.spec.template.metadata.labels or {}, []
    for budget in budgets:
        allowed = budget.status.disruptions_allowed
        if budget.covers(labels) and allowed < pods:
            name = f"PodDisruptionBudget {daemon_set.metadata.namespace}/{budget.name}"
            few = f"allows {allowed} disruption{'' if allowed == 1 else 's'} now, and a step restarts {pods} pods"
            found.append(f"{name} {few if allowed else 'allows no disruption now'}")
    return found
