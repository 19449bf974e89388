"""Beside the real flanneld (HITLESS_FLANNELD names its program): what it left is taken over without a single write, and
what we leave is taken over by it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.nftables.nodes import wait_for
from tests.kernel.overlay.ground import Ground, Member, ground

from hitless.kernel import processes
from hitless.kernel.links import LinkEvents
from hitless.kernel.links.scope import Scope
from hitless.kernel.namespaces import inside
from hitless.model.reading import network

pytestmark = pytest.mark.kernel

FLANNELD = os.environ.get("HITLESS_FLANNELD", "")
SCOPE = Scope((network("10.42.0.0/16", where="test"), network("fd42::/48", where="test")))
NETWORKS = {
    "Network": "10.42.0.0/16", "EnableIPv6": True, "IPv6Network": "fd42::/48", "SubnetMin": "10.42.1.0",
    "IPv6SubnetMin": "fd42:0:0:1::", "IPv6SubnetLen": 64,
}  # fmt: skip
PEERS = range(2, 12)


def lease(number: int, backend: str, *, file: bool) -> str:
    """A peer's word, as flannel writes it into etcd, or as it lies in the shared directory."""
    found: dict[str, object] = {}
    if file:
        found = {"Subnet": f"10.42.{number}.0/24", "IPv6Subnet": f"fd42:0:0:{number}::/64"}
    found |= {"PublicIP": f"192.0.2.{number}", "PublicIPv6": f"fd00::{number}", "BackendType": backend}
    if backend == "vxlan":
        found["BackendData"] = {"VNI": 1, "VtepMAC": f"02:00:00:00:04:{number:02x}"}
        found["BackendV6Data"] = {"VNI": 1, "VtepMAC": f"02:00:00:00:06:{number:02x}"}
    return json.dumps(found)


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Ground]:
    if not FLANNELD or not Path(FLANNELD).exists():
        pytest.skip("HITLESS_FLANNELD names no flanneld: this is about the real one")
    if shutil.which("etcd") is None:
        pytest.skip("etcd is not installed")
    with ground(tmp_path / "leases", 1) as made:
        made.members[0].ip("link set lo up")
        yield made


@contextlib.contextmanager
def etcd(member: Member, folder: Path, backend: dict[str, object]) -> Iterator[None]:
    """An etcd inside of the node that holds the configuration and the peers' leases."""
    peer = "http://127.0.0.1:2380"
    words = ["etcd", f"--data-dir={folder}", f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"]
    words += [f"--initial-cluster=default={peer}", "--log-level=error"]
    process = processes.start(processes.command_in(member.namespace, words), stderr=subprocess.DEVNULL)
    try:
        puts = {"/coreos.com/network/config": json.dumps(NETWORKS | {"Backend": backend})}
        kind = str(backend["Type"])
        for number in PEERS:
            key = f"/coreos.com/network/subnets/10.42.{number}.0-24&fd42:0:0:{number}::-64"
            puts[key] = lease(number, kind, file=False)

        def put(key: str, value: str) -> bool:
            body = {"key": base64.b64encode(key.encode()).decode(), "value": base64.b64encode(value.encode()).decode()}
            request = urllib.request.Request("http://127.0.0.1:2379/v3/kv/put", json.dumps(body).encode())
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        for key, value in puts.items():
            wait_for(lambda key=key, value=value: inside(member.namespace, lambda: put(key, value)), "etcd")
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def flanneld(member: Member) -> Iterator[subprocess.Popen[bytes]]:
    """The real one, until its peers are all in the kernel."""
    member.node.run("mkdir", "-p", "/run/flannel")
    words = [FLANNELD, "--iface=eth0", "--ip-masq=false", "--iptables-forward-rules=false"]
    words += ["--subnet-file=/run/subnet.env", "--etcd-endpoints=http://127.0.0.1:2379"]
    process = processes.start(processes.command_in(member.namespace, words), stderr=subprocess.DEVNULL)
    try:
        last = max(PEERS)
        wait_for(lambda: f"10.42.{last}.0/24" in member.ip("route"), "flanneld's routes")
        wait_for(lambda: f"fd42:0:0:{last:x}::/64" in member.ip("-6 route") or last > 9, "flanneld's IPv6 routes")
        wait_for(lambda: len([x for x in member.ip("-6 route").splitlines() if "onlink" in x or " via fd00" in x])
                 >= len(PEERS), "flanneld's IPv6 routes")  # fmt: skip
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("kind", ["vxlan", "host-gw"])
def test_flanneld_is_replaced_and_comes_back_without_a_write_of_ours(one: Ground, tmp_path: Path, kind: str) -> None:
    member = one.members[0]
    backend: dict[str, object] = {"Type": kind}
    with etcd(member, tmp_path / "etcd", backend):
        with flanneld(member):
            pass
        theirs = member.state()
        one.directory.mkdir()
        for number in PEERS:
            (one.directory / f"peer{number}.json").write_text(lease(number, kind, file=True))
        given = member.node.run("cat", "/run/subnet.env")
        subnets = [line.partition("=")[2] for line in given.splitlines() if "_SUBNET=" in line]
        events = LinkEvents(member.namespace)
        try:
            agent = one.start(member, f"--node-subnet={','.join(subnets)}", "--iface=eth0", backend=backend)
            agent.wait_ready(peers=len(PEERS))
            wide = [] if kind == "host-gw" else [line for line in member.state() if "flannel-v6.1:" in line]
            assert differences(theirs, member.state()) == [], wide
            written = [one.value for one in events.ready(SCOPE) if one.value is not None]
            assert [str(one) for one in written] == []
            agent.end()
        finally:
            events.close()
        with flanneld(member):
            time.sleep(0.5)
        assert differences(theirs, member.state()) == []


def differences(before: list[str], after: list[str]) -> list[str]:
    return sorted(set(before) ^ set(after))
