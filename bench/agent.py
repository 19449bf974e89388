"""Measures the agent: restarts, transitions, start, repair, healing, and a comparison with flannel's stand-ins.

    python bench/agent.py [restarts] [transitions] [start] [repair] [reload] [heal] [compare] [--restarts 1000]
                          [--backend nft …]
    python bench/agent.py --beside COMMIT [--backend nft …] [--rounds 10]

Without a name, all parts; each for iptables-nft, iptables-legacy and native nftables, in both families. All in lab
namespaces; root is needed. Prints the machine, the figures and the required bounds; ends with 1 where one was missed
(figures in milliseconds depend on the machine's load, which is printed too).

restarts     with an unchanged configuration, SIGTERM and SIGKILL, under traffic; the kernel's events are counted
transitions  every start state of tests/contract, adopted under traffic; transactions by table from the kernel's events
start        exec to ready with nothing to do and 30,000 rules; damage repaired right behind that; memory; processor
             time when idle
repair       from the commit that damages to the commit that repairs, as ``hitless watch`` saw them
reload       a firewall's reload by single commands: whether they succeed, gaps, connections lost
heal         flows bound in a gap: when they work again, and whether any other connection was touched
compare      one table with flannel's stand-ins
--beside     another commit's agent and this one in turns, on iptables-nft and -legacy (about four minutes each):
             start, idle processor time, repair, memory; missed where this one is worse beyond chance
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts import agent_beside, agent_heal, agent_reload
from bench.parts.agent_lab import (
    HITLESS,
    Agent,
    Changes,
    Saved,
    Traffic,
    counted,
    farend,
    forget,
    installed,
    watch,
    write,
)
from tests.contract import start_states

from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace, inside
from hitless.lab import building
from hitless.lab.agents import environment, named
from hitless.lab.building import Lab
from hitless.lab.plans import LabPlan
from hitless.lab.saboteurs import FAULTS, SabotageTarget, opens_a_gap
from hitless.model.families import Backend, Family
from hitless.sources import FamilyNetworks

failures: list[str] = []
# without firewalld-reload, which may open no gap at all (see the part reload)
_DAMAGES = ("flush-chain", "delete-jump", "accept-in-front", "flush-nat", "flush-ruleset", "wrong-subnet")


def require(holds: bool, bound: str) -> None:
    """Print a bound and whether it was met."""
    print(f"    {'ok    ' if holds else 'MISSED'} {bound}", flush=True)
    if not holds:
        failures.append(bound)


def restarts(backend: Backend, count: int, rate: int) -> None:
    """Many restarts with an unchanged configuration, under traffic."""
    with building.up(LabPlan(family="dual", backend=backend)) as lab:
        Agent(lab).end(signal.SIGTERM)
        far = farend(lab, tuple(Family))
        traffic = Traffic(lab, rate, tuple(Family))
        changes = Changes(lab.nodes[0].namespace)
        ready: list[float] = []
        writes = number = 0
        while number < count or traffic.sent < 1000 * count:
            agent = Agent(lab)
            ready.append(agent.ready_after)
            writes += agent.changes
            agent.end(signal.SIGKILL if number % 2 else signal.SIGTERM)
            number += 1
        seen, _ = changes.end()
        sent, lost = traffic.end()
        far.end()
    print(f"  {backend.value}: {number} restarts under {sent:,} new connections; kernel changes {seen}")
    print(f"    exec to ready {statistics.median(ready) * 1e3:.0f} ms (median), {max(ready) * 1e3:.0f} ms (worst)")
    require(not any(seen.values()) and not writes, f"{backend.value}: no change in the kernel's events")
    require(lost == 0, f"{backend.value}: {lost} lost of {sent:,} (asked: 0 of at least {1000 * count:,})")


def transitions(backend: Backend, family: Family, rate: int) -> None:
    """Every start state, adopted under traffic; where it does not carry, the traffic begins when the agent is ready."""
    states = [state for state in start_states.STATES if backend in state.backends]
    total = [0, 0, 0]
    print(f"  {backend.value} {family.value}: start state | carried before | transactions by table | lost")
    with building.up(LabPlan(nodes=2, family=family, backend=backend)) as lab:
        node = lab.nodes[0]
        start_states.NETWORKS[family] = FamilyNetworks(lab.plan.network(family), node.subnets[family])
        far, saved = farend(lab, (family,)), Saved(lab)
        for state in states:
            saved.restore()
            for written, text in state.texts(backend, family):
                write(node.namespace, written, family, text)
            forget(node.namespace, family)
            traffic = Traffic(lab, rate, (family,)) if state.carries else None
            time.sleep(0.7 if traffic is not None else 0.0)
            changes = Changes(node.namespace)
            agent = Agent(lab)
            if traffic is None:
                traffic = Traffic(lab, rate, (family,))
            time.sleep(0.7)
            _, tables = changes.end()
            agent.end(signal.SIGKILL)
            sent, lost = traffic.end()
            total = [total[0] + sent, total[1] + lost, max(total[2], *tables.values(), 0)]
            counts = ", ".join(f"{name} {number}" for name, number in sorted(tables.items())) or "none"
            carried = "yes" if state.carries else "no"
            print(f"    {state.name:46} | {carried:3} | {counts} | {lost} of {sent:,}", flush=True)
        far.end()
    where = f"{backend.value} {family.value}, {len(states)} start states"
    require(total[1] == 0, f"{where}: {total[1]} lost of {total[0]:,} at {rate:,}/s (asked: 0)")
    require(total[2] <= 1, f"{where}: at most {total[2]} transaction per table and step (asked: 1)")


def start(backend: Backend, services: int) -> None:
    """Exec to ready with nothing to do, memory, and processor time when idle."""
    with building.up(LabPlan(family="dual", backend=backend, services=services)) as lab:
        program = lab.plan.backend.tool(Family.IPV4, "-save")
        text = processes.run([program, "-t", "nat"], namespace=lab.nodes[0].namespace).stdout
        rules = sum(line.startswith("-A") for line in text.splitlines())
        Agent(lab).end(signal.SIGTERM)
        times: list[float] = []
        used: list[float] = []
        for _ in range(10):
            agent = Agent(lab)
            times.append(agent.ready_after)
            used.append(agent.cpu())
            agent.end(signal.SIGTERM)
        repaired = _while_reading(lab)
        agent = Agent(lab)
        time.sleep(3.0)
        before = agent.cpu()
        time.sleep(30.0)
        idle = (agent.cpu() - before) / 30.0 * 100
        rss = agent.rss() / 1024
        agent.end(signal.SIGTERM)
    ready, worst = statistics.median(times) * 1e3, max(times) * 1e3
    print(
        f"  {backend.value}: {rules:,} rules in each nat table; processor time {statistics.median(used) * 1e3:.0f} ms"
    )
    require(ready <= 500, f"{backend.value}: exec to ready {ready:.0f} ms, worst {worst:.0f} (asked: 500)")
    require(
        max(repaired, default=1e9) <= 100,
        f"{backend.value}: {len(repaired)} damages repaired right behind the start, while all rules are read: "
        f"median {statistics.median(repaired or [0]):.0f} ms, worst {max(repaired, default=0):.0f} (asked: 100)",
    )
    require(rss <= 60, f"{backend.value}: resident memory {rss:.0f} MB (asked: 60)")
    require(idle <= 0.5, f"{backend.value}: idle {idle:.2f} % of a core (asked: 0.5)")


def _while_reading(lab: Lab) -> list[float]:
    """From the event of a damage to its repair, by the agent's log, while it still reads the rules of all programs."""
    fault, found = FAULTS["flush-chain"](SabotageTarget.of(lab.cluster, lab.nodes[0])), list[float]()
    for _ in range(5):
        agent = Agent(lab)
        for number in range(1, 4):
            fault.act()
            end, repaired = time.monotonic() + 30.0, list[float]()
            while len(repaired) < number and time.monotonic() < end:
                time.sleep(0.01)
                repaired = [one["milliseconds"] for one in list(agent.log) if one["event"] == "repaired"]
        found += repaired
        agent.end(signal.SIGTERM)
        require(agent.process.returncode == 0, "ended by SIGTERM in the middle of that: exit code 0")
    return found


