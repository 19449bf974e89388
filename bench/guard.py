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
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.kernel.guard.guarded import CLI, World, until, world
from tests.unit.guard import test_differential

from hitless.guard.learning import Standby
from hitless.guard.standing import Standing, found_in
from hitless.kernel import namespaces, processes
from hitless.kernel.conntrack import SEEN_REPLY, SRC_NAT, Conntrack
from hitless.kernel.nftables import read_ruleset
from hitless.model.families import Backend, Family

AGENTS = [
    (Backend.NFT, "flannel-0.28"),
    (Backend.LEGACY, "flannel-0.28"),
    (Backend.NFT, "flannel-0.26"),
    (Backend.LEGACY, "flannel-0.26"),
    (Backend.NFT, "flannel-0.28-canal"),
    (Backend.NFTABLES, "flannel-0.26"),
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
    print(f"restarts: at least {connections} new connections with the guard, {rate} a second")
    total = {"guard": [0, 0, 0, 0], "bare": [0, 0, 0, 0]}
    share = connections // len(AGENTS) + 1
    for backend, name in AGENTS:
        for mode in ("guard", "bare"):
            sent = lost = leaked = restarted = 0
            while sent < (share if mode == "guard" else 1):
                away = 60.0 if name == "flannel-0.26" and mode == "guard" and not sent else 0.0
                with folder() as there, world(there, backend=backend, family="dual") as made:
                    first = made.agent(name)
                    if mode == "guard":
                        made.guard()
                        for family in Family:
                            made.until_state("standing by", family)
                    number = 18 if mode == "guard" else 6
                    with made.probing(rate) as told:
                        made.end(first)
                        rounds(made, name, number, away)
                    sent, lost, leaked = sent + told["sent"], lost + told["lost"], leaked + told["leaked"]
                    restarted += number
            print(f"  {backend:9} {name:19} {mode:5} {restarted:4} restarts {sent:8} sent {lost:6} lost", flush=True)
            for index, value in enumerate((restarted, sent, lost, leaked)):
                total[mode][index] += value
    number, sent, lost, leaked = total["guard"]
    require(sent >= connections and number >= 100, f"{sent} new connections over {number} restarts")
    require(lost == leaked == 0, f"{lost} lost, {leaked} leaked with the guard")
    require(total["bare"][2] > 0, f"{total['bare'][2]} of {total['bare'][1]} lost without it")


# --- differential


def differential(cases: int) -> None:
    print("differential")
    begin = time.monotonic()
    tally = test_differential.run(cases)
    print(f"  {dict(tally)} in {time.monotonic() - begin:.0f} s")
    require(tally["evaluations"] >= 100_000, f"{tally['evaluations']} evaluations, 0 differences")


# --- healing


def heal(flows: int, healthy: int) -> None:
    print(f"heal: {flows} poisoned flows, {healthy} healthy ones")
    with folder() as there, world(there, pods=1) as made, made.far_udp() as far:
        made.agent("flannel-0.28", "--resync", "3600")
        saved = made.on_node("iptables-nft-save", "-t", "nat").splitlines()
        back = ["*nat", *(line for line in saved if line.startswith("-A FLANNEL-POSTRTG")), "COMMIT", ""]
        (there / "rules").write_text("\n".join(back))
        stop = threading.Event()
        echo = threading.Thread(target=_echo, args=(far, stop))
        echo.start()
        try:
            good = [made.udp() for _ in range(healthy)]
            for sender in good:
                sender.send(b"x")
            until(lambda: len(_alive(made)) >= healthy, "the healthy flows being answered")
            made.on_node("iptables-nft", "-t", "nat", "-F", "FLANNEL-POSTRTG")
            bad = [made.udp() for _ in range(flows)]
            for sender in bad:
                sender.send(b"x")
                sender.setblocking(False)
            alive = _alive(made)
            # the agent's rules come back in the same moment as the guard is there to see it
            made.guard()
            made.on_node("iptables-nft-restore", "--noflush", str(there / "rules"))
            begin = time.monotonic()
            open_ = list(bad)
            while open_ and time.monotonic() - begin < 5:
                for sender in open_:
                    _knock(sender)
                time.sleep(0.01)
                open_ = [sender for sender in open_ if not _answered(sender)]
            took = time.monotonic() - begin
            touched = len(alive - _alive(made))
        finally:
            stop.set()
            echo.join()
        require(not open_, f"{flows - len(open_)} of {flows} flows work again")
        require(took <= 0.2, f"the last after {took * 1000:.0f} ms")
        require(touched == 0, f"{touched} of {len(alive)} healthy flows touched")
        for sender in (*good, *bad):
            sender.close()


def _echo(far: socket.socket, stop: threading.Event) -> None:
    far.settimeout(0.2)
    while not stop.is_set():
        try:
            data, back = far.recvfrom(64)
            far.sendto(data, back)
        except (TimeoutError, OSError):
            continue


def _knock(sender: socket.socket) -> None:
    try:
        sender.send(b"again")
    except OSError:
        return


def _answered(sender: socket.socket) -> bool:
    try:
        sender.recv(64)
    except OSError:
        return False
    return True


def _alive(made: World) -> set[bytes]:
    table = Conntrack(made.node.namespace)
    try:
        return {entry.key for entry in table.dump(Family.IPV4) if entry.status & (SEEN_REPLY | SRC_NAT)}
    finally:
        table.close()


# --- cost


def cost(services: int, entries: int, seconds: float) -> None:
    print(f"cost: {services} Services, {entries} connections")
    from hitless import lab

    with folder() as there:
        plan = lab.Plan(nodes=1, pods_per_node=1, services=services, family="dual")
        with lab.up(plan) as cluster:
            made = World(cluster, there)
            try:
                made.agent("flannel-0.28", "--resync", "3600")
                _fill(made, entries)
                guard = made.guard()
                for family in Family:
                    made.until_state("standing by", family)
                time.sleep(3)
                before = _cpu(guard.pid)
                time.sleep(seconds)
                share = (_cpu(guard.pid) - before) / seconds
                status = Path(f"/proc/{guard.pid}/status").read_text()
                rss, peak = (
                    int(next(line.split()[1] for line in status.splitlines() if line.startswith(key))) / 1024
                    for key in ("VmRSS", "VmHWM")
                )
                require(share <= 0.01, f"idle CPU {share * 100:.2f} % of a core over {seconds:.0f} s")
                require(rss <= 60, f"resident memory {rss:.0f} MB (peak {peak:.0f} MB)")
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
    print("throughput: turns with and without, side by side")
    with folder() as there, world(there, pods=1) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        guard = made.guard()
        made.until_state("standing by")
        guard.terminate()
        guard.wait()  # the standby stays: from here on it is taken out and put back without a process
        saved = read_ruleset(made.node.namespace, (Family.IPV4,))
        found = found_in(saved, Family.IPV4, "eth0")
        assert found is not None and found.standby is not None
        standing = Standing((Family.IPV4,), made.node.namespace)
        for name, client in (("throughput", _BULK), ("new connections", _CONNECTS)):
            ratios = _side_by_side(made, client, standing, found.standby, turns)
            middle = statistics.fmean(ratios)
            spread = statistics.stdev(ratios) / len(ratios) ** 0.5
            words = f"{name}: {(middle - 1) * 100:+.1f} % with the standby (standard error {spread * 100:.1f} %)"
            require(middle + 2 * spread >= 0.98, words)
        standing.close()


def _side_by_side(made: World, client: str, standing: Standing, standby: Standby, turns: int) -> list[float]:
    """One load that never stops, with the standby and its meter put in and taken out every half second."""
    address, port = str(made.cluster.far_end.address), str(5001)
    server = processes.start(
        [sys.executable, "-c", _SERVER, address, port],
        namespace=made.cluster.far_end.namespace,
        stdout=subprocess.PIPE,
    )
    assert server.stdout is not None
    server.stdout.readline()
    log = made.folder / "load"
    with log.open("wb") as file:
        load = processes.start([sys.executable, "-c", client, address, port], namespace=made.pod.namespace, stdout=file)
    spans: list[tuple[str, float, float]] = []
    try:
        time.sleep(2)
        for turn in range(2 * turns):
            mode = "with" if turn % 2 else "without"
            standing.install({Family.IPV4: standby if mode == "with" else None})
            begin = time.monotonic() + 0.05
            time.sleep(0.5)
            spans.append((mode, begin, time.monotonic()))
    finally:
        for process in (load, server):
            process.kill()
            process.wait()
        server.stdout.close()
    points = [tuple(map(float, line.split())) for line in log.read_text().splitlines() if line.count(" ") == 1]
    rates = [(mode, _rate(points, begin, end)) for mode, begin, end in spans]
    print(f"  {statistics.fmean(rate for _, rate in rates):.0f} a second on average", flush=True)
    # each turn against the mean of its two neighbours: a machine that gets slower or faster does not count
    return [
        (rates[i][1] / ((rates[i - 1][1] + rates[i + 1][1]) / 2)) ** (1 if rates[i][0] == "with" else -1)
        for i in range(1, len(rates) - 1)
    ]


def _rate(points: list[tuple[float, ...]], begin: float, end: float) -> float:
    inside = [(t, count) for t, count in points if begin <= t <= end]
    return (inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0])


