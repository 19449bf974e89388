"""The overlay with many nodes: start, one node's change, repair, memory, idle; beside the real flanneld.

    python bench/overlay.py [kernel] [flanneld] [sources] [--peers 100,1000,5000] [--times 60] [--idle 20]

Without a name, everything. In namespaces of its own; root is needed. Prints the machine, the figures and what was
asked; ends with 1 where one was missed (times depend on the machine's load, which is printed too).

kernel    hitless agent with leases in a shared directory: what it does to the kernel
flanneld  the real one (HITLESS_FLANNELD names its program) with the same leases in etcd: start, memory, idle
sources   a real etcd, and a real API server (HITLESS_KUBE_APISERVER) with Node objects of 10 KB: start to all peers
          known, one node's change until it is known, requests, memory and idle of the source by itself
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts import overlay_flanneld, overlay_kernel, overlay_sources
from tests.kernel.overlay.ground import ground

failures: list[str] = []


def require(holds: bool, words: str) -> None:
    """Print a bound and whether it was met."""
    print(f"    {'ok    ' if holds else 'MISSED'} {words}", flush=True)
    if not holds:
        failures.append(words)


def kernel(count: int, times: int, idle: float) -> None:
    """``hitless agent`` with so many peers."""
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder) / "leases", 1) as made:
        overlay_kernel.write_peers(made.directory, count)
        agent, first = overlay_kernel.start(made, count)
        agent.wait(lambda: agent.events("overlay applied"), "its log")
        written = agent.events("overlay applied")
        programmed = max(float(one["milliseconds"]) for one in written)
        kernel = overlay_kernel.Kernel(made.members[0])
        try:
            changed, turns = overlay_kernel.changes(made, agent, kernel, count, times)
            agent.end(signal.SIGKILL)
            overlay_kernel.write_peers(made.directory, count)
            agent, second = overlay_kernel.start(made, count)
            time.sleep(1.0)
            agent.end(signal.SIGKILL)
            kernel.forget()
            agent, again = overlay_kernel.start(made, count)
            writes = sum(agent.metric(name) for name in agent.series("hitless_overlay_writes_total"))
            repaired = overlay_kernel.repairs(made, kernel, count, times)
            lost = overlay_kernel.device_lost(made, kernel, count)
            time.sleep(3.0)
            share = overlay_kernel.idle(agent.process.pid, idle)
            resident, peak = overlay_kernel.memory(agent.process.pid)
        finally:
            kernel.close()
    print(f"  {count} peers: start to all programmed {first:.2f} s (of it {programmed:.0f} ms writing and checking), "
          f"restart {again:.2f} s with {writes:.0f} writes, with other MACs {second:.2f} s")  # fmt: skip
    p50, p99 = overlay_kernel.middle(changed) * 1000, overlay_kernel.quantile(changed, 0.99) * 1000
    t50, t99 = overlay_kernel.middle(turns), overlay_kernel.quantile(turns, 0.99)
    print(f"    one change: {t50:.2f} ms (p99 {t99:.2f}) a turn; "
          f"file to kernel {p50:.0f} ms, p99 {p99:.0f}")  # fmt: skip
    r50, r99 = overlay_kernel.middle(repaired) * 1000, overlay_kernel.quantile(repaired, 0.99) * 1000
    print(f"    repair of one object {r50:.0f} ms, p99 {r99:.0f}; of the deleted device {lost:.2f} s")
    print(f"    resident {resident:.0f} MB (at most {peak:.0f}), idle {share:.2f} % of a core")
    require(again <= 3.0 and first <= 3.0, "start to all programmed within 3 s")
    require(writes == 0, "a restart writes nothing")
    require(t99 <= 20, "one change within 20 ms (p99)")
    require(r99 <= 100, "repair of one object within 100 ms (p99)")
    require(lost <= 3.0, "a deleted device with all its peers within 3 s")
    require(resident <= 60, "at most 60 MB")
    require(share <= 0.5, "idle at most 0.5 %")


def flanneld(count: int, idle: float) -> None:
    """The real one with so many peers."""
    program = os.environ.get("HITLESS_FLANNELD", "")
    if not program:
        print("  HITLESS_FLANNELD names no flanneld: not run")
        return
    with tempfile.TemporaryDirectory() as folder, ground(Path(folder) / "leases", 1) as made:
        told = overlay_flanneld.measure(made.members[0], Path(folder) / "etcd", program, count, idle)
    print(f"  {count} peers: {told}")


def sources(count: int, times: int, idle: float) -> None:
    """etcd and Kubernetes with so many nodes, without a kernel behind them."""
    for name, measure in (("etcd", overlay_sources.etcd), ("Kubernetes", overlay_sources.kubernetes)):
        found = measure(count, times, idle)
        if found is None:
            print(f"  {name}: HITLESS_KUBE_APISERVER names no API server: not run")
            continue
        p50, p99 = overlay_kernel.middle(found.changes) * 1000, overlay_kernel.quantile(found.changes, 0.99) * 1000
        print(f"  {name}, {count} nodes: start to all known {found.synced:.2f} s ({found.cpu:.2f} s of processor, "
              f"{found.requests} requests), one change {p50:.1f} ms, p99 {p99:.1f}, resident {found.resident:.0f} MB "
              f"(at most {found.peak:.0f}), idle {found.idle:.2f} % of a core")  # fmt: skip
        require(found.synced <= 3.0, "start to all known within 3 s")
        require(p99 <= 20, "one change known within 20 ms (p99)")
        require(found.resident <= 60, "at most 60 MB")
        require(found.idle <= 0.5, "idle at most 0.5 %")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=["kernel", "flanneld", "sources", []], help="default: all")
    parser.add_argument("--peers", default="100,1000,5000")
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--idle", type=float, default=20.0)
    options = parser.parse_args()
    parts = options.parts or ["kernel", "flanneld", "sources"]
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for part in parts:
        print(part)
        for count in (int(one) for one in options.peers.split(",")):
            if part == "kernel":
                kernel(count, options.times, options.idle)
            elif part == "sources":
                sources(count, options.times, options.idle)
            else:
                flanneld(count, options.idle)
    if failures:
        print(f"missed: {len(failures)}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
