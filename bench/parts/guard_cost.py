"""CPU and memory of an idle guard, with many Services and connections. Part of bench/guard.py."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from bench.parts.guard_bounds import folder, require
from tests.kernel.guard.guarded import World

from hitless import lab
from hitless.kernel import namespaces
from hitless.model.families import Backend, Family


def cost(services: int, entries: int, seconds: float) -> None:
    """Idle: the agent resyncs as it does (every 5 s), nothing changes."""
    for backend in (Backend.NFT, Backend.LEGACY):
        print(f"cost: {services} Services, {entries} connections, iptables-{backend}, IPv4 and IPv6", flush=True)
        plan = lab.LabPlan(nodes=1, pods_per_node=1, services=services, family="dual", backend=backend)
        with folder() as there, lab.up(plan) as cluster:
            made = World(cluster, there)
            try:
                made.agent("flannel-0.28")
                _fill(made, entries)
                guard = made.guard()
                for family in Family:
                    made.until_state("standing by", family)
                time.sleep(5)
                before = _cpu(guard.pid)
                time.sleep(seconds)
                share = (_cpu(guard.pid) - before) / seconds
                status = Path(f"/proc/{guard.pid}/status").read_text()
                rss, peak = (
                    int(next(line.split()[1] for line in status.splitlines() if line.startswith(key))) / 1024
                    for key in ("VmRSS", "VmHWM")
                )
                require(share <= 0.01, f"idle CPU {share * 100:.2f} % of a core over {seconds:.0f} s")
                require(rss <= 60, f"resident memory {rss:.0f} MB (peak, at the start, {peak:.0f} MB)")
            finally:
                made.close()


def _cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _fill(made: World, entries: int) -> None:
    """Connections by datagrams from the pod to many ports of the far end (it answers none: they stay for 30 s and
    more, since the time-out is raised)."""
    script = "sysctl -q -w net.netfilter.nf_conntrack_max=400000 net.netfilter.nf_conntrack_udp_timeout=600"
    made.on_node("sh", "-c", script, check=False)
    targets = [str(address) for address in made.cluster.far_end.addresses[Family.IPV4]]
    senders = []
    for _ in range(max(1, entries // 50_000)):
        sender = namespaces.inside(made.pod.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        senders.append(sender)
    sent = 0
    for target in targets:
        for port in range(1024, 65000):
            for sender in senders:
                sender.sendto(b"x", (target, port))
                sent += 1
                if sent >= entries:
                    break
            if sent >= entries:
                break
        if sent >= entries:
            break
    for sender in senders:
        sender.close()
    count = made.on_node("cat", "/proc/sys/net/netfilter/nf_conntrack_count").strip()
    print(f"  {count} connections in the table")
