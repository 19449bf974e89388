"""What it costs to read a node's rules and to ask what they do to a packet, with the rules of many Services.

    python bench/semantics.py [--services 5000] [--idle-seconds 10]

Everything happens in a network namespace of its own; root is needed. The rules are kubelet's, kube-proxy's and Felix's
as the lab makes them, with flannel's, through iptables-legacy and through iptables-nft.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_network

from hitless.kernel import nftables, processes, xtables
from hitless.kernel.namespaces import Namespace
from hitless.kernel.xtables.sockopt import Tables
from hitless.lab.kube import node_rules
from hitless.lab.plans import LabPlan
from hitless.model.families import Family
from hitless.model.packets import UDP, Packet
from hitless.model.rules import Ruleset
from hitless.semantics import evaluate, witnesses

FLANNEL = """*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.1.0/24 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
"""


@contextmanager
def a_node() -> Iterator[Namespace]:
    holder = processes.start(
        ["unshare", "-nm", "sh", "-c", "mount -t tmpfs tmpfs /run && echo ready && exec sleep infinity"],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"ready\n":
            raise SystemExit("a namespace could not be made: run it as root")
        yield Namespace.of_process("bench", holder.pid)
    finally:
        holder.kill()
        holder.wait()


def best(action: Callable[[], object], times: int) -> float:
    """The shortest of several runs, in microseconds: what it takes on an idle machine."""
    shortest = float("inf")
    for _ in range(times):
        begun = time.perf_counter()
        action()
        shortest = min(shortest, time.perf_counter() - begun)
    return shortest * 1e6


def ask(name: str, ruleset: Ruleset, packet: Packet) -> None:
    first = best(lambda: evaluate(ruleset, packet), 1)
    outcome = evaluate(ruleset, packet)
    again = best(lambda: evaluate(ruleset, packet), 500)
    print(f"  {name}: {outcome.state}: {outcome.reason}")
    print(f"    first evaluation {first / 1000:.2f} ms, then {again:.0f} us; {len(outcome.chains)} chains visited")


def legacy(node: Namespace, packet: Packet, seconds: float) -> None:
    with Tables(node, Family.IPV4) as source:
        for table in ("nat", "filter"):
            reading = source.entries(table)
            assert reading is not None
            info = best(partial(source.info_bytes, table), 2000)
            entries = best(partial(source.entries, table), 20)
            print(
                f"  {table}: {reading.info.entries} entries, {reading.info.size / 1e6:.1f} MB; "
                f"GET_INFO {info:.1f} us, GET_ENTRIES {entries / 1000:.2f} ms"
            )
    ruleset = xtables.read_ruleset(node, (Family.IPV4,))
    ask("prerouting, forward, postrouting", ruleset, packet)
    with xtables.Poller(node) as poller:
        poller.snapshot()
        poller.wait(1)
        begun = time.process_time()
        poller.wait(seconds)
        print(f"  poller, idle for {seconds:g} s: {100 * (time.process_time() - begun) / seconds:.2f} % of a core")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=5000)
    parser.add_argument("--idle-seconds", type=float, default=10)
    options = parser.parse_args()
    print(f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"load when begun: {' '.join(f'{value:.2f}' for value in os.getloadavg())}")
    plan = LabPlan(nodes=1, pods_per_node=30, services=options.services)
    pod = plan.pod_interface(0, 7)
    networks = ip_network("10.42.0.0/16"), ip_network("10.42.1.0/24")
    (packet,) = witnesses(*networks, protocols=(UDP,), iif=pod, oif="eth0")
    for backend in ("legacy", "nft"):
        print(f"\niptables-{backend}, {options.services} Services, 30 pods")
        with a_node() as node:
            for text in (node_rules(plan, Family.IPV4, 0), FLANNEL):
                processes.run(
                    [f"iptables-{backend}-restore", "--noflush", "--wait"], namespace=node, stdin=text, timeout=600
                )
            if backend == "legacy":
                legacy(node, packet, options.idle_seconds)
            else:
                took = best(partial(nftables.read_ruleset, node, (Family.IPV4,)), 3)
                print(f"  full read {took / 1e6:.2f} s")
                ask("prerouting, forward, postrouting", nftables.read_ruleset(node, (Family.IPV4,)), packet)


if __name__ == "__main__":
    main()
