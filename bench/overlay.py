"""The overlay with many nodes: start, one node's change, repair, memory, idle; beside the real flanneld.

    python bench/overlay.py [kernel] [flanneld] [sources] [state] [speed]
                            [--peers 100,1000,5000] [--times 60] [--pairs 40]

Without a name, everything: about ten minutes on two quiet cores. In namespaces of its own; root is needed. Prints the
machine, the figures, and at the end what was asked beside what was seen; ends with 1 where something was missed (times
depend on the machine's load, which is printed too).

kernel    hitless agent with leases in a shared directory: what it does to the kernel
flanneld  the real one (HITLESS_FLANNELD names its program) with the same leases in etcd: start, memory, idle
sources   a real etcd, and a real API server (HITLESS_KUBE_APISERVER) with Node objects of 10 KB: start to all peers
          known, one node's change until it is known, requests, memory and idle of the source by itself
state     writing and reading the state file of so many leases (both families), each in a process of its own
speed     throughput and latency from pod to pod over the devices of both (``bench/pod_to_pod.py devices speed``)
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts import overlay_flanneld, overlay_kernel, overlay_sources, overlay_state
from tests.kernel.overlay.ground import ground

told: list[tuple[bool, str]] = []
EVERY = 30.0  # seconds between two writes of the state file (hitless.sources.lease_cache)
costs: dict[int, float] = {}  # of a change, by the number of peers


def require(what: str, seen: float, most: float, unit: str) -> None:
    """Print a bound beside what was seen."""
    holds = seen <= most
    line = f"{'ok    ' if holds else 'MISSED'} {what}: asked {most:g} {unit}, seen {seen:.3g} {unit}"
    print(f"    {line}", flush=True)
    told.append((holds, line))


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
            costs[count] = overlay_kernel.cost_of_changes(made, agent, count, 1000)
            after_changes, _ = overlay_kernel.memory(agent.process.pid)
            agent.end(signal.SIGKILL)
            overlay_kernel.write_peers(made.directory, count)
            agent, second = overlay_kernel.start(made, count)
            overlay_kernel.written(agent)
            agent.end(signal.SIGKILL)
            kernel.forget()
            agent, again = overlay_kernel.start(made, count)
            used = overlay_kernel.processor(agent.process.pid)
            writes = overlay_kernel.written(agent)
            repaired = overlay_kernel.repairs(made, kernel, count, times)
            lost = overlay_kernel.device_lost(made, kernel, count)
            time.sleep(3.0)
            share = overlay_kernel.idle(agent.process.pid, idle)
            resident, peak = overlay_kernel.memory(agent.process.pid)
        finally:
            kernel.close()
    print(f"  {count} peers: start to all programmed {first:.2f} s (of it {programmed:.0f} ms writing and checking), "
          f"restart {again:.2f} s with {writes:.0f} writes ({used:.2f} s of processor), "
          f"with other MACs {second:.2f} s")  # fmt: skip
    p50, p99 = overlay_kernel.middle(changed) * 1000, overlay_kernel.quantile(changed, 0.99) * 1000
    t50, t99 = overlay_kernel.middle(turns), overlay_kernel.quantile(turns, 0.99)
    print(f"    one change: {t50:.2f} ms (p99 {t99:.2f}) a turn; "
          f"file to kernel {p50:.0f} ms, p99 {p99:.0f}; processor {costs[count]:.2f} ms a change")  # fmt: skip
    r50, r99 = overlay_kernel.middle(repaired) * 1000, overlay_kernel.quantile(repaired, 0.99) * 1000
    print(f"    repair of one object {r50:.0f} ms, p99 {r99:.0f}; of the deleted device {lost:.2f} s")
    print(f"    resident {resident:.0f} MB (at most {peak:.0f}), idle {share:.2f} % of a core")
    name = f"{count} peers"
    require(f"{name}: start to all programmed", max(first, again), 3.0, "s")
    require(f"{name}: writes of a restart", writes, 0, "writes")
    require(f"{name}: one change, lease to kernel, p99", p99, 20, "ms")
    require(f"{name}: repair of one object, p99", r99, 100, "ms")
    require(f"{name}: a deleted device with all its peers", lost, 3.0, "s")
    require(f"{name}: resident after 1,000 changes", after_changes, 60, "MB")
    require(f"{name}: resident after its device was deleted", resident, 60, "MB")
    require(f"{name}: idle", share, 0.5, "% of a core")
    if count > (fewest := min(costs)):
        more = costs[count] / costs[fewest]
        require(f"{name}: processor of a change, beside {fewest} peers", more, 1.5, "times")


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
        title = f"{name}, {count} nodes"
        require(f"{title}: start to all known", found.synced, 3.0, "s")
        require(f"{title}: one change known, p99", p99, 20, "ms")
        require(f"{title}: resident", found.resident, 60, "MB")
        require(f"{title}: idle", found.idle, 0.5, "% of a core")


def state(count: int) -> None:
    """The state file with so many leases; it is written at most every 30 s, while leases change."""
    found = overlay_state.measure(count)
    write, read = found["write"], found["read"]
    share = write["processor_ms"] / 1000 / EVERY * 100
    print(f"  {count} nodes: {found['file']['bytes'] / 1e6:.2f} MB")
    for what, one in (("write", write), ("read", read)):
        print(f"    {what} {one['ms']:.0f} ms ({one['processor_ms']:.0f} ms of processor), resident at most "
              f"{one['peak_mb']:.1f} MB more, {one['after_mb']:.1f} MB afterwards")  # fmt: skip
    require(f"{count} nodes: state file, while leases change", share, 0.5, "% of a core")


def speed(pairs: int) -> None:
    """Pod to pod, over our devices and over the real one's."""
    program = os.environ.get("HITLESS_FLANNELD", "")
    if not program:
        print("  HITLESS_FLANNELD names no flanneld: not run")
        return
    line = [sys.executable, str(Path(__file__).with_name("pod_to_pod.py")), "devices", "speed", "--flanneld", program]
    line.append("--ready-http=http://127.0.0.1:10248/healthz")  # every release has it; 0.27 has no other
    done = subprocess.run([*line, f"--pairs={pairs}"], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, end="")
    judged = [line.strip() for line in done.stdout.splitlines() if _judged(line)]
    told.extend((line.startswith("ok"), line) for line in judged)
    if done.returncode not in (0, 1) or not any("within 2 %" in line for line in judged):
        told.append((False, f"MISSED speed: pod_to_pod.py did not get to its end ({done.returncode})"))


def _judged(line: str) -> bool:
    return line.strip().startswith(("ok ", "MISSED "))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", choices=["kernel", "flanneld", "sources", "state", "speed", []], help="default: all"
    )
    parser.add_argument("--peers", default="100,1000,5000")
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=40, help="measurements of speed: as many as 2 %% need")
    parser.add_argument("--idle", type=float, default=10.0)
    options = parser.parse_args()
    parts = options.parts or ["kernel", "flanneld", "sources", "state", "speed"]
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for part in parts:
        print(part, flush=True)
        if part == "speed":
            speed(options.pairs)
            continue
        for count in (int(one) for one in options.peers.split(",")):
            if part == "kernel":
                kernel(count, options.times, options.idle)
            elif part == "sources":
                sources(count, options.times, options.idle)
            elif part == "state":
                state(count)
            else:
                flanneld(count, options.idle)
    print(f"\nasked and seen (load at the end {os.getloadavg()[0]:.1f}):")
    for _, words in told:
        print(f"  {words}")
    missed = sum(not holds for holds, _ in told)
    print(f"{missed} of {len(told)} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
