"""The real flanneld (HITLESS_FLANNELD names its program) and the agent on one etcd: each reads the other's lease."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.leases.etcd_server import program
from tests.kernel.nftables.nodes import wait_for
from tests.kernel.overlay.ground import HITLESS, Member, ground

from hitless.kernel import processes
from hitless.kernel.namespaces import inside

pytestmark = pytest.mark.kernel

FLANNELD = os.environ.get("HITLESS_FLANNELD", "")
URL = "http://192.0.2.1:2379"
CONFIG = json.dumps({"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}})
PREFIX = "/coreos.com/network"


def ask(member: Member, path: str, body: dict[str, Any]) -> dict[str, Any]:
    def call() -> dict[str, Any]:
        with urllib.request.urlopen(f"{URL}/v3/{path}", json.dumps(body).encode(), timeout=10) as answer:
            found = json.loads(answer.read())
            assert isinstance(found, dict)
            return found

    return inside(member.namespace, call)


def text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def alive(member: Member) -> bool:
    try:
        ask(member, "kv/range", {"key": text("/")})
    except OSError:
        return False
    return True


def lease_of(member: Member, number: int) -> dict[str, Any]:
    (kv,) = ask(member, "kv/range", {"key": text(f"{PREFIX}/subnets/10.42.{number}.0-24")})["kvs"]
    value = json.loads(base64.b64decode(kv["value"]))
    assert isinstance(value, dict)
    return value | {"lease": kv.get("lease", "0")}


def test_each_reads_the_others_lease_and_pods_reach_each_other(tmp_path: Path) -> None:
    if not FLANNELD or not Path(FLANNELD).exists():
        pytest.skip("HITLESS_FLANNELD names no flanneld: this is about the real one")
    with ground(tmp_path / "leases") as two, contextlib.ExitStack() as stack:
        one, other = two.members

        def start(member: Member, command: Sequence[str]) -> None:
            process = processes.start(processes.command_in(member.namespace, command), stderr=subprocess.DEVNULL)
            stack.callback(process.wait, 20)
            stack.callback(process.kill)

        peer = "http://127.0.0.1:2380"
        one.ip("link set lo up")
        start(one, [program(), f"--data-dir={tmp_path}/etcd", f"--listen-client-urls={URL}",
                    f"--advertise-client-urls={URL}", f"--listen-peer-urls={peer}",
                    f"--initial-advertise-peer-urls={peer}",
                    f"--initial-cluster=default={peer}", "--unsafe-no-fsync"])  # fmt: skip
        wait_for(lambda: alive(one), "etcd")
        ask(one, "kv/put", {"key": text(f"{PREFIX}/config"), "value": text(CONFIG)})
        for number in (1, 2):  # the pods' subnets
            said = text(f'{{"PublicIP":"192.0.2.{number}"}}')
            ask(one, "kv/put", {"key": text(f"{PREFIX}/subnets/10.42.{number}.0-24"), "value": said})
        one.node.run("mkdir", "-p", "/run/flannel")
        start(one, [FLANNELD, f"--etcd-endpoints={URL}", "--iface=eth0", "--subnet-file=/run/flannel/subnet.env"])
        start(other, [*HITLESS, f"--etcd-endpoints={URL}", "--iface=eth0", "--subnet-file=/run/subnet.env",
                      "--state-file=/run/state.json"])  # fmt: skip
        until = time.monotonic() + 40
        while not (two.reached(one, other, 4) and two.reached(other, one, 4)):
            assert time.monotonic() < until, (one.ip("route"), other.ip("route"))
        ours, theirs = lease_of(one, 2), lease_of(one, 1)
        assert ours.keys() == theirs.keys() and ours["lease"] == "0"  # a reservation of ours stays one
        assert "FLANNEL_SUBNET=10.42.2.1/24\n" in other.node.run("cat", "/run/subnet.env")
        assert other.node.run("cat", "/run/subnet.env").replace("10.42.2.1", "10.42.1.1") == one.node.run(
            "cat", "/run/flannel/subnet.env"
        )
