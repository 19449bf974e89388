"""What restarts cost between pods of different nodes: our agent, and a real flanneld beside it.

    python bench/pod_to_pod.py [drills] [writes] [devices] [speed] [--flanneld PATH] [--ready-http URL]
                               [--connections 100000] [--rate 1000] [--nodes 2] [--overlay vxlan] [--family ipv4]

Without a name, everything. All in lab namespaces; root is needed, and etcd for what a flanneld takes part in. Without
--flanneld its rows are left out, which is said. Prints the machine, the figures and what was asked; ends with 1 where
one was missed.

drills   each node's agent in turn, all at once, by SIGKILL; flanneld replaced by ours and back, node by node: lost of
         so many --connections from pod to pod, and as many to the outside
writes   events of links, addresses, routes, neighbours and rules in every node at restarts where nothing changed, and
         where one agent takes over from the other
devices  what the two agents make: attributes of devices, routes, neighbours and forwarding entries side by side
speed    throughput and latency between pods over the devices of each, measured in turn
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts.agent_lab import HITLESS, Changes
from bench.parts.pod_speed import interleaved

from hitless import lab
from hitless.kernel import processes
from hitless.kernel.clock import Clock
from hitless.lab.agents import Agent, Readiness, named, of_command
from hitless.lab.clusters import LabNode
from hitless.lab.plans import LabPlan, LeaseStore
from hitless.lab.supervisor import How, Method, Supervisor

failures: list[str] = []
_FLAGS = "-etcd-endpoints={etcd} -iface={iface} -ip-masq -healthz-ip=127.0.0.1 -healthz-port=10248"
_SETTLED = 2.0  # seconds after ready: flanneld is ready before its peers are programmed
_PER_ROUND = 1.3  # seconds of a node's restart and the calm after it, roughly: how many rounds make so many connections


def require(holds: bool, words: str) -> None:
    """Print a bound and whether it was met."""
    print(f"    {'ok    ' if holds else 'MISSED'} {words}", flush=True)
    if not holds:
        failures.append(words)


def drill(
    title: str, asked: argparse.Namespace, agent: Sequence[str], *more: str, ours: bool = True, between: bool = False
) -> None:
    """One drill with its figures; ``ours``: nothing may be lost; ``between``: nothing from pod to pod."""
    if asked.row not in title:
        return
    at_once = int(more[more.index("--at-once") + 1]) if "--at-once" in more else 1
    seconds = asked.connections / (asked.rate / 2)
    rounds = max(2, round(seconds / (_PER_ROUND * -(-asked.nodes // at_once))))
    rounds += rounds % 2  # after an even number a replaced agent is back
    with tempfile.TemporaryDirectory(prefix="bench-pods-") as folder:
        line = [
            *HITLESS, "drill", "--nodes", str(asked.nodes), "--overlay", asked.overlay, "--family", asked.family,
            "--rate", str(asked.rate), "--rounds", str(rounds), *agent, *more, "--json", "--quiet", "--out",
            f"{folder}/out",
        ]  # fmt: skip
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode == 3:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout)["agents"][-1]  # with --guard: the row with it
    pods = found["pod_to_pod"]
    print(
        f"  {title}: {found['restarts']} restarts; lost {pods['lost']:,} of {pods['attempted']:,} from pod to pod, "
        f"{found['lost']:,} of {found['attempted']:,} to the outside; {found['rule_changes']} rule changes; ready "
        f"again after at most {found['time_to_ready_ms']:.0f} ms; prober late by {found['prober_lag_ms']:.0f} ms; "
        f"{found['verdict']}"
    )
    if found["verdict"] == "inconclusive":
        print(f"    could not tell: {'; '.join(found['reasons'])}")
    if between:
        taken = [one for one in found["per_round"] if one["round"] % 2]
        lost = sum(one["lost"] for one in taken)
        require(pods["lost"] == 0, f"{title}: nothing lost from pod to pod")
        require(lost == 0, f"{title}: nothing lost to the outside while hitless took over ({len(taken)} times)")
    if ours:
        least = min(pods["attempted"], found["attempted"])
        require(pods["lost"] == 0 and found["lost"] == 0, f"{title}: nothing lost, pod to pod and to the outside")
        require(least >= asked.connections, f"{title}: {asked.connections:,} connections of each kind")


def drills(asked: argparse.Namespace) -> None:
    """Every way of restarting, under traffic."""
    ours = ("--agents", "hitless")
    drill("hitless, each node in turn", asked, ours)
    drill("hitless, all at once", asked, ours, "--at-once", str(asked.nodes))
    drill("hitless, all at once by SIGKILL", asked, ours, "--at-once", str(asked.nodes), "--restart", "sigkill")
    if asked.flanneld:
        real = ("--agent-command", f"{asked.flanneld} {_FLAGS}", "--ready-http", asked.ready_http)
        drill("flanneld, each node in turn", asked, real, ours=False)
        drill("flanneld, all at once", asked, real, "--at-once", str(asked.nodes), ours=False)
        # in even rounds flanneld comes back, and its own start costs egress whoever ran before it
        drill("flanneld replaced by hitless and back", asked, real, "--restart", "replace", between=True, ours=False)
        drill("the same, with a guard on each node", asked, real, "--restart", "replace", "--guard")


def _flanneld(asked: argparse.Namespace) -> Agent:
    return of_command(f"{asked.flanneld} {_FLAGS}", Readiness.parse(asked.ready_http))


def _plan(asked: argparse.Namespace, *, etcd: bool) -> LabPlan:
    leases = LeaseStore.ETCD if etcd else LeaseStore.DIRECTORY
    return LabPlan(nodes=asked.nodes, family=asked.family, overlay=asked.overlay, leases=leases)


@contextlib.asynccontextmanager
async def cluster(plan: LabPlan, agent: Agent) -> AsyncIterator[tuple[lab.Lab, list[Supervisor]]]:
    """A lab with the agent ready on every node, and its peers programmed."""
    async with lab.up_async(plan) as built, contextlib.AsyncExitStack() as stack:
        found = [
            await stack.enter_async_context(Supervisor(node, agent, plan, emit=lambda _event: None, clock=Clock()))
            for node in built.nodes
        ]
        for ready, each in zip(await asyncio.gather(*(one.start() for one in found)), found, strict=True):
            if not ready:
                raise SystemExit(f"{agent.name} on {each.node.name}: {each.last_lines[-1:]}")
        await asyncio.sleep(_SETTLED)
        yield built, found


async def _changed(built: lab.Lab, act: Callable[[], Any]) -> dict[str, int]:
    """What the kernels of all nodes said of changes meanwhile."""
    seen = [Changes(node.namespace) for node in built.nodes]
    await act()
    await asyncio.sleep(_SETTLED)
    ends = [one.end()[0] for one in seen]
    return {name: sum(end[name] for end in ends) for name in ends[0]}


async def _writes(asked: argparse.Namespace) -> None:
    async def restart(found: Sequence[Supervisor], method: Method, then: Agent | None = None) -> None:
        await asyncio.gather(*(one.restart(How(method), then=then) for one in found))

    ours = named("hitless")
    for etcd in (False, True) if asked.flanneld else (False,):
        async with cluster(_plan(asked, etcd=etcd), ours) as (built, found):
            for method in (Method.SIGTERM, Method.SIGKILL):
                changed = await _changed(built, lambda method=method, found=found: restart(found, method))  # type: ignore[misc]
                where = "etcd" if etcd else "a directory"
                print(f"  hitless, all restarted by {method}, leases in {where}: {changed}")
                require(not any(changed.values()), f"{method}, leases in {where}: 0 changes in {asked.nodes} nodes")
    if not asked.flanneld:
        print("  flanneld: left out (--flanneld PATH)")
        return
    real = _flanneld(asked)
    async with cluster(_plan(asked, etcd=True), real) as (built, found):
        changed = await _changed(built, lambda: restart(found, Method.SIGTERM))
        print(f"  flanneld, all restarted by SIGTERM: {changed}")
        for then in (ours, real, ours):
            changed = await _changed(built, lambda then=then: restart(found, Method.REPLACE, then))  # type: ignore[misc]
            print(f"  {then.name} in the other's place, all at once: {changed}")
            if then is ours:
                kinds = [count for name, count in changed.items() if name.startswith("links")]
                require(not any(kinds), "hitless takes over without a change of links, routes or neighbours")


def _made(node: LabNode) -> dict[str, list[str]]:
    """Devices, routes and neighbours of the overlay, without what differs from start to start."""

    def ask(*command: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(processes.run(command, namespace=node.namespace).stdout or "[]")
        return listed

    devices = [one for one in ask("ip", "-j", "-d", "link", "show") if one["ifname"].startswith("flannel")]
    # not the length of the queue, which is 0 with flanneld: a device without a queue (noqueue) has no use for it
    kept = ("ifname", "mtu", "qdisc", "operstate", "num_tx_queues", "gso_max_size", "gro_max_size")
    links = [json.dumps({name: one.get(name) for name in kept} | one["linkinfo"], sort_keys=True) for one in devices]
    found = {"links": sorted(links)}
    for name, command in (("routes", ("ip", "-j", "route")), ("routes6", ("ip", "-j", "-6", "route"))):
        found[name] = sorted(
            json.dumps(one, sort_keys=True) for one in ask(*command) if "flannel" in one.get("dev", "")
        )
    entries = [one for one in ask("ip", "-j", "neigh") if "flannel" in one.get("dev", "")]
    found["neighbours"] = sorted(f"{one['dst']} {one['state']}" for one in entries if "PERMANENT" in one["state"])
    forwarding = [one for one in ask("bridge", "-j", "fdb") if "flannel" in one.get("ifname", "")]
    found["forwarding"] = sorted(f"{one.get('dst')} {one.get('flags')} {one.get('state')}" for one in forwarding)
    return found


async def _devices(asked: argparse.Namespace) -> None:
    made = {}
    for agent, etcd in ((named("hitless"), False), (_flanneld(asked), True)):
        async with cluster(_plan(asked, etcd=etcd), agent) as (built, _):
            made[agent.name] = _made(built.nodes[0])
    (ours, theirs) = made.values()
    for kind in ours:
        same = ours[kind] == theirs[kind]
        require(same, f"{kind}: the same as flanneld's ({len(ours[kind])})")
        if not same:
            print(f"      hitless:  {ours[kind]}\n      flanneld: {theirs[kind]}")


async def _speed(asked: argparse.Namespace) -> None:
    async with (
        cluster(_plan(asked, etcd=False), named("hitless")) as (ours, _),
        cluster(_plan(asked, etcd=True), _flanneld(asked)) as (theirs, _),
    ):
        labs = {"hitless": ours, "flanneld": theirs}
        found = await asyncio.to_thread(interleaved, labs, asked.pairs)
    for what, unit in (("throughput", "Gbit/s"), ("latency", "us")):
        middle = {name: statistics.median(values[what] for values in found[name]) for name in labs}
        # each against its neighbour in time: the machine's other work falls on both
        pairs = zip(found["hitless"], found["flanneld"], strict=True)
        ratio = statistics.median(one[what] / other[what] for one, other in pairs)
        told = ", ".join(f"{name} {value:.2f} {unit}" for name, value in middle.items())
        print(f"  {what}: {told}; hitless / flanneld, median of {asked.pairs} pairs: {ratio:.4f}")
        require(abs(ratio - 1) <= 0.02, f"{what} within 2 % of flanneld's: seen {100 * (ratio - 1):+.2f} %")


def main() -> int:
    """Run the parts; 1 where a bound was missed."""
    parts: dict[str, Callable[[argparse.Namespace], Any]] = {
        "drills": drills,
        "writes": lambda asked: asyncio.run(_writes(asked)),
        "devices": lambda asked: asyncio.run(_devices(asked)),
        "speed": lambda asked: asyncio.run(_speed(asked)),
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(parts))
    parser.add_argument("--flanneld", default="", metavar="PATH", help="the real program")
    parser.add_argument("--ready-http", default="http://127.0.0.1:10248/readyz", help="of flanneld 0.27: …/healthz")
    parser.add_argument("--row", default="", metavar="TEXT", help="only drills with these words in their title")
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--overlay", default="vxlan")
    parser.add_argument("--family", default="ipv4")
    parser.add_argument("--pairs", type=int, default=20, help="of measurements of speed")
    asked = parser.parse_args()
    for name in asked.parts:
        if name not in parts:
            parser.error(f"{name!r} is not a part: {', '.join(parts)}")
    load = os.getloadavg()[0]
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, load {load:.1f}; {asked.overlay}, {asked.family}")
    for name in asked.parts or parts:
        if name in ("devices", "speed") and not asked.flanneld:
            print(f"{name}: left out (--flanneld PATH)")
            continue
        print(f"{name}:", flush=True)
        parts[name](asked)
    print(f"load at the end {os.getloadavg()[0]:.1f}; {len(failures)} missed")
    return 1 if failures else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
