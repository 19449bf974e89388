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
import select
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import guard_throughput
from tests.kernel.guard import test_packets_differential
from tests.kernel.guard.guarded import CLI, HANG, World, world
from tests.kernel.semantics.wires import wires
from tests.unit.guard import test_differential

from hitless.kernel import namespaces, processes
from hitless.kernel.conntrack import Conntrack, Entry
from hitless.model.families import Backend, Family

AGENTS = [
    *((backend, name) for name in ("flannel-0.26", "flannel-0.28") for backend in Backend),
    (Backend.NFT, "flannel-0.28-canal"),
    (Backend.LEGACY, "flannel-0.28-canal"),
]
failures: list[str] = []


def require(holds: bool, words: str) -> None:
    """Print a bound and whether it was met."""
    print(f"  {'ok  ' if holds else 'MISS'} {words}", flush=True)
    if not holds:
        failures.append(words)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-guard-") as name:
        yield Path(name)


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
            with made.probing(rate) as told:
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


# --- healing


def heal(flows: int, healthy: int) -> None:
    print(f"heal: {flows} poisoned flows of each kind, {healthy} healthy ones; the agent's rules come back")
    for family in Family:
        with poisoned_node(family, healthy) as made:
            bad = [made.udp(family) for _ in range(flows)]
            for sender in bad:
                sender.send(b"x")
                sender.setblocking(False)
            kept = untouched(made, family, bad)
            back = restored(made, family)
            times = answers(bad)
            words = f"{family.value}: {len(times)} of {flows} datagram flows work again"
            require(len(times) == flows, words)
            late = (max(times, default=0) - back(made)) / 1e6
            require(late <= 200, f"{family.value}: the last {late:.0f} ms after the agent's rules were back")
            touched = len(kept - entries(made, family).keys())
            require(touched == 0, f"{family.value}: {touched} of {len(kept)} healthy or foreign entries touched")
            for sender in bad:
                sender.close()
    with poisoned_node(Family.IPV4, 10) as made:
        connections(made, flows // 5)


def connections(made: World, number: int) -> None:
    """TCP connects that were begun in the gap: each gets through with its next SYN."""
    target = (str(made.cluster.far_end.address), 9)
    tries: list[tuple[socket.socket, float]] = []
    for _ in range(number):
        sender = namespaces.inside(made.pod.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sender.setblocking(False)
        with suppress(BlockingIOError):
            sender.connect(target)
        tries.append((sender, time.time()))
    restored(made, Family.IPV4)
    waiting = select.epoll()
    begun = {sender.fileno(): at for sender, at in tries}
    for number_ in begun:
        waiting.register(number_, select.EPOLLOUT)
    took: dict[int, float] = {}
    deadline = time.monotonic() + 8
    while len(took) < number and time.monotonic() < deadline:
        for number_, event in waiting.poll(0.5):
            waiting.unregister(number_)
            took[number_] = time.time() - begun[number_] if not event & select.EPOLLERR else 99.0
    waiting.close()
    # Linux repeats a SYN after one second; rules were back well before
    require(
        len(took) == number and max(took.values()) < 1.5,
        f"{len(took)} of {number} TCP connects begun in the gap got through, the last {max(took.values()):.2f} s after "
        "its first SYN (the second SYN goes out after 1 s)",
    )
    for sender, _ in tries:
        sender.close()


@contextmanager
def poisoned_node(family: Family, healthy: int) -> Iterator[World]:
    """A node with healthy flows and others that look like poisoned ones, in a gap, with a guard that came too late."""
    with folder() as there, world(there, pods=1, family="dual") as made:
        made.agent("flannel-0.28", "--resync", "3600")
        program = f"{family.iptables}-nft"
        saved = made.on_node(f"{program}-save", "-t", "nat").splitlines()
        lines = ["*nat", *(line for line in saved if line.startswith("-A FLANNEL-POSTRTG")), "COMMIT", ""]
        (there / "rules").write_text("\n".join(lines))
        far = processes.start(
            [sys.executable, "-c", _ECHO, str(made.cluster.far_end.addresses[family][0])],
            namespace=made.cluster.far_end.namespace,
            stdout=processes.PIPE,
        )
        made.started.append(far)
        assert far.stdout is not None
        assert far.stdout.readline() == b"up\n"
        good = [made.udp(family) for _ in range(healthy)]
        for sender in good:  # one at a time: a burst would be dropped on its way
            sender.settimeout(HANG)
            sender.send(b"x")
            sender.recv(16)
        made.on_node(program, "-t", "nat", "-F", "FLANNEL-POSTRTG")
        # never answered, not translated, and right so: to a pod that is not there, and to the node itself
        alike = [made.udp(family, connect=False) for _ in range(200)]
        pods = made.cluster.plan.network(family)
        for sender in alike:
            for target in (pods[0x777], made.node.addresses[family]):
                with suppress(OSError):
                    sender.sendto(b"x", (str(target), 9))
        made.guard()
        yield made
        for sender in (*good, *alike):
            sender.close()


def entries(made: World, family: Family) -> dict[bytes, Entry]:
    table = Conntrack(made.node.namespace)
    try:
        return {entry.key: entry for entry in table.dump(family)}
    finally:
        table.close()


def untouched(made: World, family: Family, bad: list[socket.socket]) -> set[bytes]:
    """Every entry of a pod but those of the poisoned flows."""
    ports = {sender.getsockname()[1] for sender in bad}
    pods = made.cluster.plan.network(family)
    return {
        key
        for key, entry in entries(made, family).items()
        if entry.original.src in pods and not (entry.original.sport in ports and entry.reply.dst == entry.original.src)
    }


def restored(made: World, family: Family) -> Callable[[World], int]:
    """Put the agent's rules back; returns a question for the moment at which the kernel had them (Unix ns)."""
    made.on_node(f"{family.iptables}-nft-restore", "--noflush", str(made.folder / "rules"))
    return lambda made: int(
        next(each["t"] for each in made.records("followed") if each["family"] == family.value and each.get("writer"))
    )


def answers(bad: list[socket.socket]) -> list[int]:
    """Knock on each flow every few milliseconds until it is answered; when each was (Unix ns)."""
    waiting = select.epoll()
    open_ = {sender.fileno(): sender for sender in bad}
    for number in open_:
        waiting.register(number, select.EPOLLIN)
    times: list[int] = []
    deadline = time.monotonic() + 5
    while open_ and time.monotonic() < deadline:
        for sender in list(open_.values()):
            with suppress(OSError):
                sender.send(b"again")
        for number, _ in waiting.poll(0.005, len(bad)):
            times.append(time.time_ns())
            waiting.unregister(number)
            del open_[number]
    waiting.close()
    return times


_ECHO = """
import socket, sys, threading
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
d = socket.socket(family, socket.SOCK_DGRAM)
d.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
d.bind((sys.argv[1], 9))
s = socket.create_server((sys.argv[1], 9), family=family, backlog=4096)
def accept():
    kept = []
    while True: kept.append(s.accept())
threading.Thread(target=accept, daemon=True).start()
print("up", flush=True)
while True:
    data, back = d.recvfrom(64)
    try: d.sendto(data, back)
    except OSError: pass
"""


# --- cost


def cost(services: int, entries: int, seconds: float) -> None:
    """Idle: the agent resyncs as it does (every 5 s), nothing changes."""
    from hitless import lab

    for backend in (Backend.NFT, Backend.LEGACY):
        print(f"cost: {services} Services, {entries} connections, iptables-{backend}, IPv4 and IPv6", flush=True)
        plan = lab.Plan(nodes=1, pods_per_node=1, services=services, family="dual", backend=backend)
        with folder() as there, lab.up(plan) as cluster:
            made = World(cluster, there)
            try:
                made.agent("flannel-0.28")
                _fill(made, entries)
                guard = made.guard()
                for family in Family:
                    made.until_state("standing by", family)
                time.sleep(5)
                before = _cpu(guard.pid)
                time.sleep(seconds)
                share = (_cpu(guard.pid) - before) / seconds
                status = Path(f"/proc/{guard.pid}/status").read_text()
                rss, peak = (
                    int(next(line.split()[1] for line in status.splitlines() if line.startswith(key))) / 1024
                    for key in ("VmRSS", "VmHWM")
                )
                require(share <= 0.01, f"idle CPU {share * 100:.2f} % of a core over {seconds:.0f} s")
                require(rss <= 60, f"resident memory {rss:.0f} MB (peak, at the start, {peak:.0f} MB)")
            finally:
                made.close()


def _cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _fill(made: World, entries: int) -> None:
    """Connections by datagrams from the pod to many ports of the far end (it answers none: they stay for 30 s and
    more, since the time-out is raised)."""
    script = "sysctl -q -w net.netfilter.nf_conntrack_max=400000 net.netfilter.nf_conntrack_udp_timeout=600"
    made.on_node("sh", "-c", script, check=False)
    targets = [str(address) for address in made.cluster.far_end.addresses[Family.IPV4]]
    senders = []
    for _ in range(max(1, entries // 50_000)):
        sender = namespaces.inside(made.pod.namespace, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        senders.append(sender)
    sent = 0
    for target in targets:
        for port in range(1024, 65000):
            for sender in senders:
                sender.sendto(b"x", (target, port))
                sent += 1
                if sent >= entries:
                    break
            if sent >= entries:
                break
        if sent >= entries:
            break
    for sender in senders:
        sender.close()
    count = made.on_node("cat", "/proc/sys/net/netfilter/nf_conntrack_count").strip()
    print(f"  {count} connections in the table")


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
        heal(1000, 10_000)
    if "cost" in chosen:
        cost(5000, 100_000, options.seconds)
    if "throughput" in chosen:
        throughput(options.turns)
    if "restarts" in chosen:
        restarts(options.connections, options.rate)
    print(json.dumps({"missed": failures}))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
