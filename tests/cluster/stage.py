"""What a cluster may lack for the tests: an agent to restart, and a world outside of a single node.

An agent of ours (the image's stand-in for flannel 0.26, which takes its rules away when it stops) is put where no
DaemonSet is known as a network agent, and a world (``world.py``) where there is one node and nobody named a far end.
Both live in a namespace of their own, which the suite deletes at its end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hitless.cluster import manifests
from hitless.cluster.api import Api, connect
from hitless.cluster.objects import DAEMON_SETS, NAMESPACES, PODS, Node
from hitless.cluster.survey import look
from hitless.errors import ApiError

IMAGE = os.environ.get("HITLESS_IMAGE", manifests.IMAGE)
POLICY = os.environ.get("HITLESS_PULL_POLICY", "Never")
NAME = "hitless-e2e-agent"
WORLD = "farend://198.51.100.1:7800"

AGENT = """
import json, os, sys
told = json.loads(os.environ["SUBNETS"])
network, subnet = told[os.environ["NODE_NAME"]]
sys.argv[1:] = ["flannel-0.26", "--backend", "nft", "--network", network, "--subnet", subnet,
                "--subnet-file", "/tmp/subnet.env", "--ready-file", "/tmp/ready"]
from hitless.lab.standins.__main__ import main
sys.exit(main())
"""
READY = "import os, sys; sys.exit(not os.path.exists('/tmp/ready'))"
REACHED = "import socket; socket.create_connection(('198.51.100.1', 7801), 2)"


@dataclass
class Stage:
    """The words that a drill needs on this cluster, and what its record then holds."""

    words: list[str] = field(default_factory=list)
    rules: bool = True
    nodes: int = 0
    missing: str = ""


def run(work: Callable[[Api], Awaitable[Any]]) -> Any:
    """Do something with the cluster of KUBECONFIG, through the product's own port."""

    async def main() -> Any:
        async with connect() as api:
            return await work(api)

    return asyncio.run(main())


def namespace(name: str, level: str) -> dict[str, Any]:
    """A namespace with a Pod Security level."""
    labels = {f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


async def build(api: Api, place: str) -> Stage:
    """Look at the cluster, and add what it lacks in the namespace ``place``."""
    survey = await look(api)
    stage = Stage(rules=survey.cni.known, nodes=len(survey.nodes))
    to = os.environ.get("HITLESS_TO", "").split()
    lacks_agent = survey.cni.daemon_set is None
    lacks_world = len(survey.nodes) == 1 and not to
    if survey.cni.name == "cilium" and not (to or lacks_world):
        stage.missing = "Cilium does not translate flows between nodes: name a far end with HITLESS_TO"
    if lacks_agent or lacks_world:
        await api.create(NAMESPACES, namespace(place, "privileged"))
        await account(api, place)
    if lacks_agent:
        subnets = await _subnets(api, survey.nodes)
        if not subnets:
            stage.missing = "no network agent is known here, and no IPv4 pod network for one of ours"
            return stage
        await api.create(DAEMON_SETS, _agent(place, subnets), place)
        stage.words += ["--agent", f"{place}/{NAME}", "--watch-profile", "flannel"]
        stage.rules = True
        await _ready(api, place, "app=agent", len(subnets))
    if lacks_world:
        await api.create(PODS, _world(place, survey.nodes[0]), place)
        await _ready(api, place, "app=world", 1)
        to = [WORLD]
    stage.words += [word for one in to for word in ("--to", one)]
    return stage


async def account(api: Api, place: str) -> None:
    """Wait for a new namespace's ServiceAccount: without it no pod is admitted."""
    path = f"/api/v1/namespaces/{place}/serviceaccounts/default"
    for _ in range(120):
        if (await api.client.get(path)).is_success:
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"{place} has no ServiceAccount after a minute: does the controller manager run?")


async def _ready(api: Api, place: str, labels: str, count: int) -> None:
    found = await api.wait_for(
        PODS, place, lambda pods: sum(pod.ready for pod in pods.values()) >= count, within=180, labels=labels
    )
    if not found:
        pods = await api.all(PODS, place, labels=labels)
        raise AssertionError(f"{labels}: {[(pod.spec.node_name, pod.status.phase, pod.trouble) for pod in pods]}")


async def _subnets(api: Api, nodes: tuple[Node, ...]) -> dict[str, tuple[str, str]]:
    """Each node's pod network, and the smallest that holds them all; from its pods where the node does not say."""
    found: dict[str, ipaddress.IPv4Network] = {}
    for node in nodes:
        told = [one for one in node.pod_cidrs if ":" not in one]
        if not told:
            pods = await api.all(PODS, fields=f"spec.nodeName={node.name}")
            own = set(node.internal_ips.values())
            told = [
                f"{pod.status.pod_ip}/24" for pod in pods if "." in pod.status.pod_ip and pod.status.pod_ip not in own
            ]
        if told:
            found[node.name] = ipaddress.IPv4Network(told[0], strict=False)
    if not found:
        return {}
    whole = next(iter(found.values()))
    while not all(one.subnet_of(whole) for one in found.values()):
        whole = whole.supernet()
    return {name: (str(whole), str(one)) for name, one in found.items()}


def _pod(name: str, command: list[str], security: dict[str, Any], probe: str) -> dict[str, Any]:
    fields = {"NODE_NAME": "spec.nodeName", "POD_IP": "status.podIP"}
    return {
        "hostNetwork": True,
        "tolerations": [{"operator": "Exists"}],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 15,
        "containers": [
            {
                "name": name,
                "image": IMAGE,
                "imagePullPolicy": POLICY,
                "command": command,
                "securityContext": {"runAsUser": 0, "runAsGroup": 0, **security},
                "env": [{"name": key, "valueFrom": {"fieldRef": {"fieldPath": path}}} for key, path in fields.items()],
                "readinessProbe": {
                    "exec": {"command": ["/usr/bin/python3", "-sP", "-c", probe]},
                    "periodSeconds": 2,
                    "timeoutSeconds": 5,
                },
            }
        ],
    }


def _agent(place: str, subnets: dict[str, tuple[str, str]]) -> dict[str, Any]:
    spec = _pod(
        "agent",
        ["/usr/bin/python3", "-sP", "-c", AGENT],
        {"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}},
        READY,
    )
    spec["containers"][0]["env"].append({"name": "SUBNETS", "value": json.dumps(subnets)})
    labels = {"app": "agent"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": place, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _world(place: str, node: Node) -> dict[str, Any]:
    script = (Path(__file__).parent / "world.py").read_text()
    spec = _pod("world", ["/usr/bin/python3", "-sP", "-c", script], {"privileged": True}, REACHED)
    metadata = {"name": "world", "namespace": place, "labels": {"app": "world"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**spec, "nodeName": node.name, "restartPolicy": "Never"},
    }


async def away(api: Api, *places: str) -> None:
    """Delete namespaces, and wait until they are gone: pods end by SIGTERM, so that the agent takes its rules away."""
    for place in places:
        await api.delete(NAMESPACES, place)
    for place in places:
        for _ in range(240):
            try:
                await api.get(NAMESPACES, place)
            except ApiError as error:
                if error.status == 404:
                    break
                raise
            await asyncio.sleep(0.5)


__all__ = ["IMAGE", "POLICY", "Stage", "account", "away", "build", "namespace", "run"]
