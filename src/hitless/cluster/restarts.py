"""Restarting the network agent of a node, in the ways in which clusters do it.

Problem: a pod deleted, a process killed, a rollout and an eviction end an agent differently, and the API can be away
while it happens. Promise: one way each, done once, against exactly the pod that was seen; every step is told with the
driver's time; the agent counts as back when another pod (for ``kill``: another run of the container) is ready on the
node. An eviction that a budget forbids is said, and nothing is forced. Next stage: ``target``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hitless.cluster import streams
from hitless.cluster.manifests import CONTAINER, Restart
from hitless.cluster.survey import Cni
from hitless.errors import ApiError, InputError
from hitless.evidence.rules import NO_SIGN
from hitless.kube.api import Api
from hitless.kube.objects import DAEMON_SETS, PODS, ContainerStatus, Pod

__all__ = ["Agent", "Tell", "restart"]

Step = Literal["stop", "killed", "exited", "started", "ready", "unready", "failed"]


class Tell(Protocol):
    """Told the node, the step, a detail, and by what it is known that the agent ended or began."""

    def __call__(self, node: str, step: Step, detail: str, evidence: str = "", /) -> None: ...


_BACK_OFF = 330.0
"""Seconds. A kubelet waits 10 s, twice as long each time and up to 300 s, before it starts a container that was killed
again within ten minutes: that is not the agent's time. It looks every 10 s whether a wait is over."""


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent's pods, and how to restart them. ``grace`` None: as the pod says."""

    api: Api
    cni: Cni
    method: Restart
    grace: int | None = None

    def __post_init__(self) -> None:
        if self.cni.name == "none":
            there = ", ".join(self.cni.others)
            raise InputError(
                "no network agent was found that this tool knows (Canal, flannel, Calico, Cilium, K3s)",
                where=self.api.server,
                expected=f"--agent NAMESPACE/DAEMONSET, one of {there}"
                if there
                else "an agent that runs as a DaemonSet; for others there is hitless node-drill, on the node",
            )
        if self.cni.daemon_set is None:
            raise InputError(
                "K3s runs flannel inside its own process: there is no pod to restart",
                where="drill --cluster",
                expected="hitless node-drill on the node, with --restart-unit k3s",
            )

    async def pods(self, nodes: Sequence[str]) -> dict[str, Pod]:
        """The agent's pod on each of these nodes; raises ``InputError`` when one has none."""
        by_node = {pod.spec.node_name: pod for pod in await self._own() if pod.metadata.deletion_timestamp is None}
        for node in nodes:
            if node not in by_node:
                raise InputError(
                    f"node {node} runs no pod of {self.cni.title}", where="--node", expected="one that does"
                )
        return {node: by_node[node] for node in nodes}

    async def everywhere(self) -> dict[str, Pod]:
        """The agent's pod on every node that has one."""
        return {pod.spec.node_name: pod for pod in await self._own() if pod.spec.node_name}

    async def _own(self) -> list[Pod]:
        assert self.cni.daemon_set is not None
        found = await self.api.all(PODS, self.cni.namespace, labels=self.cni.daemon_set.selector)
        uid = self.cni.daemon_set.metadata.uid
        return [pod for pod in found if pod.owner is not None and pod.owner.uid == uid]


async def restart(
    agent: Agent, nodes: Sequence[str], tell: Tell, *, patience: float, killers: Mapping[str, tuple[str, str]]
) -> None:
    """Restart the agent on the nodes and wait until it is ready on all of them.

    ``killers``: for ``kill``, the pod (name, namespace) on each node that sees the host's processes. What does not come
    back within ``patience`` seconds is told as "failed".
    """
    before = await agent.pods(nodes)
    waited = before
    match agent.method:
        case "delete-pod":
            grace = "" if agent.grace is None else f", grace period {agent.grace} s"
            for node, pod in before.items():
                tell(node, "stop", f"pod {pod.name} deleted{grace}")
                await agent.api.delete(PODS, pod.name, agent.cni.namespace, grace=agent.grace, uid=pod.metadata.uid)
        case "evict":
            for node, pod in before.items():
                tell(node, "stop", f"pod {pod.name} evicted")
                await _evict(agent, pod)
        case "kill":
            for node, pod in before.items():
                await _kill(agent, node, pod, killers[node], tell)
        case "rollout-restart":
            # It goes on to every node, whichever are drilled: the next round begins when all have had it.
            waited = await agent.everywhere()
            patience *= max(1, len(waited))
            for node in nodes:
                tell(node, "stop", "rollout restart of the DaemonSet")
            await _roll(agent)

    def tell_drilled(node: str, step: Step, detail: str, evidence: str = "", /) -> None:
        if node in before:
            tell(node, step, detail, evidence)

    await _wait(agent, waited, tell_drilled, patience)


async def _evict(agent: Agent, pod: Pod) -> None:
    try:
        await agent.api.evict(pod.name, agent.cni.namespace, grace=agent.grace)
    except ApiError as error:
        if error.status == 429:
            raise ApiError(f"the eviction of {pod.name} is not allowed now: {error}", status=429) from error
        raise


