"""What the guard must reach: nothing lost over many restarts, exact copies, quick healing, low cost.

    sudo .venv/bin/python bench/guard.py [restarts|differential|heal|cost|throughput|all] [--connections 300000]

restarts      the same rounds with and without the guard, over stand-ins, backends and families; some by SIGKILL, and
              an agent that stays away for 60 s
differential  random primaries: primary + guard against the whole primary alone
heal          poisoned flows until they work again, and healthy ones that were touched
cost          CPU and memory idle, with 5,000 Services and 100,000 connections
throughput    a pod's TCP throughput and new connections per second, with and without, side by side
Prints the machine and the figures; ends with 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts import guard_cost, guard_heal, guard_throughput
from bench.parts.guard_bounds import failures, folder, require
from tests.kernel.guard import test_packets_differential
from tests.kernel.guard.guarded import CLI, World, world
from tests.kernel.semantics.wires import wires
from tests.unit.guard import test_differential

from hitless.model.families import Backend, Family

AGENTS = [
    *((backend, name) for name in ("flannel-0.26", "flannel-0.28") for backend in Backend),
    (Backend.NFT, "flannel-0.28-canal"),
    (Backend.LEGACY, "flannel-0.28-canal"),
]


# --- restarts


def rounds(made: World, name: str, number: int, away: float) -> None:
    agent = made.agent(name)
    for index in range(number):
        made.end(agent, signal.SIGKILL if index % 3 == 2 else signal.SIGTERM)
        if away and index == number // 2:
            time.sleep(away)
        agent = made.agent(name)
        time.sleep(0.3)
        made.started = [process for process in made.started if process.poll() is None]


def restarts(connections: int, rate: int) -> None:
    print(f"restarts: at least {connections} new connections with the guard, {rate} a second, half of them IPv6")
    total = {"guard": Counter[str](), "bare": Counter[str]()}
    for backend, name in AGENTS:
        told = {mode: stretch(backend, name, mode, connections // len(AGENTS) + 1, rate) for mode in total}
        for mode, tally in told.items():
            total[mode] += tally
            gaps = f"{tally['gaps']:4} gaps, {tally['carried']:6} flows carried" if mode == "guard" else ""
            print(
                f"  {backend:9} {name:19} {mode:5} {tally['restarts']:4} restarts {tally['sent']:8} new connections "
                f"{tally['lost']:6} lost  {gaps}",
                flush=True,
            )
    with_guard, without = total["guard"], total["bare"]
    require(
        with_guard["sent"] >= connections and with_guard["restarts"] >= 100,
        f"{with_guard['sent']} new connections over {with_guard['restarts']} restarts ({with_guard['kills']} by "
        f"SIGKILL, {with_guard['absences']} with the agent away for 60 s; IPv4 {with_guard['ipv4']}, "
        f"IPv6 {with_guard['ipv6']})",
    )
    require(min(with_guard["ipv4"], with_guard["ipv6"], with_guard["absences"], with_guard["kills"]) > 0, "all kinds")
    require(
        with_guard["lost"] == with_guard["leaked"] == 0, f"{with_guard['lost']} lost, {with_guard['leaked']} leaked"
    )
    require(with_guard["uncovered"] == 0, f"{with_guard['gaps']} gaps, {with_guard['uncovered']} of them not covered")
    require(with_guard["carried"] > 0, f"{with_guard['carried']} flows carried by the standby")
    require(without["lost"] > 0, f"without the guard {without['lost']} of {without['sent']} lost")


def stretch(backend: Backend, name: str, mode: str, share: int, rate: int) -> Counter[str]:
    """Labs of one agent until ``share`` connections were made (without the guard: one lab, to see that it loses)."""
    tally: Counter[str] = Counter()
    while tally["sent"] < (share if mode == "guard" else 1):
        # the agent that takes its rules away stays away once for a minute
        away = 60.0 if name == "flannel-0.26" and mode == "guard" and not tally["sent"] else 0.0
        number = 18 if mode == "guard" else 6
        with folder() as there, world(there, backend=backend, family="dual") as made:
            first = made.agent(name)
            if mode == "guard":
                made.guard()
                for family in Family:
                    made.until_state("standing by", family)
            with made.probing(rate, timeout=2.5) as told:
                made.end(first)
                rounds(made, name, number, away)
            if mode == "guard":
                gaps = [gap for gap in made.records("gap") if not gap.get("open")]
                tally["gaps"] += len(gaps)
                tally["uncovered"] += sum(not gap["covered"] for gap in gaps)
                tally["carried"] += sum(made.counters(family)["carried"].packets for family in Family)
        tally.update(told)
        tally.update({"restarts": number, "kills": number // 3, "absences": int(away > 0)})
    return tally


# --- differential


def differential(cases: int, packet_cases: int) -> None:
    print("differential: the evaluator as the judge, then the kernel with real packets")
    begin = time.monotonic()
    tally = test_differential.run(cases)
    print(f"  {dict(tally)} in {time.monotonic() - begin:.0f} s")
    require(tally["evaluations"] >= 100_000, f"{tally['evaluations']} evaluations, 0 differences")
    begin = time.monotonic()
    with wires() as net:
        seen = test_packets_differential.run(net, packet_cases)
    print(f"  {dict(seen)} in {time.monotonic() - begin:.0f} s")
    require(seen["flows"] >= 2000 and seen["bridged"] > 500, f"{seen['flows']} flows of real packets, 0 differences")


# --- throughput


def throughput(turns: int) -> None:
    print("throughput: the standby and its meter put in and taken out, four times a second, under one load")
    with folder() as there, world(there, pods=1) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        for name, rate, change, error in guard_throughput.measure(made, turns):
            words = (
                f"{name}: {change * 100:+.2f} % with the standby (standard error {error * 100:.2f} %; {rate:,.0f}/s)"
            )
            require(change >= -0.02 and error <= guard_throughput.TELLING, words)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = ["restarts", "differential", "heal", "cost", "throughput", "all"]
    parser.add_argument("what", nargs="?", default="all", choices=choices)
    parser.add_argument("--connections", type=int, default=300_000)
    parser.add_argument("--rate", type=int, default=1500)
    parser.add_argument("--cases", type=int, default=2100)
    parser.add_argument("--packet-cases", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--turns", type=int, default=400)
    options = parser.parse_args()
    print(f"{platform.platform()}, {len(os.sched_getaffinity(0))} cores, python {platform.python_version()}, {CLI[0]}")
    chosen = choices[:-1] if options.what == "all" else [options.what]
    if "differential" in chosen:
        differential(options.cases, options.packet_cases)
    if "heal" in chosen:
        guard_heal.heal(1000, 10_000)
    if "cost" in chosen:
        guard_cost.cost(5000, 100_000, options.seconds)
    if "throughput" in chosen:
        throughput(options.turns)
    if "restarts" in chosen:
        restarts(options.connections, options.rate)
    print(json.dumps({"missed": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
