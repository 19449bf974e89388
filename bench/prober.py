"""How fast prober and far end are, per kind and family, each on one core, with the CPU time that a flow costs.

    sudo .venv/bin/python bench/prober.py [--seconds 5]

A lab of its own (no rules but a masquerade), prober pinned to one core and far end to another. The rate is raised until
the prober skips more than one attempt in a hundred; printed is the highest rate that it kept, by kind and family. Asked
for are 1,000 new flows a second on one core; ends with 1 where a line misses that.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys

from hitless import lab
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.model import events as e
from hitless.model.families import Family

HITLESS = [sys.executable, "-P", "-m", "hitless"]
ASKED = 1000
RULES = """
table inet bench {
  chain forward { type filter hook forward priority filter; ct state established accept; }
  chain postrouting { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
}
"""


def pinned(core: int, words: list[str], namespace: Namespace) -> processes.Process:
    """Start a command on one core."""
    line = ["taskset", "-c", str(core), *HITLESS, *words]
    return processes.start(line, namespace=namespace, stdout=subprocess.PIPE)


def run(
    cluster: lab.Lab, mix: str, family: Family, rate: int, seconds: float, cores: tuple[int, int]
) -> dict[str, float]:
    """One run; rates are flows per second, costs are microseconds of CPU a flow."""
    addresses = [str(address) for address in cluster.far_end.addresses[family]]
    far = pinned(
        cores[1],
        ["farend", "--json", *(word for one in addresses for word in ("--bind", one))],
        cluster.far_end.namespace,
    )
    assert far.stdout is not None
    far.stdout.readline()
    urls = [f"farend://[{one}]" if family is Family.IPV6 else f"farend://{one}" for one in addresses]
    words = ["probe", "--json", "--mix", mix, "--rate", str(rate), "--duration", str(seconds)]
    prober = pinned(
        cores[0], [*words, *(word for url in urls for word in ("--to", url))], cluster.nodes[0].pods[0].namespace
    )
    written, _ = prober.communicate()
    far.terminate()
    answered, _ = far.communicate()
    events = [e.decode(line) for line in written.splitlines()]
    (summary,) = [event for event in events if isinstance(event, e.Summary)]
    totals = summary.totals
    beats = [e.decode(line) for line in answered.splitlines()]
    far_cpu = sum(beat.cpu_ns for beat in beats if isinstance(beat, e.Heartbeat))
    sent = max(1, totals["sent"])
    skipped = sum(count for name, count in totals.items() if name.startswith("skipped_"))
    latencies = sorted(event.latency_p50_ns for event in events if isinstance(event, e.Attempts))
    return {
        "rate": sent / seconds,
        "skipped": skipped / (sent + skipped),
        "lost": totals.get("control_lost", 0)
        + sum(totals.get(f"{kind}_lost", 0) for kind in ("tcp", "udp", "icmp", "http")),
        "cpu": totals["cpu_ns"] / sent / 1000,
        "far_cpu": far_cpu / sent / 1000,
        "latency": latencies[len(latencies) // 2] / 1000 if latencies else 0.0,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each run")
    arguments = parser.parse_args()
    available = sorted(os.sched_getaffinity(0))
    cores = (available[0], available[-1])
    print(f"{platform.platform()}, Python {platform.python_version()}, {len(available)} cores")
    print(f"prober on core {cores[0]}, far end on core {cores[1]}; CPU in microseconds a flow, latency in microseconds")
    print(
        f"{'mix':28} {'family':7} {'kept/s':>8} {'prober':>8} {'far end':>8} {'p50':>8} {'lost':>8}  asked: {ASKED}/s"
    )
    missed = 0
    with lab.up(lab.LabPlan(nodes=1, pods_per_node=1, family="dual", kubernetes=False)) as cluster:
        processes.run(["nft", "-f", "-"], namespace=cluster.nodes[0].namespace, stdin=RULES)
        for mix in ("tcp=1", "udp=1", "icmp=1", "http=1", "tcp=60,udp=30,icmp=9,http=1"):
            for family in Family:
                best: dict[str, float] = {}
                for rate in (ASKED, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 10000, 12000, 15000):
                    figures = run(cluster, mix, family, rate, arguments.seconds, cores)
                    if figures["skipped"] > 0.01:
                        break
                    best = figures
                columns = [f"{best.get(name, 0):8.0f}" for name in ("rate", "cpu", "far_cpu", "latency", "lost")]
                reached = best.get("rate", 0) >= 0.99 * ASKED
                missed += not reached
                word = "reached" if reached else "missed"
                print(f"{mix:28} {family:7} {' '.join(columns)}  {word}", flush=True)
    print("reached" if not missed else f"missed in {missed} of 10 lines")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
