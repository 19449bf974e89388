"""The agent that is to be restarted: its pods, and the types of a restart's steps.

Problem: a restart must hit exactly the pods of the agent, and begin only where they can be found. Promise:
``AgentPods`` is refused when it is made where nothing could be restarted; its pods are those that the agent's DaemonSet
owns. Next stages: ``methods``, ``execution``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from hitless import profiles
from hitless.errors import InputError
from hitless.kube.api import Api
from hitless.kube.objects import PODS, Pod
from hitless.model.events import RestartCode
from hitless.survey.cni import Cni

__all__ = ["AgentPods", "Kill", "ReportStep", "Step"]

Step = Literal["stop", "killed", "exited", "started", "ready", "unready", "failed"]

Kill = Callable[[str, str], Awaitable[None]]
"""Ends the process of a container (its id) on a node with SIGKILL."""


class ReportStep(Protocol):
    """Called with the node, the step, a detail, the evidence that the agent ended or started, and a failure's code."""

    def __call__(self, node: str, step: Step, detail: str, evidence: str = "", code: RestartCode = "", /) -> None: ...


@dataclass(frozen=True, slots=True)
class AgentPods:
    """The agent's pods. ``grace``: their grace period in seconds; None: the pods' own."""

    api: Api
    cni: Cni
    grace: int | None = None

    def __post_init__(self) -> None:
        if self.cni.name == "none":
            others = ", ".join(self.cni.others)
            known = ", ".join([*(one.title for one in profiles.clusters().values()), "K3s"])
            raise InputError(
                f"no network agent was found that this tool knows ({known})",
                where=self.api.server,
                expected=f"--agent NAMESPACE/DAEMONSET, one of {others}"
                if others
                else "an agent that runs as a DaemonSet; for others there is hitless node-drill, on the node",
            )
        if self.cni.daemon_set is None:
            raise InputError(
                "K3s runs flannel inside its own process: there is no pod to restart",
                where="drill --cluster",
                expected="hitless node-drill on the node, with --restart-unit k3s",
            )

    async def pods(self, nodes: Sequence[str]) -> dict[str, Pod]:
        """The agent's pod on each of these nodes; raises ``InputError`` if one has none."""
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
