"""What a cluster may lack for the tests: an agent to restart, and a world outside of a single node.

An agent of ours (the image's stand-in for flannel 0.26, which takes its rules away when it stops) is put where no
DaemonSet is known as a network agent, and a world (``world.py``) where there is one node, or flows between nodes are
not translated, and nobody named a far end. Both live in a namespace of their own, which the suite deletes at its end.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.ground import HOW_TO_LOAD, IMAGE, LABEL, PATIENCE, POLICY, broken

from hitless.kube.api import Api
from hitless.kube.objects import DAEMON_SETS, NAMESPACES, PODS, Node, Pod
from hitless.kube.pod_problems import pod_problem
from hitless.survey.cni import survey_cluster
from hitless.survey.nodes import choose, objections

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
# blocked first: the first process of a container does not get a signal that it neither blocks nor handles
GREETING = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {15}); signal.sigwait({15})"
READY = "import os, sys; sys.exit(not os.path.exists('/tmp/ready'))"
REACHED = "import socket; socket.create_connection(('198.51.100.1', 7801), 2)"


@dataclass
class Stage:
    """The words that a drill needs on this cluster, and what its record then holds."""

    words: list[str] = field(default_factory=list)
    rules: bool = True
    nodes: int = 1
    """So many nodes are drilled at a time."""
    agent: str = ""
    """The stand-in, as ``--agent`` takes it; empty where the cluster has an agent that is known."""
    keeps: bool = False
    """The drills' namespace is the suite's and stays: nothing that is deleted ever goes on this cluster."""
    missing: str = ""


def namespace(name: str, level: str) -> dict[str, Any]:
    """A namespace with a Pod Security level."""
    labels = {**LABEL, **{f"pod-security.kubernetes.io/{mode}": level for mode in ("enforce", "audit", "warn")}}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


async def calm(api: Api, agent: str = "") -> list[str]:
    """Wait until a drill would not refuse; what it still says against it after a while.

    A cluster that has just been made has nodes that are not ready yet, and a controller writes its DaemonSet's status a
    moment after its pods became ready.
    """
    end = time.monotonic() + PATIENCE
    while True:
        against = objections(await survey_cluster(api, agent=agent), ())
        if not against or time.monotonic() > end:
            return against
        await asyncio.sleep(1)


async def build(api: Api, place: str, drills: str) -> Stage:
    """Look at the cluster, start a pod on every node, and add what the cluster lacks in the namespace ``place``;
    ``drills``: the namespace of the drills."""
    against = await calm(api)
    if against and all(one.startswith("PodDisruptionBudget") for one in against):
        return Stage(missing="; ".join(against))
    assert not against, f"a drill would refuse: {'; '.join(against)}"
    survey = await survey_cluster(api)
    count = int(os.environ.get("HITLESS_NODES", "1"))
    stage = Stage(rules=survey.cni.known, nodes=count)
    to = os.environ.get("HITLESS_TO", "").split()
    # Cilium does not translate flows between nodes: the world is behind the one that is drilled
    lacks_world = not to and (len(survey.nodes) == 1 or survey.cni.name == "cilium")
    stage.keeps = bool(await broken(api))
    for one in (place, *([drills] if stage.keeps else [])):
        await api.create(NAMESPACES, namespace(one, "privileged"))
        await account(api, one)
    ips = await _greet(api, place, survey.nodes)
    if survey.cni.daemon_set is None:
        subnets = _subnets(survey.nodes, ips)
        if not subnets:
            stage.missing = "no network agent is known here, and no IPv4 pod network for one of ours"
            return stage
        await api.create(DAEMON_SETS, _agent(place, subnets), place)
        stage.agent = f"{place}/{NAME}"
        stage.words += ["--agent", stage.agent, "--watch-profile", "flannel"]
        stage.rules = True
        await _ready(api, place, "app=agent", len(subnets))
    if lacks_world:
        (node,) = choose(survey, (), 1, "")
        if node.internal_ips and "ipv4" not in node.internal_ips:
            stage.missing = f"{node.name} has no IPv4 address, and our world no other: name a far end with HITLESS_TO"
            return stage
        await api.create(PODS, _world(place, node), place)
        await _ready(api, place, "app=world", 1)
        to, stage.nodes = [WORLD], 1
        stage.words += ["--node", node.name]
    else:
        stage.words += ["--nodes", str(count)]
    stage.words += [word for one in to for word in ("--to", one)]
    return stage


async def _greet(api: Api, place: str, nodes: tuple[Node, ...]) -> dict[str, str]:
    """An ordinary pod of the image on every node, and its address: it is the first to notice what a node lacks."""
    linux = [node for node in nodes if node.status.node_info.operating_system in ("", "linux")]
    for at, node in enumerate(linux):
        await api.create(PODS, _greeting(place, node, at), place)

    def settled(pods: Mapping[str, Pod]) -> bool:
        return len(pods) == len(linux) and all(
            (pod.status.phase == "Running" and pod.status.pod_ip) or _hopeless(pod) for pod in pods.values()
        )

    await api.wait_for(PODS, place, settled, within=PATIENCE, labels="app=greeting")
    pods = await api.all(PODS, place, labels="app=greeting")
    for pod in pods:
        if "ErrImage" in pod_problem(pod).code or "ImagePull" in pod_problem(pod).code:
            pytest.fail(f"node {pod.spec.node_name} lacks the image {IMAGE}: {HOW_TO_LOAD}", pytrace=False)
        if pod.status.phase != "Running" or not pod.status.pod_ip:
            said = pod_problem(pod) or pod.status.phase or "nothing is known of it"
            pytest.fail(f"an ordinary pod does not start on {pod.spec.node_name}: {said}", pytrace=False)
    return {pod.spec.node_name: pod.status.pod_ip for pod in pods}


def _hopeless(pod: Pod) -> bool:
    return pod.status.phase == "Failed" or any(
        word in pod_problem(pod).code for word in ("ErrImage", "ImagePull", "InvalidImage")
    )


def _greeting(place: str, node: Node, at: int) -> dict[str, Any]:
    container = {
        "name": "greeting",
        "image": IMAGE,
        "imagePullPolicy": POLICY,
        "command": ["/usr/bin/python3", "-sP", "-c", GREETING],
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"greeting-{at}", "namespace": place, "labels": {"app": "greeting"}},
        "spec": {
            "nodeName": node.name,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": 7200,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        },
    }


async def account(api: Api, place: str) -> None:
    """Wait for a new namespace's ServiceAccount: without it no pod is admitted."""
    path = f"/api/v1/namespaces/{place}/serviceaccounts/default"
    for _ in range(120):
        if (await api.client.get(path)).is_success:
            return
        await asyncio.sleep(0.5)
    raise AssertionError(f"{place} has no ServiceAccount after a minute: does the controller manager run?")


