"""What a source of leases costs by itself: start to all peers known, one node's change, requests, memory, idle.

A process of its own follows a real etcd or a real API server (HITLESS_KUBE_APISERVER names its program) and says when
it knows what; it does nothing to the kernel. Node objects have 10 KB each, and no kubelet behind them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bench.parts import overlay_kernel
from tests.contract.leases.clusters import Cluster, vxlan_says
from tests.kernel.leases.api_server_real import real
from tests.kernel.leases.etcd_server import Server, serving

from hitless.sources.annotations import PREFIX

ROOT = Path(__file__).parents[2]
PREFIX_ETCD = "/coreos.com/network/subnets/"

FOLLOW = """
import json, os, sys, threading, time
begun = time.monotonic()
from ipaddress import ip_network
from hitless.model.families import Family
import hitless
kind, url, token, authority = sys.argv[1:5]
networks = {Family.IPV4: ip_network("10.0.0.0/8")}
if kind == "etcd":
    from hitless.sources.cuts import Cutting, cut
    from hitless.sources.etcd.source import EtcdLeases, EtcdLeasesOptions
    from hitless.sources.options import EtcdOptions
    cuts = {family: cut(network, Cutting(), "") for family, network in networks.items()}
    source = EtcdLeases(EtcdLeasesOptions(EtcdOptions((url,)), cuts))
else:
    from hitless.kube.client import Client
    from hitless.kube.contexts import Cluster, Connection
    from hitless.sources.nodes import NodeLeases, NodeLeasesOptions
    way = Connection("a bench", None, "", Cluster(url, authority.encode()), "", token=token)
    source = NodeLeases(NodeLeasesOptions(networks, "n0"), Client(way, {}))
synced = False
def tell(news):
    global synced
    now = time.time()
    if news.leases.synced and not synced:
        synced = True
        print(json.dumps({"synced": time.monotonic() - begun, "peers": len(news.leases.by_node)}), flush=True)
    elif synced and news.changed:
        print(json.dumps({"changed": sorted(news.changed), "at": now}), flush=True)
source.start(tell)
threading.Event().wait()
"""


@dataclass(frozen=True, slots=True)
class Found:
    """Seconds, megabytes, and per cent of a core."""

    synced: float
    changes: list[float]
    requests: int
    resident: float
    peak: float
    cpu: float
    idle: float


def _lines(out: IO[str]) -> Iterator[dict[str, Any]]:
    for line in out:
        yield json.loads(line)


@contextmanager
def _follower(kind: str, url: str, token: str = "", authority: str = "") -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", FOLLOW, kind, url, token, authority]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _measure(
    process: subprocess.Popen[str], count: int, change: Callable[[int], str], times: int, idle: float,
    requests: Callable[[], int],
) -> Found:  # fmt: skip
    assert process.stdout is not None
    lines = _lines(process.stdout)
    first = next(lines)
    assert first["peers"] >= count - 1, first
    cpu = overlay_kernel.processor(process.pid)
    asked = requests()
    changes: list[float] = []
    for number in range(times):
        begun = time.time()
        name = change(number)
        while True:
            told = next(lines)
            if name in told["changed"]:
                break
        changes.append(told["at"] - begun)
    share = overlay_kernel.idle(process.pid, idle)
    resident, peak = overlay_kernel.memory(process.pid)
    return Found(first["synced"], changes, asked, resident, peak, cpu, share)


def etcd(count: int, times: int, idle: float) -> Found:
    """With so many leases in a real etcd."""
    with serving() as server:
        for begin in range(0, count, 100):
            _put(server, range(begin, min(begin + 100, count)))
        before = _etcd_requests(server)

        def change(number: int) -> str:
            value = overlay_kernel.peer(number, number + 1)
            key = str(value.pop("Subnet")).replace("/", "-")
            server.put(PREFIX_ETCD + key, json.dumps(value))
            return key

        with _follower("etcd", server.url) as process:
            return _measure(process, count, change, times, idle, lambda: _etcd_requests(server) - before)


def _put(server: Server, numbers: range) -> None:
    for number in numbers:
        value = overlay_kernel.peer(number)
        key = str(value.pop("Subnet")).replace("/", "-")
        server.put(PREFIX_ETCD + key, json.dumps(value))


def _etcd_requests(server: Server) -> int:
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=20) as answer:
        text = answer.read().decode()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in text.splitlines()
        if line.startswith("grpc_server_started_total") and re.search(r'grpc_method="(Range|Watch|LeaseT|Txn)', line)
    )


def kubernetes(count: int, times: int, idle: float) -> Found | None:
    """With so many Node objects of 10 KB in a real API server; ``None`` where there is none."""
    if not os.environ.get("HITLESS_KUBE_APISERVER"):
        return None
    with real() as cluster:
        padding = {f"bench.example/{at}": "x" * 1000 for at in range(10)}

        def add(number: int) -> None:
            subnet = f"10.{64 + (number >> 8)}.{number & 255}.0/24"
            cluster.add(f"n{number}", subnet, vxlan_says(number) | padding)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(count)))
        before = _api_requests(cluster)

        def change(number: int) -> str:
            name, data = f"n{number + 1}", f'{{"VNI":1,"VtepMAC":"02:00:00:01:{number >> 8:02x}:{number & 255:02x}"}}'
            cluster.annotate(name, {f"{PREFIX}backend-data": data})
            return name

        with _follower("kubernetes", cluster.url, cluster.flannel, cluster.authority.decode()) as process:
            return _measure(process, count, change, times, idle, lambda: _api_requests(cluster) - before)


def _api_requests(cluster: Cluster) -> int:
    import ssl

    request = urllib.request.Request(f"{cluster.url}/metrics", headers={"Authorization": f"Bearer {cluster.token}"})
    context = ssl.create_default_context(cadata=cluster.authority.decode())
    with urllib.request.urlopen(request, timeout=60, context=context) as answer:
        text = answer.read().decode()
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in text.splitlines()
        if line.startswith("apiserver_request_total{") and 'resource="nodes"' in line and "POST" not in line
    )
