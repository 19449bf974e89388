"""Restarting the network agent of nodes once, with evidence that it happened.

Problem: deleting a pod, killing a process, a rollout and an eviction end an agent differently, and the API can become
unreachable meanwhile. Promise: the method (``methods``) is carried out once, on exactly the pods that were found. Each
step is reported with the driver's time. The agent counts as back when another pod (or, if the pod stays, another run of
its container) is ready on the node. Nothing is forced. Next stages: ``hitless.cluster.target``,
``hitless.operations``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hitless.evidence.doubts import NO_SIGN
from hitless.kube.objects import PODS, ContainerStatus, Pod
from hitless.kube.pod_problems import pod_problem
from hitless.model.events import RestartCode
from hitless.restarts.agents import AgentPods, Kill, ReportStep, Step
from hitless.restarts.methods import ApiMethod, MethodEntry, entry_of

__all__ = ["restart", "until_back"]

_BACK_OFF = 330.0
"""Seconds. A kubelet waits 10 s, then twice as long each time, up to 300 s, before it restarts a container that was
killed again within ten minutes; the agent is not to blame for that. It checks every 10 s whether a wait is over."""


async def restart(
    agent: AgentPods, method: ApiMethod, nodes: Sequence[str], report: ReportStep, *, patience: float, kill: Kill
) -> None:
    """Restart the agent on the nodes and wait until it is ready on all of them.

    Nodes on which it is not ready within ``patience`` seconds are reported as "failed".
    """
    before = await agent.pods(nodes)
    waited = before
    entry = entry_of(method)
    if entry.everywhere:  # the next round begins after the rollout on all nodes
        waited = await agent.everywhere()
        patience *= max(1, len(waited))
    await entry.begin(agent, before, report, kill)

    def report_drilled(node: str, step: Step, detail: str, evidence: str = "", code: RestartCode = "", /) -> None:
        if node in before:
            report(node, step, detail, evidence, code)

    await until_back(agent, waited, report_drilled, patience, entry)


async def until_back(
    agent: AgentPods, before: Mapping[str, Pod], report: ReportStep, patience: float, entry: MethodEntry
) -> None:
    """Wait until another pod (or run) than the one ``before`` is ready on each node, and report the steps."""
    assert agent.cni.daemon_set is not None
    reported: dict[str, set[str]] = {node: set() for node in before}

    def once(node: str, step: Step, detail: str, evidence: str = "", code: RestartCode = "", /) -> None:
        if step not in reported[node]:
            reported[node].add(step)
            report(node, step, detail, evidence, code)

    held: set[str] = set()
    ending: set[str] = set()

    def done(pods: Mapping[str, Pod]) -> bool:
        held.clear()
        ending.clear()
        for node, old in before.items():
            here = [pod for pod in pods.values() if pod.spec.node_name == node]
            if entry.same_pod:
                _after_kill(agent, node, old, here, once)
                held.update(node for pod in here if pod_problem(pod).code == "CrashLoopBackOff")
            else:
                _after_stop(node, old, here, once)
                ending.update(node for pod in here if _same(pod, old) and pod.metadata.deletion_timestamp is not None)
        return all("ready" in steps for steps in reported.values())

    place, labels = agent.cni.namespace, agent.cni.daemon_set.selector
    back = await agent.api.wait_for(PODS, place, done, within=patience, labels=labels)
    if back is None and held:
        await agent.api.wait_for(PODS, place, done, within=_BACK_OFF + patience, labels=labels)
    for node, steps in reported.items():
        if "ready" not in steps:
            why = "; the kubelet holds it back (CrashLoopBackOff)" if node in held else ""
            pod = before[node].name
            if node in ending:
                report(node, "failed", f"pod {pod} does not go within {patience:g} s", f"pod {pod} is being deleted")
            elif steps or node in held:
                report(node, "failed", f"not ready {patience:g} s after the restart{why}")
            else:
                text = (
                    f"{NO_SIGN} on {node} within {patience:g} s: pod {pod} runs on, its container was not started again"
                )
                report(node, "failed", text, "", "no_sign")


def _after_stop(node: str, old: Pod, here: Sequence[Pod], once: ReportStep) -> None:
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
    """The difference between two runs of a container: its id, and the kubelet's count of restarts."""

    def run(status: ContainerStatus | None) -> str:
        return f"{status.container_id.rpartition('://')[2][:12]}, restarts {status.restart_count}" if status else "none"

    return f"{name}: {run(now)} (before: {run(first)})"


def _after_kill(agent: AgentPods, node: str, old: Pod, here: Sequence[Pod], once: ReportStep) -> None:
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