def repair(backend: Backend, count: int) -> None:
    """Gaps that damage opens, by their length."""
    names = [name for name in _DAMAGES if opens_a_gap(name, backend)]
    with building.up(LabPlan(family="dual", backend=backend)) as lab:
        target = SabotageTarget.of(lab.cluster, lab.nodes[0])
        agent = Agent(lab)
        watching = watch(lab, tuple(Family))
        spans: dict[str, list[float]] = {}
        for number in range(count):
            name = names[number % len(names)]
            known = len(watching.events)
            FAULTS[name](target).act()
            time.sleep(2.0)  # seldom enough for repairs without a fight's delay, and until a reload is over
            gaps = [event for event in watching.events[known:] if event["type"] == "gap"]
            spans.setdefault(name, []).extend((one["end"] - one["begin"]) / 1e6 for one in gaps)
        watching.end()
        fights = sum(one["event"] == "fight" for one in agent.log)
        agent.end(signal.SIGTERM)
    every = sorted(span for found in spans.values() for span in found)
    for name, found in spans.items():
        found.sort()
        print(f"    {name:18} {len(found):4} gaps: p50 {found[len(found) // 2]:.1f} ms, worst {found[-1]:.1f} ms")
    p99 = every[int(len(every) * 0.99)]
    print(
        f"  {backend.value}: {count} damages, {len(every)} gaps, {fights} fights reported; "
        f"p50 {every[len(every) // 2]:.1f} ms"
    )
    require(len(every) >= count, f"{backend.value}: every damage was seen to open a gap, and each was closed")
    require(p99 <= 50, f"{backend.value}: damage to repair p99 {p99:.1f} ms (asked: 50, for nft)")


