"""Reads the DaemonSet, its nodes and its pods, and whether the DaemonSet is as this rollout left it.

Problem: the record may be older than what happened. Promise: every decision is made from what the API says now; if
somebody else changed the DaemonSet, that is reported with the name of the field manager. Writes nothing. Next stages:
``node_order``, ``driver``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hitless.cleaning import clean
from hitless.errors import ApiError
from hitless.kube.api import Api
from hitless.kube.objects import (
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    NODES,
    PODS,
    ControllerRevision,
    DaemonSet,
    Node,
    Pod,
)
from hitless.kube.placement import runs_on
from hitless.operations.rollout.values import Rollout

__all__ = ["HASH", "MARK", "ObservedAgent", "foreign", "hash_of", "newest", "revisions", "see"]

HASH = "controller-revision-hash"
"""The label of pods and ControllerRevisions that names a revision."""
MARK = "hitless.dev/rollout"
"""The annotation of a DaemonSet that a rollout changes: the rollout's identity and direction."""
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class ObservedAgent:
    """``daemon_set`` is None when it is gone. ``nodes``: Linux nodes that it runs on, by name; ``pods``: its pods that
    are not being deleted, ``ending``: those that are, by node."""

    daemon_set: DaemonSet | None
    nodes: Mapping[str, Node]
    pods: Mapping[str, Pod]
    ending: Mapping[str, Pod]

    def has(self, node: str, uid: str) -> bool:
        """Whether the pod with this uid exists and is not being deleted."""
        pod = self.pods.get(node)
        return pod is not None and pod.metadata.uid == uid


async def see(api: Api, namespace: str, name: str) -> ObservedAgent:
    """Read all of it once."""
    nodes = {node.name: node for node in await api.all(NODES)}
    try:
        one = await api.get(DAEMON_SETS, name, namespace)
    except ApiError as error:
        if error.status != 404:
            raise
        return ObservedAgent(None, nodes, {}, {})
    own = [
        pod
        for pod in await api.all(PODS, namespace, labels=one.selector)
        if pod.owner is not None and pod.owner.uid == one.metadata.uid and pod.spec.node_name
    ]
    return ObservedAgent(
        one,
        {name: node for name, node in nodes.items() if _linux(node) and runs_on(one, node)},
        {pod.spec.node_name: pod for pod in own if pod.metadata.deletion_timestamp is None},
        {pod.spec.node_name: pod for pod in own if pod.metadata.deletion_timestamp is not None},
    )


def _linux(node: Node) -> bool:
    return node.status.node_info.operating_system in ("", "linux")


def hash_of(pod: Pod | None) -> str:
    """The revision that a pod was made from; empty where there is none."""
    return pod.label(HASH) if pod is not None else ""


def foreign(state: Rollout, now: DaemonSet | None) -> str:
    """Why the DaemonSet is not as this rollout left it; empty when it is."""
    if now is None:
        return f"the DaemonSet {state.agent} was deleted by somebody else"
    if now.metadata.uid != state.uid:
        return f"the DaemonSet {state.agent} was deleted and made again by somebody else"
    if now.metadata.generation == state.generation:
        return ""
    hint = "is it kept by Argo CD, Flux or Helm? Pause that, or roll out there"
    return f"the DaemonSet {state.agent} was changed meanwhile{_by(now)}: {hint}"


def _by(now: DaemonSet) -> str:
    """Who changed it last, as far as managedFields say."""
    fields = [one for one in now.metadata.managed_fields or [] if not one.subresource and one.time]
    last = max(fields, key=lambda one: one.time, default=None)
    return f" by {clean(last.manager, _LONGEST)} at {clean(last.time, _LONGEST)}" if last is not None else ""


async def revisions(api: Api, one: DaemonSet) -> list[ControllerRevision]:
    """Its revisions, the oldest first."""
    found = await api.all(CONTROLLER_REVISIONS, one.metadata.namespace, labels=one.selector)
    own = [
        each for each in found if any(owner.uid == one.metadata.uid for owner in each.metadata.owner_references or [])
    ]
    return sorted(own, key=lambda each: each.revision)


def newest(found: list[ControllerRevision]) -> str:
    """The hash of the latest one; empty where there is none."""
    return found[-1].label(HASH) if found else ""