_SERVER = """
import socket, sys, threading
s = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=4096)
print("up", flush=True)
def drain(c):
    b = bytearray(1 << 18)
    try:
        while c.recv_into(b): pass
    except OSError: pass
    c.close()
while True:
    c, _ = s.accept()
    threading.Thread(target=drain, args=(c,), daemon=True).start()
"""
_BULK = """
import socket, sys, time
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
data, done, due = bytes(1 << 18), 0, 0
while True:
    done += c.send(data)
    if time.monotonic() > due: due = time.monotonic() + 0.01; print(time.monotonic(), done, flush=True)
"""
_CONNECTS = """
import socket, struct, sys, time
target, done, due = (sys.argv[1], 7), 0, 0
while True:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"x", target)
    s.close()
    done += 1
    if time.monotonic() > due: due = time.monotonic() + 0.01; print(time.monotonic(), done, flush=True)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choices = ["restarts", "differential", "heal", "cost", "throughput", "all"]
    parser.add_argument("what", nargs="?", default="all", choices=choices)
    parser.add_argument("--connections", type=int, default=300_000)
    parser.add_argument("--rate", type=int, default=1500)
    parser.add_argument("--cases", type=int, default=2100)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--turns", type=int, default=60)
    options = parser.parse_args()
    print(f"{platform.platform()}, {len(os.sched_getaffinity(0))} cores, python {platform.python_version()}, {CLI[0]}")
    chosen = choices[:-1] if options.what == "all" else [options.what]
    if "differential" in chosen:
        differential(options.cases)
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