def compare(rounds: int, rate: int) -> None:
    """flannel's stand-ins and the agent, in one table; commands run in a restart are counted by wrappers."""
    agents = ("flannel-0.26", "flannel-0.28", "hitless")
    command = [*HITLESS, "drill", "--agents", ",".join(agents), "--rounds", str(rounds), "--rate", str(rate), "--json"]
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    result = json.loads(done.stdout)
    extra = {name: measure(name) for name in agents}
    head = ("agent", "restarts", "lost", "of", "poisoned", "gaps", "gap ms", "ready ms", "RSS MB", "commands")
    print("  " + " ".join(f"{title:>12}" for title in head))
    for row in result["agents"]:
        name = row["agent"]
        ready, rss, commands = extra[name]
        cells = [name, rounds, row["lost"], row["attempted"], row["poisoned"], row["gaps"]]
        cells += [f"{row['gap_ms']:.1f}", f"{ready:.0f}", f"{rss:.0f}", commands]
        print("  " + " ".join(f"{cell!s:>12}" for cell in cells))
        if name == "hitless":
            require(row["lost"] == row["gaps"] == 0, "hitless: nothing lost, no gap")
    print("  (the stand-ins replay flannel's commands; their RSS is the stand-in's, not flanneld's)")


def measure(name: str) -> tuple[float, float, int]:
    """Start to ready in ms, resident MB, and programs run, of a restart with unchanged configuration."""
    with building.up(LabPlan()) as lab, counted() as (folder, count):
        node = lab.nodes[0]
        agent = named(name)
        variables = {**environment(lab.plan, node), "PATH": f"{folder}:{os.environ['PATH']}"}
        for attempt in range(2):
            before = count()
            ready = node.root / agent.readiness.what.lstrip("/") if agent.readiness.kind == "file" else None
            if ready is not None:
                ready.unlink(missing_ok=True)
            begun = time.monotonic()
            process = processes.start(
                processes.command_in(node.namespace, agent.command(lab.plan, node)), environment=variables
            )
            while not (ready.exists() if ready is not None else answers(node.namespace, agent.readiness.what)):
                time.sleep(0.005)
            took = (time.monotonic() - begun) * 1e3
            if attempt:
                time.sleep(0.3)
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                rss = int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
                commands = count() - before
            process.terminate()
            process.wait()
    return took, rss, commands


def answers(namespace: Namespace, url: str) -> bool:
    """Whether a readiness address answers 200."""

    def ask() -> bool:
        import urllib.request

        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    return inside(namespace, ask)


def parts(options: argparse.Namespace, backends: Sequence[Backend]) -> dict[str, Callable[[], None]]:
    """The parts by name."""

    def each(run: Callable[[Backend], None]) -> Callable[[], None]:
        def run_each() -> None:
            for backend in backends:
                run(backend)

        return run_each

    def both(backend: Backend) -> None:
        for family in Family:
            transitions(backend, family, options.rate)

    return {
        "restarts": each(lambda backend: restarts(backend, options.restarts, 3 * options.rate)),
        "transitions": each(both),
        "start": each(lambda backend: start(backend, options.services)),
        "repair": each(lambda backend: repair(backend, options.damages)),
        "reload": each(lambda backend: agent_reload.reloads(backend, options.reloads, options.rate, require)),
        "heal": each(lambda backend: agent_heal.heal(backend, options.rounds, require)),
        "compare": lambda: compare(options.rounds, options.rate),
    }


def main() -> int:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="restarts, transitions, start, repair, reload, heal, compare")
    parser.add_argument("--backend", action="append", choices=[str(one) for one in Backend])
    parser.add_argument("--beside", metavar="COMMIT", help="measure only this: that commit's agent beside this one's")
    parser.add_argument("--restarts", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--damages", type=int, default=100)
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--services", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    known = parts(options, [Backend(one) for one in options.backend or [str(one) for one in Backend]])
    unknown = set(options.what) - known.keys()
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    with installed():
        if options.beside:
            both = [Backend(one) for one in options.backend or ("nft", "legacy")]
            agent_beside.beside(options.beside, both, options.services, options.rounds, require)
        for name in options.what or ((), known)[not options.beside]:
            print(name, flush=True)
            known[name]()
    print(f"{len(failures)} missed" + "".join(f"\n  {bound}" for bound in failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
