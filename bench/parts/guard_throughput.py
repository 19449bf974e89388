"""What the standby costs a pod's traffic: one load that never stops, the standby put in and taken out under it.

Part of bench/guard.py. Two runs, one after the other, differ by more than the 2 % that are asked about; so each quarter
of a second with the standby is compared with the two quarters around it without, and the middle of many comparisons
counts (the outer fifths, in which the machine did something else, are left out). A figure whose standard error is too
large to tell is a miss, not a pass.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.kernel.guard.guarded import World, until

from hitless.guard.standby_rules import StandbyRules
from hitless.guard.standby_table import StandbyTable, found_in
from hitless.kernel import processes
from hitless.kernel.nftables import read_ruleset
from hitless.model.families import Family

SPAN = 0.25  # seconds with, seconds without
SETTLE = 0.03  # seconds after a change that count for neither
FEWEST, CUT = 60, 0.2
CLOSE = 0.006  # standard error at which no more turns are needed
TELLING = 0.01  # standard error at which 2 % can still be told


def measure(made: World, turns: int) -> list[tuple[str, float, float, float]]:
    """For each load: its name, its rate, the share by which the standby changes it, and the standard error."""
    guard = made.guard()
    made.until_state("standing by")
    guard.terminate()
    guard.wait()  # the standby stays: from here on it is taken out and put back without a process
    # flows are forgotten soon: the connection table must not fill up, for then nothing is translated any more
    for name in ("udp_timeout", "tcp_timeout_close", "tcp_timeout_time_wait", "tcp_timeout_syn_sent"):
        made.on_node("sysctl", "-q", "-w", f"net.netfilter.nf_conntrack_{name}=1")
    found = found_in(read_ruleset(made.node.namespace, (Family.IPV4,)), Family.IPV4, "eth0")
    assert found is not None and found.standby is not None
    standing = StandbyTable((Family.IPV4,), made.node.namespace)
    standing.adopt({Family.IPV4: found})
    results = []
    try:
        for name, client in (("TCP throughput", BULK), ("new TCP connections", CONNECTS), ("new UDP flows", FLOWS)):
            rate, ratios = _load(made, client, standing, found.standby, turns)
            results.append((name, rate, *_middle(ratios)))
            standing.install({Family.IPV4: found.standby})
    finally:
        standing.close()
    return results


def _middle(ratios: list[float]) -> tuple[float, float]:
    """The trimmed mean, less one, and its standard error (from the winsorised spread)."""
    ordered = sorted(ratios)
    cut = int(len(ordered) * CUT)
    kept = ordered[cut : len(ordered) - cut]
    held = [min(max(value, kept[0]), kept[-1]) for value in ordered]
    error = statistics.stdev(held) / ((1 - 2 * CUT) * len(ordered) ** 0.5)
    return statistics.fmean(kept) - 1, error


def _load(
    made: World, client: str, standing: StandbyTable, standby: StandbyRules, turns: int
) -> tuple[float, list[float]]:
    address, port = str(made.cluster.far_end.address), "5001"
    server = processes.start(
        [sys.executable, "-c", SERVER, address, port], namespace=made.cluster.far_end.namespace, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    server.stdout.readline()
    log = made.folder / "load"
    with log.open("wb") as file:
        load = processes.start([sys.executable, "-c", client, address, port], namespace=made.pod.namespace, stdout=file)
    spans: list[tuple[float, float]] = []
    try:
        until(lambda: log.stat().st_size > 1000, "the load running")
        time.sleep(1)
        while True:
            standing.install({Family.IPV4: standby if len(spans) % 2 else None})
            begin = time.monotonic() + SETTLE
            time.sleep(SPAN)
            spans.append((begin, time.monotonic()))
            if len(spans) % 40 == 1 and len(spans) > 2 * FEWEST:
                ratios = _ratios(log, spans)[1]
                if len(spans) > 2 * turns or _middle(ratios)[1] <= CLOSE:
                    break
    finally:
        for process in (load, server):
            process.kill()
            process.wait()
        server.stdout.close()
    return _ratios(log, spans)


def _ratios(log: Path, spans: list[tuple[float, float]]) -> tuple[float, list[float]]:
    """The rate, and each span against the mean of its two neighbours, as "with" over "without"."""
    points = [tuple(map(float, line.split())) for line in log.read_text().splitlines() if line.count(" ") == 1]
    rates = []
    at = 0
    for begin, end in spans:
        while at < len(points) and points[at][0] < begin:
            at += 1
        inside = [point for point in points[at : at + 100] if point[0] <= end]
        rates.append((inside[-1][1] - inside[0][1]) / (inside[-1][0] - inside[0][0]))
    ratios = [
        (rates[i] / ((rates[i - 1] + rates[i + 1]) / 2)) ** (1 if i % 2 else -1) for i in range(1, len(rates) - 1)
    ]
    return statistics.median(rates), ratios


SERVER = """
import os, socket, sys, threading
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
s = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=4096)
e = socket.create_server((sys.argv[1], int(sys.argv[2]) + 1), backlog=4096)
print("up", flush=True)
def ends():
    while True: e.accept()[0].close()
threading.Thread(target=ends, daemon=True).start()
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
HEAD = """
import os, socket, struct, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
done, due = 0, 0
def tell():
    global due
    if time.monotonic() > due: due = time.monotonic() + 0.005; print(time.monotonic(), done, flush=True)
"""
BULK = (
    HEAD
    + """
c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
data = bytes(1 << 17)
while True:
    done += c.send(data)
    tell()
"""
)
CONNECTS = (
    HEAD
    + """
target, now = (sys.argv[1], int(sys.argv[2]) + 1), struct.pack("ii", 1, 0)
while True:
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, now)
    s.connect(target)
    s.close()
    done += 1
    tell()
"""
)
FLOWS = (
    HEAD
    + """
while True:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"x", (sys.argv[1], 7))
    s.close()
    done += 1
    tell()
"""
)
