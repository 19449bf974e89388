"""The methods of restarting a network agent through the Kubernetes API, each with everything about it.

Problem: a method needs permissions, has a text for dry runs, may hold a node back for minutes, takes a grace period or
not, and is recognised by what changes; a new method had to be added in nine places. Promise: an entry (``entry_of``)
has all of it, and a new method is one entry. Its ``begin`` makes the API requests; code that only reads entries
(options, permissions, plans) imports no client. Next stage: ``execution``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from hitless.errors import ApiError
from hitless.kube.objects import DAEMON_SETS, PODS

if TYPE_CHECKING:
    from hitless.kube.objects import Pod
    from hitless.restarts.agents import AgentPods, Kill, ReportStep

__all__ = ["ApiMethod", "MethodEntry", "entry_of"]


class ApiMethod(StrEnum):
    """How an agent is restarted."""

    DELETE_POD = "delete-pod"
    KILL = "kill"  # its container's process
    ROLLOUT_RESTART = "rollout-restart"
    EVICT = "evict"


Begin = Callable[["AgentPods", Mapping[str, "Pod"], "ReportStep", "Kill"], Awaitable[None]]
"""Begins the restart of the agent's pods, by node, and reports the first step."""


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """Everything about a method.

    ``call``: its text in a dry run, with {agent}, {place} and {container}; ``right``: the RBAC rule (group, resource,
    verb) that it needs in the agent's namespace in addition to reading, or None; ``named``: only for the agent's own
    object. ``everywhere``: it restarts the agent on all nodes, not only on the given ones. ``same_pod``: the pod stays,
    and its container is started again. ``sees_processes``: it needs access to the node's processes. ``held``: for how
    many seconds a kubelet may delay the next start. ``by_rollout``: it does nothing if the DaemonSet's update strategy
    is OnDelete.
    """

    begin: Begin
    call: str
    right: tuple[str, str, str] | None = None
    named: bool = False
    grace: bool = False
    everywhere: bool = False
    same_pod: bool = False
    sees_processes: bool = False
    held: float = 0.0
    by_rollout: bool = False


def entry_of(method: ApiMethod) -> MethodEntry:
    """The entry of a method."""
    match method:
        case ApiMethod.DELETE_POD:
            return _DELETE_POD
        case ApiMethod.KILL:
            return _KILL
        case ApiMethod.ROLLOUT_RESTART:
            return _ROLLOUT_RESTART
        case ApiMethod.EVICT:
            return _EVICT
        case _:
            assert_never(method)


async def _delete(agent: AgentPods, pods: Mapping[str, Pod], report: ReportStep, _: Kill) -> None:
    grace = "" if agent.grace is None else f", grace period {agent.grace} s"
    for node, pod in pods.items():
        report(node, "stop", f"pod {pod.name} deleted{grace}")
        await agent.api.delete(PODS, pod.name, agent.cni.namespace, grace=agent.grace, uid=pod.metadata.uid)


async def _kill(agent: AgentPods, pods: Mapping[str, Pod], report: ReportStep, kill: Kill) -> None:
    for node, pod in pods.items():
        container = pod.container(agent.cni.container)
        if container is None or not container.container_id:
            raise ApiError(f"pod {pod.name} on {node} does not report the id of its container {agent.cni.container}")
        report(node, "killed", f"container {agent.cni.container} of pod {pod.name}, SIGKILL")
        await kill(node, container.container_id)


async def _roll(agent: AgentPods, pods: Mapping[str, Pod], report: ReportStep, _: Kill) -> None:
    """Like kubectl: an annotation of the template with the time, but in microseconds: with seconds, a second restart
    within the same second would change nothing, and would not be rolled out."""
    assert agent.cni.daemon_set is not None
    for node in pods:
        report(node, "stop", "rollout restart of the DaemonSet")
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    annotations = {"kubectl.kubernetes.io/restartedAt": now}
    patch: dict[str, Any] = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    name, place = agent.cni.daemon_set.name, agent.cni.namespace
    await agent.api.patch(DAEMON_SETS, name, place, patch, "application/merge-patch+json")


async def _evict(agent: AgentPods, pods: Mapping[str, Pod], report: ReportStep, _: Kill) -> None:
    for node, pod in pods.items():
        report(node, "stop", f"pod {pod.name} evicted")
        try:
            await agent.api.evict(pod.name, agent.cni.namespace, grace=agent.grace)
        except ApiError as error:
            if error.status == 429:
                raise ApiError(f"the eviction of {pod.name} is not allowed now: {error}", status=429) from error
            raise


_DELETE_POD = MethodEntry(_delete, "delete the pod of {agent} in {place}", ("", "pods", "delete"), grace=True)
_KILL = MethodEntry(
    _kill,
    "exec in the node's watch pod: SIGKILL to the process of {agent}'s container {container}",
    same_pod=True,
    sees_processes=True,
    held=300.0,  # a kubelet waits 10 s, then twice as long each time, before it restarts a container
)
_ROLLOUT_RESTART = MethodEntry(
    _roll,
    "patch daemonsets/{agent} in {place} (an annotation of its template)",
    ("apps", "daemonsets", "patch"),
    named=True,
    everywhere=True,
    by_rollout=True,
)
_EVICT = MethodEntry(
    _evict, "create pods/eviction for the pod of {agent} in {place}", ("", "pods/eviction", "create"), grace=True
)
