"""How well ``hitless watch`` sees gaps of known begin, end and writer, and what watching costs when nothing happens.

    python bench/gaps.py [--gaps 1000] [--legacy-gaps 1000] [--legacy-changes 600] [--services 5000] [--idle-seconds 20]

Everything happens in network namespaces of its own; root is needed. The true begin of a gap lies between the moment at
which the transaction was sent and its acknowledgement; an error is the distance from that interval. nf_tables gaps
are made by raw netlink batches and legacy ones by raw table replacement (under the xtables lock, as iptables takes it),
because programs are too slow for short gaps; ``--legacy-changes`` are made by iptables-legacy and its restore, whose
processes end at once. Asked for: all gaps found, begin and end within 1 ms at the 99th percentile (nf_tables), the
writer right for all; below 1 % of a core when idle. What is not reached is printed as missed, and ends with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.parts.gap_nodes import NETWORK, RULES, a_node, service_rules
from bench.parts.gap_ways import Injected, LegacyWays, NftWays, inject

from hitless.kernel import processes
from hitless.kernel.clock import Clock
from hitless.kernel.cpu_priority import hasten
from hitless.kernel.namespaces import Namespace
from hitless.kernel.xtables import Poller, Snapshot


@contextmanager
def a_watch(node: Namespace, clock: Clock, backend: str, out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``hitless watch --json`` in the node, until it wrote how things stand."""
    command = [sys.executable, "-m", "hitless", "watch", "--json", "--backend", backend, "--family", "ipv4"]
    with out.open("wb") as sink:
        process = processes.start(command, namespace=node, stdout=sink, environment=clock.environment())
        try:
            end = time.monotonic() + 30
            while b'"type":"state"' not in out.read_bytes():
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"hitless watch did not begin: {out.read_text()}")
                time.sleep(0.01)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@dataclass
class Result:
    name: str
    injected: list[Injected] = field(default_factory=list)
    seen: list[dict[str, object]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)


# --- what was seen ---------------------------------------------------------------------------------------------------


def read_log(result: Result, out: Path) -> None:
    for line in out.read_text().splitlines():
        event = json.loads(line)
        if event["type"] == "gap":
            result.seen.append(event)
        else:
            result.others[event["type"]] = result.others.get(event["type"], 0) + 1


def outside(t: int, interval: tuple[int, int]) -> int:
    return max(interval[0] - t, t - interval[1], 0)


