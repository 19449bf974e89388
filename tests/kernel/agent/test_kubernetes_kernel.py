"""The daemon and the Kubernetes API: rules from the last subnet while it is away, corrected when it answers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.kernel.agent.nodes import HANG, readyz
from tests.kernel.nftables.nodes import Node

from hitless.kernel import processes
from hitless.kernel.namespaces import inside
from hitless.kernel.processes import Process

pytestmark = pytest.mark.kernel

CANAL = ("--ip-masq", "--kube-subnet-mgr", "--iptables-forward-rules=false", "--ip-blackhole-route")
"""The container arguments of the Canal chart (2025), unchanged; what a test must know besides comes by variables."""

CANALS_ENVIRONMENT = {
    "POD_NAME": "rke2-canal-x", "POD_NAMESPACE": "kube-system", "NODE_NAME": "", "FLANNELD_IFACE": "",
    "FLANNELD_IFACE_REGEX": "", "FLANNELD_IP_MASQ": "true",
}  # fmt: skip

CONF = '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        spec = {"/api/v1/nodes/n1": {"podCIDRs": ["10.42.5.0/24", "fd42:0:0:5::/64"]},
                "/api/v1/namespaces/kube-system/pods/rke2-canal-x": {"nodeName": "n1"}}[self.path]  # fmt: skip
        name = self.path.rpartition("/")[2]
        data = json.dumps({"metadata": {"name": name}, "spec": spec}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def agent(place: Node, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    config = {
        "current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "b", "user": "c"}}],
        "clusters": [{"name": "b", "cluster": {"server": "http://127.0.0.1:6443"}}],
        "users": [{"name": "c", "user": {}}],
    }  # fmt: skip
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    started: list[Process] = []
    (tmp_path / "net-conf.json").write_text(CONF)
    command = [sys.executable, "-P", "-m", "hitless", "agent", *CANAL]
    environment = {
        **CANALS_ENVIRONMENT, "FLANNELD_KUBECONFIG_FILE": str(tmp_path / "kubeconfig"),
        "FLANNELD_NET_CONFIG_PATH": str(tmp_path / "net-conf.json"),
        "FLANNELD_SUBNET_FILE": str(tmp_path / "subnet.env"),
        "FLANNELD_HEALTHZ_IP": "127.0.0.1", "FLANNELD_HEALTHZ_PORT": "10990",
        "HITLESS_AGENT_OVERLAY": "false",  # this server knows one node, and no list
    }  # fmt: skip

    def start() -> Process:
        started.append(
            processes.start(command, namespace=place.namespace, stderr=subprocess.DEVNULL, environment=environment)
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.02)


def ready(place: Node) -> tuple[int, str]:
    try:
        status, body = readyz(place.namespace)
    except OSError:
        return 0, ""
    return status, str(body)


def test_without_a_subnet_it_reports_that_it_waits_and_continues_when_the_api_answers(
    place: Node, agent: Callable[[], Process], tmp_path: Path
) -> None:
    agent()
    until(lambda: ready(place)[0] == 503 and "cannot be reached" in ready(place)[1], "not ready, with the reason")
    assert "FLANNEL" not in place.run("nft", "list", "ruleset")
    server = inside(place.namespace, lambda: HTTPServer(("127.0.0.1", 6443), Handler))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        until(lambda: ready(place)[0] == 200, "ready")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert "10.42.5.0/24" in place.run("iptables-nft-save", "-t", "nat")
    assert "FLANNEL" not in place.run("iptables-nft-save", "-t", "filter"), "--iptables-forward-rules=false"
    assert "FLANNEL_SUBNET=10.42.5.1/24" in (tmp_path / "subnet.env").read_text()


def test_with_the_last_subnet_it_is_ready_while_the_api_is_away(
    place: Node, agent: Callable[[], Process], tmp_path: Path
) -> None:
    (tmp_path / "subnet.env").write_text(
        "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.7.1/24\nFLANNEL_MTU=1400\n"
    )
    agent()
    until(lambda: ready(place)[0] == 200, "ready")
    assert "10.42.7.0/24" in place.run("iptables-nft-save", "-t", "nat")
    assert "FLANNEL_MTU=1400" in (tmp_path / "subnet.env").read_text()
