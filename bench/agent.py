"""What the agent reaches: restarts, transitions, start, repair, and side by side with flannel's stand-ins.

    python bench/agent.py [restarts] [transitions] [start] [repair] [compare] [--restarts 1000] [--backend nft …]

Without a name, everything. All in lab namespaces; root is needed. Figures are printed with the machine's load, because
they depend on it; nothing is asserted. ``restarts`` counts, besides lost connections, every nf_tables generation,
legacy table change, link, route, rule and permanent-neighbour event in the node during the restarts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.contract import start_states

from hitless.kernel import iptables, netlink, processes
from hitless.kernel.namespaces import Namespace
from hitless.kernel.nftables import dump
from hitless.kernel.nftables.mirror import Mirror
from hitless.kernel.xtables.polling import Poller
from hitless.lab import building
from hitless.lab.agents import environment, named
from hitless.lab.building import Lab
from hitless.lab.plans import Plan
from hitless.lab.saboteurs import FAULTS, Target
from hitless.model.families import Backend, Family
from hitless.semantics import evaluate, witnesses
from hitless.sources import FamilyNetworks

HITLESS = (sys.executable, "-P", "-m", "hitless")
_LINK, _NEIGH, _ROUTE4, _RULE4, _ROUTE6, _RULE6 = 1, 3, 7, 8, 11, 19  # RTNLGRP_*
_NEWNEIGH, _DELNEIGH, _PERMANENT = 28, 29, 0x80


class Agent:
    """The agent in a node, started and ready."""

    def __init__(self, lab: Lab, *more: str) -> None:
        node = lab.nodes[0]
        command = processes.command_in(node.namespace, [*named("hitless").command(lab.plan, node), *more])
        self.begun = time.monotonic()
        self.process = processes.start(command, stderr=subprocess.PIPE, environment=environment(lab.plan, node))
        self.changes = 0
        self.applied: list[float] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            said = json.loads(line)
            self.changes += said["event"] == "change"
            if said["event"] == "ready":
                break
        else:
            raise SystemExit("the agent did not become ready")
        self.ready_after = time.monotonic() - self.begun
        self._drain = threading.Thread(target=self._read, daemon=True)
        self._drain.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for _ in self.process.stderr:
            pass

    def rss(self) -> int:
        """Resident kilobytes."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, number: int) -> None:
        """Signal it, and wait."""
        self.process.send_signal(number)
        self.process.wait()
        self._drain.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Traffic:
    """A probe from the first pod to the far end, and its totals."""

    def __init__(self, lab: Lab, rate: int, families: Sequence[Family]) -> None:
        far, pod = lab.far_end, lab.pods[0]
        addresses = [str(far.addresses[family][0]) for family in families]
        bind = [word for address in addresses for word in ("--bind", address)]
        self._far = self._start(far.namespace, ["farend", "--json", *bind])
        to = [f"farend://[{address}]" if ":" in address else f"farend://{address}" for address in addresses]
        words = [word for url in to for word in ("--to", url)]
        kind = "dual" if len(families) > 1 else families[0].value
        self._probe = self._start(
            pod.namespace, ["probe", "--json", "--rate", str(rate), "--family", kind, "--mix", "tcp=1,udp=1", *words]
        )
        self.sent = self.lost = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @staticmethod
    def _start(namespace: Namespace, words: Sequence[str]) -> processes.Process:
        process = processes.start([*HITLESS, *words], namespace=namespace, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # its header: it is there
        return process

    def _read(self) -> None:
        assert self._probe.stdout is not None
        for line in self._probe.stdout:
            event = json.loads(line)
            if event["type"] == "attempts":
                self.sent += event["sent"]
                self.lost += event.get("lost", 0)

    def end(self) -> tuple[int, int]:
        """Stop; attempts and losses."""
        self._probe.terminate()
        self._probe.wait()
        self._thread.join()
        self._far.terminate()
        self._far.communicate()
        assert self._probe.stdout is not None
        self._probe.stdout.close()
        return self.sent, self.lost


class Changes:
    """Events of a node's links, routes, rules and permanent neighbours, and of its rules, while it is watched."""

    def __init__(self, namespace: Namespace) -> None:
        groups = (_LINK, _NEIGH, _ROUTE4, _RULE4, _ROUTE6, _RULE6)
        self._socket = netlink.Socket(netlink.ROUTE, namespace, groups=groups, receive_buffer=8 << 20, timeout=0)
        self._control = netlink.Socket(netlink.NETFILTER, namespace)
        self._generation = dump.generation(self._control)
        self._poller = Poller(namespace)
        self._poller.snapshot()
        self._legacy = 0
        self._open = True
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def _poll(self) -> None:
        while self._open:
            self._legacy += self._poller.wait(1.0) is not None

    def end(self) -> dict[str, int]:
        """What changed."""
        self._open = False
        self._poller.wake()
        self._thread.join()
        self._poller.close()
        routes = 0
        while (data := self._socket.receive(wait=False)) is not None:
            for event in netlink.messages(data):
                if event.type in (_NEWNEIGH, _DELNEIGH):
                    (state,) = struct.unpack_from("=H", event.payload, 8)
                    routes += bool(state & _PERMANENT)  # others age by themselves
                else:
                    routes += 1
        found = dump.generation(self._control) - self._generation
        self._socket.close()
        self._control.close()
        return {"nf_tables": found, "legacy": self._legacy, "links, routes, neighbours": routes}


def restarts(backend: Backend, count: int, rate: int) -> None:
    """Many restarts with an unchanged configuration, under traffic."""
    with building.up(Plan(family="dual", backend=backend)) as lab:
        Agent(lab).end(signal.SIGTERM)
        traffic = Traffic(lab, rate, tuple(Family))
        changes = Changes(lab.nodes[0].namespace)
        ready: list[float] = []
        writes = 0
        for number in range(count):
            agent = Agent(lab)
            ready.append(agent.ready_after)
            writes += agent.changes
            agent.end(signal.SIGKILL if number % 2 else signal.SIGTERM)
        seen = changes.end()
        sent, lost = traffic.end()
    print(
        f"  {backend.value:9} {count} restarts: {lost} lost of {sent:,}; kernel changes {seen}; planned {writes}; ",
        end="",
    )
    print(f"exec to ready {statistics.median(ready) * 1e3:.0f} ms (median), {max(ready) * 1e3:.0f} ms (worst)")


def transitions(backend: Backend, rate: int) -> None:
    """Every start state that carries traffic, adopted under traffic."""
    total = [0, 0]
    bad: list[str] = []
    with building.up(Plan(nodes=2, family="dual", backend=backend)) as lab:
        node = lab.nodes[0]
        replace_networks(lab)
        states = [state for state in start_states.STATES if state.carries and backend in state.backends]
        for state in states:
            reset(node.namespace)
            for family in Family:
                for where, text in state.texts(backend, family):
                    write(node.namespace, where, family, text)
            for family in Family:
                forget(node.namespace, family)
            traffic = Traffic(lab, rate, tuple(Family))
            time.sleep(1.0)
            Agent(lab).end(signal.SIGKILL)
            time.sleep(1.0)
            sent, lost = traffic.end()
            total[0] += sent
            total[1] += lost
            if lost:
                bad.append(f"{state.name}: {lost} of {sent}")
    print(f"  {backend.value:9} {len(states)} start states: {total[1]} lost of {total[0]:,} {'; '.join(bad)}")


def replace_networks(lab: Lab) -> None:
    """The start states speak of the networks of the lab's first node."""
    node = lab.nodes[0]
    for family in Family:
        networks = FamilyNetworks(lab.plan.network(family), node.subnets[family])
        start_states.NETWORKS[family] = networks


def reset(namespace: Namespace) -> None:
    """Our chains away, the rest of the node as it is."""
    from hitless.agent.node import Node
    from hitless.plan import cleanup

    with Node(namespace) as node:
        for transaction in cleanup(node.observe(tuple(Family))).transactions:
            node.apply(transaction)


def write(namespace: Namespace, backend: Backend, family: Family, text: str) -> None:
    """A text, by the real program."""
    if backend is Backend.NFTABLES:
        iptables.batch(text, namespace=namespace)
    else:
        iptables.restore(f"{family.iptables}-{backend.value}-restore", text, namespace=namespace)


def forget(namespace: Namespace, family: Family) -> None:
    """Empty the connection table, so that each state is tried by flows of its own."""
    from hitless.kernel.conntrack import Conntrack

    table = Conntrack(namespace)
    for entry in list(table.dump(family)):
        table.delete(family, entry)
    table.close()


def start(backend: Backend, services: int) -> None:
    """Exec to ready with nothing to do, memory, and processor time when idle."""
    with building.up(Plan(family="dual", backend=backend, services=services)) as lab:
        program = f"iptables-{lab.plan.rules_backend.value}-save"
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
        agent = Agent(lab)
        time.sleep(3.0)
        before = agent.cpu()
        time.sleep(20.0)
        idle = (agent.cpu() - before) / 20.0
        ready = f"{statistics.median(times) * 1e3:.0f} ms (worst {max(times) * 1e3:.0f}"
        spent = f"processor time {statistics.median(used) * 1e3:.0f} ms)"
        memory = f"RSS {agent.rss() / 1024:.0f} MB, idle {idle * 100:.2f} % of a core"
        print(f"  {backend.value:9} {rules:,} rules in each nat table: exec to ready {ready}; {spent}, {memory}")
        agent.end(signal.SIGTERM)


def repair(backend: Backend, count: int) -> None:
    """From the commit that damages to the commit that repairs, by the kernel's own events."""
    with building.up(Plan(backend=backend)) as lab:
        node = lab.nodes[0]
        subnet, network = node.subnets[Family.IPV4], lab.plan.network(Family.IPV4)
        packet = witnesses(network, subnet, iif=lab.pods[0].interface, oif=node.uplink)[0]
        target = Target.of(lab.cluster, node)
        agent = Agent(lab)
        gaps: list[float] = []
        names = ("flush-chain", "delete-jump", "accept-in-front", "flush-ruleset")
        with Mirror(node.namespace, (Family.IPV4,)) as mirror:
            for number in range(count):
                FAULTS[names[number % len(names)]](target).act()
                gaps.append(gap(mirror, lambda rules: evaluate(rules, packet).state == "carried"))
                while mirror.next(1.1) is not None:  # no faster than a fight is noticed
                    pass
        agent.end(signal.SIGTERM)
    gaps.sort()
    print(
        f"  {backend.value:9} {count} damages: repaired after {gaps[len(gaps) // 2]:.1f} ms (p50), "
        f"{gaps[int(len(gaps) * 0.99)]:.1f} ms (p99), {gaps[-1]:.1f} ms (worst)"
    )


def gap(mirror: Mirror, carried: Callable[..., bool]) -> float:
    """Milliseconds from the first update without egress to the next one with it."""
    began = 0
    while (update := mirror.next(10.0)) is not None:
        if not carried(update.ruleset):
            began = began or update.t
        elif began:
            return (update.t - began) / 1e6
    raise SystemExit("the damage was not repaired")


def compare(rounds: int, rate: int) -> None:
    """flannel's stand-ins and the agent, in one table; commands run in a restart are counted by wrappers."""
    agents = ("flannel-0.26", "flannel-0.28", "hitless")
    command = [*HITLESS, "drill", "--agents", ",".join(agents), "--rounds", str(rounds), "--rate", str(rate), "--json"]
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    result = json.loads(done.stdout)
    extra = {name: measure(name) for name in agents}
    head = ("agent", "restarts", "lost", "of", "poisoned", "gaps", "gap ms", "ready ms", "RSS MB", "commands")
    print("  " + " ".join(f"{word:>12}" for word in head))
    for row in result["agents"]:
        name = row["agent"]
        ready, rss, commands = extra[name]
        cells = [name, rounds, row["lost"], row["attempted"], row["poisoned"], row["gaps"]]
        cells += [f"{row['gap_ms']:.1f}", f"{ready:.0f}", f"{rss:.0f}", commands]
        print("  " + " ".join(f"{cell!s:>12}" for cell in cells))
    print("  (the stand-ins replay flannel's commands; their RSS is the stand-in's, not flanneld's)")


def measure(name: str) -> tuple[float, float, int]:
    """Start to ready in ms, resident MB, and programs run, of a restart with unchanged configuration."""
    with building.up(Plan()) as lab, counted() as (folder, count):
        node = lab.nodes[0]
        agent = named(name)
        told = {**environment(lab.plan, node), "PATH": f"{folder}:{os.environ['PATH']}"}
        for attempt in range(2):
            before = count()
            ready = node.root / agent.readiness.what.lstrip("/") if agent.readiness.kind == "file" else None
            if ready is not None:
                ready.unlink(missing_ok=True)
            begun = time.monotonic()
            process = processes.start(
                processes.command_in(node.namespace, agent.command(lab.plan, node)), environment=told
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
    from hitless.kernel.namespaces import inside

    def ask() -> bool:
        import urllib.request

        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    return inside(namespace, ask)


@contextlib.contextmanager
def counted() -> Iterator[tuple[str, Callable[[], int]]]:
    """A folder of wrappers for the programs that write rules; each run adds a line to a file."""
    import shutil
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        for stem in ("iptables", "ip6tables"):
            for kind in ("nft", "legacy"):
                for tail in ("", "-restore", "-save"):
                    wrap(folder, f"{stem}-{kind}{tail}", shutil.which(f"{stem}-{kind}{tail}", path="/usr/sbin:/sbin"))
        wrap(folder, "nft", shutil.which("nft", path="/usr/sbin:/sbin"))
        log = Path(folder, "log")
        yield folder, lambda: len(log.read_text().splitlines()) if log.exists() else 0


def wrap(folder: str, name: str, program: str | None) -> None:
    """One wrapper."""
    path = Path(folder, name)
    path.write_text(f'#!/bin/sh\necho {name} >> {folder}/log\nexec {program} "$@"\n')
    path.chmod(0o755)


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="restarts, transitions, start, repair, compare")
    parser.add_argument("--backend", action="append", choices=[str(one) for one in Backend])
    parser.add_argument("--restarts", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--damages", type=int, default=100)
    parser.add_argument("--services", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    backends = [Backend(one) for one in options.backend or [str(one) for one in Backend]]
    wanted = options.what or ["restarts", "transitions", "start", "repair", "compare"]
    print(f"{platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    for what in wanted:
        print(what)
        for backend in backends if what != "compare" else []:
            match what:
                case "restarts":
                    restarts(backend, options.restarts, options.rate)
                case "transitions":
                    transitions(backend, options.rate)
                case "start":
                    start(backend, options.services)
                case "repair" if backend is not Backend.LEGACY:
                    repair(backend, options.damages)
        if what == "compare":
            compare(options.rounds, options.rate)


if __name__ == "__main__":
    main()