def at(values: Sequence[int], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6


def asked(what: str, reached: bool) -> bool:
    """Say whether something that was asked for is reached."""
    print(f"  {'reached' if reached else 'missed'}: {what}")
    return reached


def report(result: Result, limit_ms: float = 0.0) -> bool:
    """Print how gaps were seen; true when all were found, with their writers, and begin and end within the limit."""
    good = False
    unseen = list(result.injected)
    errors: dict[str, list[int]] = {"begin": [], "end": []}
    after_ack: list[int] = []
    wrong_writer = extra = 0
    for gap in result.seen:
        begin, end = int(str(gap["begin"])), int(str(gap["end"]))
        fits = [each for each in unseen if each.begin[0] - 2_000_000 <= begin and end <= each.end[1] + 200_000_000]
        fits = [each for each in fits if begin < each.end[1] and end > each.begin[0]]
        if not fits:
            extra += 1
            continue
        match = fits[0]
        unseen.remove(match)
        errors["begin"].append(outside(begin, match.begin))
        errors["end"].append(outside(end, match.end))
        after_ack += [begin - match.begin[1], end - match.end[1]]
        for side in ("opened_by", "closed_by"):
            writer = gap.get(side)
            wrong_writer += not (isinstance(writer, dict) and writer.get("pid") == os.getpid())
    found = len(result.injected) - len(unseen)
    print(f"\n{result.name}: {found} of {len(result.injected)} injected gaps found, {extra} that were none")
    if found:
        good = True
        for side, values in errors.items():
            p50, p99, largest = (at(values, share) for share in (0.5, 0.99, 1))
            if limit_ms:
                good = asked(f"{side} within {limit_ms:g} ms at p99", p99 <= limit_ms) and good
            print(f"  {side:5} error: p50 {p50:.3f} ms, p99 {p99:.3f} ms, max {largest:.3f} ms")
        widths = [each.begin[1] - each.begin[0] for each in result.injected]
        widths += [each.end[1] - each.end[0] for each in result.injected]
        print(f"  time from send to acknowledgement: p50 {at(widths, 0.5):.3f} ms, p99 {at(widths, 0.99):.3f} ms")
        print(f"  stamp minus acknowledgement: p50 {at(after_ack, 0.5):+.3f} ms, p99 {at(after_ack, 0.99):+.3f} ms")
        print(f"  writer right: {2 * found - wrong_writer} of {2 * found}")
        kinds = sorted({each.kind for each in result.injected})
        print(f"  kinds: {', '.join(f'{sum(each.kind == kind for each in result.injected)} {kind}' for kind in kinds)}")
    for each in unseen[:5]:
        print(f"  not found: {each.kind} of {(each.end[0] - each.begin[1]) / 1e6:.3f} ms")
    good = asked("the writer is right for all", bool(found) and not wrong_writer) and good
    return asked("all are found, and nothing else", not unseen and not extra) and good


def lengths_of(count: int, shortest_ms: float, longest_ms: float) -> list[int]:
    """Spread evenly over the orders of magnitude, in random order."""
    chance = random.Random(7)
    steps = [shortest_ms * (longest_ms / shortest_ms) ** (n / max(1, count - 1)) for n in range(count)]
    chance.shuffle(steps)
    return [int(step * 1e6) for step in steps]


def bench_nft(count: int, folder: Path) -> bool:
    clock, result, out = Clock(), Result("iptables-nft, gaps of 0.3 to 200 ms"), folder / "nft.jsonl"
    with a_node() as node:
        processes.run(["iptables-nft-restore", "--noflush"], namespace=node, stdin=RULES)
        ways = NftWays(node)
        with a_watch(node, clock, "nft", out):
            result.injected = inject(clock, lengths_of(count, 0.3, 200), ways.pick)
            time.sleep(0.5)
        ways.socket.close()
    read_log(result, out)
    return report(result, 1.0)


def bench_legacy(count: int, folder: Path) -> bool:
    clock, result, out = Clock(), Result("iptables-legacy, gaps of 3 to 200 ms"), folder / "legacy.jsonl"
    with a_node() as node:
        processes.run(["iptables-legacy-restore", "--noflush"], namespace=node, stdin=RULES)
        ways = LegacyWays(node)
        with a_watch(node, clock, "legacy", out):
            result.injected = inject(clock, lengths_of(count, 3, 200), ways.pick)
            time.sleep(0.5)
        ways.socket.close()
    read_log(result, out)
    return report(result)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def bench_writers(count: int) -> bool:
    """Whom the poller names when real programs make ``count`` changes, each by a process that ends at once."""
    tally = dict.fromkeys(("seen", "pid right", "command known", "arguments known"), 0)
    refill = f"*nat\n-A FLANNEL-POSTRTG -s {NETWORK} -j MASQUERADE\nCOMMIT\n"
    ways = (["iptables-legacy", "-w", "-t", "nat", "-F", "FLANNEL-POSTRTG"], ["iptables-legacy-restore", "-w", "-n"])
    with a_node() as node:
        processes.run(["iptables-legacy-restore", "--noflush"], namespace=node, stdin=RULES)
        with Poller(node) as poller:
            poller.snapshot()
            found: list[Snapshot] = []
            ended = threading.Event()

            def follow() -> None:
                hasten(2)
                while not ended.is_set():
                    snapshot = poller.wait(1)
                    if snapshot is not None:
                        found.append(snapshot)

            thread = threading.Thread(target=follow)
            thread.start()
            pids = set()
            for number in range(count):
                process = processes.start(ways[number % 2], namespace=node, stdin=subprocess.PIPE)
                process.communicate(refill.encode() if number % 2 else b"")
                pids.add(process.pid)
            time.sleep(0.2)
            ended.set()
            poller.wake()
            thread.join()
    for snapshot in found:
        writer = snapshot.writer
        tally["seen"] += 1
        tally["pid right"] += writer is not None and writer.pid in pids
        tally["command known"] += writer is not None and writer.comm.startswith("iptables")
        tally["arguments known"] += writer is not None and bool(writer.argv)
    print(f"\niptables-legacy, {count} changes by programs: {', '.join(f'{what} {n}' for what, n in tally.items())}")
    return asked("the writer is right for all that are seen", tally["pid right"] == tally["seen"] > 0)


def bench_idle(backend: str, services: int, seconds: float, folder: Path) -> bool:
    program = f"iptables-{backend}-restore"
    out = folder / f"idle-{backend}.jsonl"
    with a_node() as node:
        processes.run([program, "--noflush"], namespace=node, stdin=service_rules(services), timeout=300)
        processes.run([program, "--noflush"], namespace=node, stdin=RULES, timeout=300)
        begin = time.monotonic()
        with a_watch(node, Clock(), "auto", out) as process:
            started = time.monotonic() - begin
            time.sleep(1)
            # the process is nsenter's successor: nsenter executes the command in its own place
            before, began = cpu_ticks(process.pid), time.monotonic()
            time.sleep(seconds)
            used = (cpu_ticks(process.pid) - before) / os.sysconf("SC_CLK_TCK")
            share = 100 * used / (time.monotonic() - began)
            memory = next(
                line.split()[1]
                for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                if "VmRSS" in line
            )
    print(
        f"\nidle, iptables-{backend} with the rules of {services} Services: {share:.2f} % of a core "
        f"over {seconds:.0f} s, {int(memory) / 1024:.0f} MB, first answer after {started:.2f} s"
    )
    return asked("below 1 % of a core", share < 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gaps", type=int, default=1000)
    parser.add_argument("--legacy-gaps", type=int, default=1000)
    parser.add_argument("--legacy-changes", type=int, default=600)
    parser.add_argument("--services", type=int, default=5000)
    parser.add_argument("--idle-seconds", type=float, default=20)
    chosen = parser.parse_args()
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "?",
    )
    print(f"{platform.system()} {platform.release()}, {os.cpu_count()} x {model}, Python {platform.python_version()}")
    print(f"load when begun: {' '.join(f'{each:.2f}' for each in os.getloadavg())}")
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if chosen.gaps:
            good = bench_nft(chosen.gaps, folder) and good
        if chosen.legacy_gaps:
            good = bench_legacy(chosen.legacy_gaps, folder) and good
        if chosen.legacy_changes:
            good = bench_writers(chosen.legacy_changes) and good
        if chosen.idle_seconds:
            for backend in ("nft", "legacy"):
                good = bench_idle(backend, chosen.services, chosen.idle_seconds, folder) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
