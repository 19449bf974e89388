"""On which nodes a DaemonSet runs its pods, by the rules of its controller. Pure.

Problem: advice about a network agent must leave out the nodes where it does not run (Windows, other architectures,
nodes that a selector excludes), and reading pods needs more rights than reading DaemonSets. Promise: node selector,
required node affinity and taints are weighed as the DaemonSet controller weighs them; an operator that is not known
excludes nothing. Source: "How Daemon Pods are scheduled" and the API reference of NodeSelectorTerm and Toleration.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.kube.objects import DaemonSet, Node, NodeSelectorTerm, Taint, Toleration

__all__ = ["runs_on"]

_ALWAYS_TOLERATED = (
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",  # for pods on the host's network, as network agents are
)


def runs_on(daemon_set: DaemonSet, node: Node) -> bool:
    """Whether the DaemonSet's controller makes a pod for this node."""
    spec = daemon_set.spec.template.spec
    labels = _labels(node)
    if any(labels.get(key) != value for key, value in (spec.node_selector or {}).items()):
        return False
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required if affinity else None
    if required is not None and not any(
        _matches(term, labels, node.name) for term in required.node_selector_terms or []
    ):
        return False
    return all(_tolerated(taint, spec.tolerations or []) for taint in node.spec.taints or [])


def _labels(node: Node) -> Mapping[str, str]:
    """The node's labels; those that every kubelet sets are known from its status too."""
    info = node.status.node_info
    known = {"kubernetes.io/os": info.operating_system, "kubernetes.io/arch": info.architecture}
    known |= {f"beta.{key}": value for key, value in known.items()} | {"kubernetes.io/hostname": node.name}
    return {key: value for key, value in known.items() if value} | (node.metadata.labels or {})


def _matches(term: NodeSelectorTerm, labels: Mapping[str, str], name: str) -> bool:
    """All requirements of a term hold; a term without any matches no node."""
    by_label, by_field = term.match_expressions or [], term.match_fields or []
    fields = {"metadata.name": name}
    return bool(by_label or by_field) and (
        all(one.holds(labels) for one in by_label) and all(one.holds(fields) for one in by_field)
    )


def _tolerated(taint: Taint, tolerations: list[Toleration]) -> bool:
    if taint.effect not in ("NoSchedule", "NoExecute") or taint.key in _ALWAYS_TOLERATED:
        return True
    return any(
        one.effect in ("", taint.effect)
        and (
            (one.operator == "Exists" and one.key in ("", taint.key))
            or (one.key, one.value) == (taint.key, taint.value)
        )
        for one in tolerations
    )
