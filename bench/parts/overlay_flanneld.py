"""The real flanneld with many leases in etcd: how long until all routes are there, and what it costs."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from bench.parts import overlay_kernel
from tests.kernel.nftables.nodes import wait_for
from tests.kernel.overlay.ground import Member

from hitless.kernel import processes
from hitless.kernel.namespaces import inside

PATIENCE = 400.0


def _transact(puts: dict[str, str]) -> bool:
    def coded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    wanted = [{"requestPut": {"key": coded(key), "value": coded(value)}} for key, value in puts.items()]
    request = urllib.request.Request("http://127.0.0.1:2379/v3/kv/txn", json.dumps({"success": wanted}).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def measure(member: Member, folder: Path, program: str, count: int, idle: float) -> str:
    """In words."""
    member.ip("link set lo up")
    words = ["etcd", f"--data-dir={folder}", "--log-level=error", "--unsafe-no-fsync"]
    etcd = processes.start(processes.command_in(member.namespace, words), stderr=subprocess.DEVNULL)
    flannel: subprocess.Popen[bytes] | None = None
    try:
        puts = {"/coreos.com/network/config": json.dumps(overlay_kernel.CONF)}
        wait_for(lambda: inside(member.namespace, lambda: _transact(puts)), "etcd")
        for begin in range(0, count, 100):
            puts = {}
            for number in range(begin, min(begin + 100, count)):
                value = overlay_kernel.peer(number)
                key = str(value.pop("Subnet")).replace("/", "-")
                puts[f"/coreos.com/network/subnets/{key}"] = json.dumps(value)
            assert inside(member.namespace, lambda puts=puts: _transact(puts))  # type: ignore[misc]
        member.node.run("mkdir", "-p", "/run/flannel")
        options = ["--iface=eth0", "--iptables-forward-rules=false", "--subnet-file=/run/flannel/subnet.env"]
        begun = time.monotonic()
        flannel = processes.start(
            processes.command_in(member.namespace, [program, *options, "--etcd-endpoints=http://127.0.0.1:2379"]),
            stderr=subprocess.DEVNULL,
        )
        routes = 0
        while routes < count and time.monotonic() - begun < PATIENCE and flannel.poll() is None:
            time.sleep(0.1)
            routes = member.ip("route show dev flannel.1").count("onlink") if "flannel.1" in member.ip("link") else 0
        took = time.monotonic() - begun
        if routes < count:
            return f"{routes} of {count} routes after {took:.0f} s (ended: {flannel.poll()})"
        time.sleep(3.0)
        share = overlay_kernel.idle(flannel.pid, idle)
        resident, peak = overlay_kernel.memory(flannel.pid)
        used = overlay_kernel.processor(flannel.pid)
        return (
            f"start to all routes {took:.2f} s, resident {resident:.0f} MB (at most {peak:.0f}), "
            f"{used:.1f} s of processor, idle {share:.2f} % of a core"
        )
    finally:
        for process in (flannel, etcd):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
