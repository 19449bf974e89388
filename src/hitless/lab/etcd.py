"""An etcd for the agents of a lab, in the underlay's namespace, where every node reaches it without any agent.

Problem: flanneld without Kubernetes keeps its leases in etcd, and takes any free subnet; the lab's pods already have
addresses. Promise: the etcd belongs to this lab, is in memory, cannot be reached from outside, and ends with the lab.
It holds flannel's configuration and, for each node, a reservation of the subnet of its pods (flannel's
Documentation/reservations.md). When etcd is not installed the error says so before any agent runs.
"""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Mapping
from pathlib import Path

from hitless.errors import HitlessError, KernelError, MissingError
from hitless.kernel import files, namespaces, processes
from hitless.kernel.namespaces import Namespace
from hitless.lab.keeper_client import Keeper
from hitless.lab.members import LabMembers
from hitless.lab.plans import LabPlan
from hitless.model.families import Family

__all__ = ["PREFIX", "PROGRAM", "REMEDY", "endpoint", "start"]

PROGRAM = "etcd"
PREFIX = "/coreos.com/network"
"""flanneld's default for --etcd-prefix."""

_PORT = 2379
_LOG = "/run/hitless-etcd.log"
_ANSWERS_WITHIN = 20.0  # seconds; half a second is enough on an idle machine
REMEDY = (
    "install it (Debian and Ubuntu: etcd-server), or give {lease_dir} instead of {etcd} to agents that can keep their "
    "leases in files"
)


def endpoint(plan: LabPlan, node: int) -> str:
    """etcd's URL for the node: flanneld's --etcd-endpoints."""
    gateway = plan.gateway(plan.families[0], node)
    return f"http://[{gateway}]:{_PORT}" if gateway.version == 6 else f"http://{gateway}:{_PORT}"


def start(members: LabMembers, keeper: Keeper, net_conf: str) -> None:
    """Start it, wait until it responds, and write flannel's configuration and the nodes' subnets into it."""
    plan = members.plan
    program = processes.program(PROGRAM)
    own = "http://127.0.0.1:2380"
    client = f"http://0.0.0.0:{_PORT}" if Family.IPV4 in plan.families else f"http://[::]:{_PORT}"
    line = [
        "nsenter", f"--net=/proc/{keeper.keep.pid}/fd/{members.held['underlay'].net}", "--", program,
        "--name=lab", "--data-dir=/run/hitless-etcd", "--log-level=error",
        f"--listen-client-urls={client}", f"--advertise-client-urls={endpoint(plan, 0)}",
        f"--listen-peer-urls={own}", f"--initial-advertise-peer-urls={own}", f"--initial-cluster=lab={own}",
    ]  # fmt: skip
    keeper.spawn(line, environment={}, stdin="", log=_LOG)
    held = members.held["underlay"]
    place = held.namespace(keeper.keep)
    _wait(place, held.root_path(keeper.keep) / _LOG.lstrip("/"))
    for key, text in {f"{PREFIX}/config": net_conf, **_reservations(plan)}.items():
        put(place, key, text)


def _reservations(plan: LabPlan) -> Mapping[str, str]:
    """A key without a lease for each node's subnet, with the node's address: the agent there takes it as its own."""
    found = {}
    for node in range(plan.nodes):
        names = [
            f"{one.network_address}-{one.prefixlen}" for one in (plan.subnet(each, node) for each in plan.families)
        ]
        value = {"PublicIP": "0.0.0.0"}
        if Family.IPV4 in plan.families:
            value["PublicIP"] = str(plan.node_address(Family.IPV4, node))
        else:
            names.insert(0, "0.0.0.0-0")  # flannel's key of a node without IPv4
        if Family.IPV6 in plan.families:
            value["PublicIPv6"] = str(plan.node_address(Family.IPV6, node))
        found[f"{PREFIX}/subnets/{'&'.join(names)}"] = json.dumps(value)
    return found


def put(place: Namespace, key: str, value: str) -> None:
    """Write a key; raises ``KernelError`` when etcd refuses."""
    body = {name: base64.b64encode(text.encode()).decode() for name, text in (("key", key), ("value", value))}
    status, response = _request(place, "POST", "/v3/kv/put", json.dumps(body))
    if status != 200:
        raise KernelError("write", f"{key} in the lab's etcd", reason=f"HTTP {status} {response[:200]}")


def _request(place: Namespace, method: str, path: str, body: str = "") -> tuple[int, str]:
    def request() -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", _PORT, timeout=2.0)
        try:
            connection.request(method, path, body or None)
            response = connection.getresponse()
            return response.status, response.read(4096).decode("utf-8", "replace")
        finally:
            connection.close()

    return namespaces.inside(place, request)


def _wait(place: Namespace, log: Path) -> None:
    end = time.monotonic() + _ANSWERS_WITHIN
    while True:
        try:
            if _request(place, "GET", "/health")[0] == 200:
                return
        except (OSError, http.client.HTTPException, HitlessError):
            pass
        if time.monotonic() > end:
            lines = files.read(log).decode("utf-8", "replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise MissingError(f"the lab's etcd did not answer within {_ANSWERS_WITHIN:g} s: {lines[0]}", remedy=REMEDY)
        time.sleep(0.05)
