"""What retries are worth: three clients side by side, beside a stand-in of flannel that is restarted again and again.

    python bench/retries.py [--restarts 1000] [--agent flannel-0.28] [--rate 20]

In a lab of its own; root is needed. The clients are those of examples/retry: without retries, with retries from a fixed
source port, and with hitless.retry. Asked: hitless.retry loses no request over 1,000 restarts, the others lose some.
Exit code 0 when that was reached.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from pathlib import Path

from hitless import lab
from hitless.drill.plans import Method
from hitless.kernel import privileges, processes
from hitless.kernel.clock import Clock
from hitless.lab.agents import AGENTS
from hitless.lab.supervisor import How, Supervisor

CLIENTS = ("none", "fixed-port", "hitless")
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "retry" / "clients.py"
PORT = 7880
CHUNK = 600.0  # seconds that a client runs; then the next ones begin


async def restarted(supervisor: Supervisor, restarts: int, seconds: float) -> int:
    """So many restarts, or as many as there is time for."""
    end = time.monotonic() + seconds
    for done in range(restarts):
        if time.monotonic() > end:
            return done
        await supervisor.restart(How(Method.SIGTERM), done + 1)
        await asyncio.sleep(0.3)
    return restarts


async def bench(agent: str, restarts: int, rate: float) -> bool:
    totals = {client: [0, 0, 0.0] for client in CLIENTS}
    async with lab.up_async(lab.LabPlan()) as built:
        node, far = built.nodes[0], built.far_end
        host = str(next(iter(far.addresses.values()))[0])
        farend = processes.start(
            [sys.executable, "-m", "hitless", "farend", "--bind", host, "--json"], namespace=far.namespace
        )
        supervisor = Supervisor(node, AGENTS[agent], built.plan, emit=lambda _: None, clock=Clock(), backoff=0.1)
        async with supervisor:
            if not await supervisor.start():
                raise SystemExit(f"{agent} did not become ready: {supervisor.last_lines}")
            done = 0
            while done < restarts:
                length = min(CHUNK, 3.0 * (restarts - done) + 5)
                running = [
                    processes.start(
                        [
                            sys.executable,
                            str(EXAMPLE),
                            client,
                            host,
                            str(PORT),
                            f"--seconds={length}",
                            f"--rate={rate}",
                        ],
                        namespace=node.pods[0].namespace,
                        stdout=processes.PIPE,
                    )
                    for client in CLIENTS
                ]
                await asyncio.sleep(1.0)
                done += await restarted(supervisor, restarts - done, length - 3)
                for one in running:
                    text, _ = await asyncio.to_thread(one.communicate)
                    found = json.loads(text)
                    total = totals[found["client"]]
                    total[0] += found["requests"]
                    total[1] += found["failed"]
                    total[2] = max(total[2], found["slowest_s"])
                print(f"    {done:,} of {restarts:,} restarts", file=sys.stderr)
        farend.kill()
        farend.wait()
    print(f"{agent} (stand-in), {restarts:,} restarts, each client {rate:g} new connections a second")
    print(f"    {'client':12} {'requests':>10} {'failed':>8}  slowest")
    for client, (requests, failed, slowest) in totals.items():
        print(f"    {client:12} {requests:10,} {failed:8,}  {slowest:5.2f} s")
    return totals["hitless"][1] == 0 and totals["none"][1] > 0 and totals["fixed-port"][1] > 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--restarts", type=int, default=1000)
    parser.add_argument("--agent", default="flannel-0.28", choices=sorted(AGENTS))
    parser.add_argument("--rate", type=float, default=20.0)
    options = parser.parse_args()
    privileges.ensure()
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{cores} cores, Linux {platform.release()}, Python {platform.python_version()}, load {load:.1f}")
    reached = asyncio.run(bench(options.agent, options.restarts, options.rate))
    print("reached" if reached else "MISSED")
    return 0 if reached else 1


if __name__ == "__main__":
    raise SystemExit(main())