async def _ready(api: Api, place: str, labels: str, count: int) -> None:
    def settled(pods: Mapping[str, Pod]) -> bool:
        ready = sum(pod.ready for pod in pods.values())
        return ready >= count or any(pod.status.phase == "Failed" for pod in pods.values())

    await api.wait_for(PODS, place, settled, within=PATIENCE, labels=labels)
    pods = await api.all(PODS, place, labels=labels)
    if sum(pod.ready for pod in pods) < count:
        found = [(pod.spec.node_name, pod.status.phase, str(pod_problem(pod))) for pod in pods]
        raise AssertionError(f"{labels}: {found}")


def _subnets(nodes: tuple[Node, ...], ips: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Each node's pod network, and the smallest that holds them all; from a pod's address where the node says another
    or none (a bridge plugin's own range)."""
    found: dict[str, ipaddress.IPv4Network] = {}
    for node in nodes:
        ip = ips.get(node.name, "")
        told = [ipaddress.IPv4Network(one) for one in node.pod_cidrs if ":" not in one]
        if "." in ip:
            told = [one for one in told if ipaddress.IPv4Address(ip) in one]
            found[node.name] = told[0] if told else ipaddress.IPv4Network(f"{ip}/24", strict=False)
        elif told:  # of two families, and the other one comes first
            found[node.name] = told[0]
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
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"operator": "Exists"}],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 15,
        "containers": [
            {
                "name": name,
                "image": IMAGE,
                "imagePullPolicy": POLICY,
                "command": command,
                "terminationMessagePolicy": "FallbackToLogsOnError",
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


__all__ = ["Stage", "account", "build", "calm", "namespace"]