async def _kill(agent: Agent, node: str, pod: Pod, killer: tuple[str, str], tell: Tell) -> None:
    container = pod.container(agent.cni.container)
    if container is None or not container.container_id:
        raise ApiError(f"pod {pod.name} on {node} does not tell the id of its container {agent.cni.container}")
    tell(node, "killed", f"container {agent.cni.container} of pod {pod.name}, SIGKILL")
    command = ["hitless", "relay", "signal", "--container", container.container_id, "--signal", "KILL"]
    try:
        await streams.output(agent.api, *killer, CONTAINER, command)
    except ApiError as error:
        # The signal came, its answer was lost, and it was sent again; whether the container starts again is waited for.
        if "no process of it is seen" not in str(error):
            raise


async def _roll(agent: Agent) -> None:
    """As kubectl does: a template annotation with the time, but to the microsecond. To the second, the next one within
    it would change nothing, and nothing would be rolled out."""
    assert agent.cni.daemon_set is not None
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    annotations = {"kubectl.kubernetes.io/restartedAt": now}
    patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    how: Literal["application/merge-patch+json"] = "application/merge-patch+json"
    await agent.api.patch(DAEMON_SETS, agent.cni.daemon_set.name, agent.cni.namespace, patch, how)


async def _wait(agent: Agent, before: Mapping[str, Pod], tell: Tell, patience: float) -> None:
    assert agent.cni.daemon_set is not None
    told: dict[str, set[str]] = {node: set() for node in before}

    def once(node: str, step: Step, detail: str, evidence: str = "", /) -> None:
        if step not in told[node]:
            told[node].add(step)
            tell(node, step, detail, evidence)

    held: set[str] = set()
    ending: set[str] = set()

    def done(pods: Mapping[str, Pod]) -> bool:
        held.clear()
        ending.clear()
        for node, old in before.items():
            here = [pod for pod in pods.values() if pod.spec.node_name == node]
            if agent.method == "kill":
                _after_kill(agent, node, old, here, once)
                held.update(node for pod in here if "CrashLoopBackOff" in pod.trouble)
            else:
                _after_stop(node, old, here, once)
                ending.update(node for pod in here if _same(pod, old) and pod.metadata.deletion_timestamp is not None)
        return all("ready" in steps for steps in told.values())

    place, labels = agent.cni.namespace, agent.cni.daemon_set.selector
    back = await agent.api.wait_for(PODS, place, done, within=patience, labels=labels)
    if back is None and held:
        await agent.api.wait_for(PODS, place, done, within=_BACK_OFF + patience, labels=labels)
    for node, steps in told.items():
        if "ready" not in steps:
            why = "; the kubelet holds it back (CrashLoopBackOff)" if node in held else ""
            pod = before[node].name
            if node in ending:
                tell(node, "failed", f"pod {pod} does not go within {patience:g} s", f"pod {pod} is being deleted")
            elif steps or node in held:
                tell(node, "failed", f"not ready {patience:g} s after the restart{why}")
            else:
                text = (
                    f"{NO_SIGN} on {node} within {patience:g} s: pod {pod} runs on, its container was not started again"
                )
                tell(node, "failed", text)


def _after_stop(node: str, old: Pod, here: Sequence[Pod], once: Tell) -> None:
    if not any(_same(pod, old) for pod in here):
        once(node, "exited", f"pod {old.name} is gone", f"pod {old.name} (uid {old.metadata.uid}) is gone")
    for pod in here:
        if _same(pod, old) or pod.metadata.deletion_timestamp is not None:
            continue
        if pod.status.phase == "Running":
            evidence = f"pod {pod.name} (uid {pod.metadata.uid}) runs, before: {old.name} (uid {old.metadata.uid})"
            once(node, "started", f"pod {pod.name} runs", evidence)
        if pod.ready:
            once(node, "ready", f"pod {pod.name} is ready")


def _same(pod: Pod, old: Pod) -> bool:
    return pod.metadata.uid == old.metadata.uid


def _another(name: str, first: ContainerStatus | None, now: ContainerStatus | None) -> str:
    """What tells two runs of a container apart: its id, and how often the kubelet has started it again."""

    def run(status: ContainerStatus | None) -> str:
        return f"{status.container_id.rpartition('://')[2][:12]}, restarts {status.restart_count}" if status else "none"

    return f"{name}: {run(now)} (before: {run(first)})"


def _after_kill(agent: Agent, node: str, old: Pod, here: Sequence[Pod], once: Tell) -> None:
    first = old.container(agent.cni.container)
    for pod in here:
        now = pod.container(agent.cni.container)
        replaced = not _same(pod, old)
        again = now is not None and first is not None and now.restart_count > first.restart_count
        if replaced or again:
            container = f"container {agent.cni.container} of pod {pod.name}"
            once(node, "started", f"{container} runs again", _another(container, first, now))
            if pod.ready:
                once(node, "ready", f"pod {pod.name} is ready")
