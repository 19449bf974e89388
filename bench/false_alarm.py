"""Does a busy machine look like an outage? Probing with nothing wrong while every core is kept busy by other work.

    sudo .venv/bin/python bench/false_alarm.py [--minutes 10] [--busy 2]

A lab of its own with a masquerade; ``--busy`` spinning processes per core beside prober and far end. Prints what the
prober says of itself and of the network; ends with 1 when it says that something was lost (other than starved).
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections import Counter

from hitless import lab
from hitless.kernel import processes
from hitless.model import events as e
from hitless.model.families import Family
from hitless.probe import verdict

HITLESS = [sys.executable, "-P", "-m", "hitless"]
RULES = """
table inet bench {
  chain forward { type filter hook forward priority filter; ct state established accept; }
  chain postrouting { type nat hook postrouting priority srcnat; oifname "eth0" masquerade; }
}
"""
SPIN = "while True: sum(range(100000))"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--busy", type=int, default=2, help="spinning processes per core")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--scheduling", choices=["realtime", "normal"], default="realtime")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.platform()}, {cores} cores, {arguments.busy * cores} spinning processes")
    running: list[processes.Process] = []
    with lab.up(lab.LabPlan(nodes=1, pods_per_node=1, family="dual", kubernetes=False)) as cluster:
        processes.run(["nft", "-f", "-"], namespace=cluster.nodes[0].namespace, stdin=RULES)
        try:
            for _ in range(arguments.busy * cores):
                running.append(processes.start([sys.executable, "-c", SPIN]))
            addresses = [str(cluster.far_end.addresses[family][0]) for family in Family]
            bind = [word for one in addresses for word in ("--bind", one)]
            far = processes.start(
                [*HITLESS, "farend", "--json", *bind], namespace=cluster.far_end.namespace, stdout=subprocess.PIPE
            )
            running.append(far)
            assert far.stdout is not None
            far.stdout.readline()
            to = [
                word for one in addresses for word in ("--to", f"farend://[{one}]" if ":" in one else f"farend://{one}")
            ]
            words = [*HITLESS, "probe", "--json", "--rate", str(arguments.rate), "--streams", "4", *to]
            words += ["--scheduling", arguments.scheduling]
            words += ["--duration", str(arguments.minutes * 60)]
            prober = processes.start(words, namespace=cluster.nodes[0].pods[0].namespace, stdout=subprocess.PIPE)
            running.append(prober)
            totals = follow(prober)
        finally:
            for process in running:
                process.kill()
                process.wait()
                if process.stdout is not None:
                    process.stdout.close()
    for name, count in sorted(totals.items()):
        print(f"{name:28} {count}")
    said = verdict(totals)
    print(f"the prober says: {said}")
    print(f"asked for: pass or inconclusive, never fail: {'missed' if said == 'fail' else 'reached'}")
    return 1 if said == "fail" else 0


def follow(prober: processes.Process) -> dict[str, int]:
    """Read the prober to its end, with a line every ten seconds and every loss."""
    assert prober.stdout is not None
    window: Counter[str] = Counter()
    lag = 0
    for line in prober.stdout:
        event = e.decode(line)
        if isinstance(event, e.Attempts):
            window.update({"sent": event.sent, "lost": event.lost, "delayed": event.delayed})
        elif isinstance(event, e.Loss | e.StreamBreak | e.Note):
            print(event)
        elif isinstance(event, e.Heartbeat):
            lag = max(lag, event.max_lag_ns)
            window["beats"] += 1
            if window["beats"] == 10:
                print(f"{dict(window)} largest lag {lag / 1e6:.0f} ms; {event.detail}", flush=True)
                window.clear()
                lag = 0
        elif isinstance(event, e.Summary):
            return dict(event.totals)
    raise SystemExit("the prober's stream was cut off")


if __name__ == "__main__":
    sys.exit(main())
