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
import ctypes
import fcntl
import gc
import json
import os
import platform
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hitless.kernel import netlink, processes
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import Namespace, inside
from hitless.kernel.nftables import dump, wire
from hitless.kernel.nftables.packing import unpack
from hitless.kernel.scheduling import hasten
from hitless.kernel.xtables import Poller, Snapshot

NETWORK = "10.42.0.0/16"
RULES = f"""*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.1.0/24 -d {NETWORK} -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s {NETWORK} -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s {NETWORK} -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s {NETWORK} ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s {NETWORK} -d {NETWORK} -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
*filter
:FLANNEL-FWD - [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s {NETWORK} -j ACCEPT
-A FLANNEL-FWD -d {NETWORK} -j ACCEPT
COMMIT
"""
LINKS = """set -e
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add cali0 type veth peer name pod0
ip link add eth0 type veth peer name far0
for each in cali0 pod0 eth0 far0; do ip link set $each up; done
ip addr add 192.0.2.1/24 dev eth0
ip route add default via 192.0.2.254
echo ready
exec sleep infinity
"""


@contextmanager
def a_node() -> Iterator[Namespace]:
    process = processes.start(["unshare", "-nm", "sh", "-c", LINKS], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise SystemExit("a namespace could not be made: run it as root")
        yield Namespace.of_process("bench", process.pid)
    finally:
        process.kill()
        process.wait()


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
class Injected:
    """A gap that was made: when each of its ends was begun and done."""

    kind: str
    begin: tuple[int, int]
    end: tuple[int, int] = (0, 0)


@dataclass
class Result:
    name: str
    injected: list[Injected] = field(default_factory=list)
    seen: list[dict[str, object]] = field(default_factory=list)
    others: dict[str, int] = field(default_factory=dict)


Step = Callable[[], None]


def spin_until(clock: Clock, t: int) -> None:
    left = t - clock.now()
    if left > 3_000_000:
        time.sleep((left - 2_000_000) / 1e9)
    while clock.now() < t:
        pass


def inject(clock: Clock, lengths: Sequence[int], pick: Callable[[int], tuple[str, Step, Step]]) -> list[Injected]:
    """Make a gap of each length; ``pick`` gives a way of doing it, with its open and close."""
    chance = random.Random(1)
    found = []
    gc.collect()
    gc.disable()
    for length in lengths:
        kind, begin, end = pick(length)
        t0 = clock.now()
        begin()
        t1 = clock.now()
        spin_until(clock, t1 + length)
        t2 = clock.now()
        end()
        found.append(Injected(kind, (t0, t1), (t2, clock.now())))
        spin_until(clock, found[-1].end[1] + chance.randrange(2_000_000, 15_000_000))
    gc.enable()
    return found


# --- nf_tables -------------------------------------------------------------------------------------------------------


class NftWays:
    """Ways to open and close a gap in iptables-nft's tables, each one transaction prepared beforehand."""

    def __init__(self, node: Namespace) -> None:
        self.socket = netlink.Socket(netlink.NETFILTER, node)
        state = dump.read_state(self.socket, (2,))
        self.chains = state.tables[2, "nat"].chains
        rules = [unpack(rule) for rule in self.chains["FLANNEL-POSTRTG"].rules.values()]
        jump = unpack(next(iter(self.chains["POSTROUTING"].rules.values())))
        verdict = netlink.be32(wire.VERDICT_CODE, -5)
        immediate = netlink.be32(1, 0) + netlink.nested(2, netlink.nested(wire.DATA_VERDICT, verdict))
        expression = netlink.text(wire.EXPRESSION_NAME, "immediate") + netlink.nested(wire.EXPRESSION_DATA, immediate)
        returns = self.rule("POSTROUTING", netlink.nested(wire.RULE_EXPRESSIONS, netlink.nested(1, expression)))
        # a RETURN in front or a jump taken away needs no xtables extension; refilling the chain does, and then the
        # kernel first waits until the old ones are gone (some 10 ms): short gaps cannot be made that way
        self.short: dict[str, tuple[Step, Step]] = {
            "RETURN in front": (
                lambda: self.commit((wire.NEWRULE, netlink.CREATE, returns)),
                lambda: self.commit(self.delete("POSTROUTING", 0)),
            ),
        }
        refill = [self.again("FLANNEL-POSTRTG", rule) for rule in rules]
        rejump = self.again("POSTROUTING", jump)
        self.long: dict[str, tuple[Step, Step]] = {
            "chain emptied": (
                lambda: self.commit((wire.DELRULE, 0, self.rule("FLANNEL-POSTRTG"))),
                lambda: self.commit(*((wire.NEWRULE, netlink.CREATE | netlink.APPEND, each) for each in refill)),
            ),
            "jump removed": (
                lambda: self.commit((wire.DELRULE, 0, self.rule("POSTROUTING"))),
                lambda: self.commit((wire.NEWRULE, netlink.CREATE | netlink.APPEND, rejump)),
            ),
        }

    @staticmethod
    def rule(chain: str, rest: bytes = b"") -> bytes:
        return netlink.nfgenmsg(2) + netlink.text(wire.RULE_TABLE, "nat") + netlink.text(wire.RULE_CHAIN, chain) + rest

    def again(self, chain: str, rule: bytes) -> bytes:
        """The request that makes a rule that was dumped."""
        attributes = netlink.attributes(rule, 4)
        return self.rule(chain, netlink.attribute(wire.RULE_EXPRESSIONS | 0x8000, attributes[wire.RULE_EXPRESSIONS]))

    def delete(self, chain: str, number: int) -> tuple[int, int, bytes]:
        found = dump.read_chain(self.socket, (2, "nat"), chain)
        assert found is not None
        return wire.DELRULE, 0, self.rule(chain, netlink.be64(wire.RULE_HANDLE, list(found.rules)[number]))

    def commit(self, *parts: tuple[int, int, bytes]) -> None:
        requests = [(wire.SUBSYSTEM << 8 | kind, flags, payload) for kind, flags, payload in parts]
        self.socket.batch(wire.SUBSYSTEM, requests, operation="change", subject="the bench's rules")

    def pick(self, length: int) -> tuple[str, Step, Step]:
        ways = self.short if length < 20_000_000 else self.short | self.long
        kind = random.choice(list(ways))
        return (kind, *ways[kind])


# --- iptables-legacy -------------------------------------------------------------------------------------------------


class LegacyWays:
    """The nat table as it is and with FLANNEL-POSTRTG emptied, swapped by IPT_SO_SET_REPLACE under the xtables lock."""

    _REPLACE, _INFO, _ENTRIES = 64, 64, 65

    def __init__(self, node: Namespace) -> None:
        self.socket = inside(node, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
        self.lock = f"/proc/{node.pid}/root/run/xtables.lock"
        self._counters = ctypes.create_string_buffer(1 << 16)
        self.full = self.read()
        processes.run(["iptables-legacy", "-t", "nat", "-F", "FLANNEL-POSTRTG"], namespace=node)
        self.empty = self.read()
        self.replace(self.full, self.empty[1])

    def read(self) -> tuple[bytes, int]:
        """A replace request that makes the table what it is now (less its counters), and its number of entries."""
        name = b"nat".ljust(32, b"\0")
        info = self._ask(self._INFO, name.ljust(84, b"\0"))
        hooks = struct.unpack_from("=I", info, 32)[0]
        entries, size = struct.unpack_from("=II", info, 76)
        table = self._ask(self._ENTRIES, name + struct.pack("=I", size) + b"\0" * 4 + b"\0" * size)[40:]
        return name + struct.pack("=III", hooks, entries, size) + info[36:76] + table, entries

    def _ask(self, option: int, data: bytes) -> bytes:
        buffer = ctypes.create_string_buffer(data, len(data))
        length = ctypes.c_uint32(len(data))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.getsockopt(self.socket.fileno(), 0, option, buffer, ctypes.byref(length)) != 0:
            raise OSError(ctypes.get_errno(), "getsockopt")
        return buffer.raw

    def replace(self, table: tuple[bytes, int], entries: int) -> None:
        """Put a table in the place of one with so many ``entries``: the kernel returns a counter for each of them."""
        counters = struct.pack("=IQ", entries, ctypes.addressof(self._counters))
        with open(self.lock, "wb") as lock:  # noqa: PTH123 - what iptables does, call by call
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.socket.setsockopt(0, self._REPLACE, table[0][:84] + counters + table[0][84:])

    def pick(self, length: int) -> tuple[str, Step, Step]:
        full, empty = self.full, self.empty
        return "chain emptied", lambda: self.replace(empty, full[1]), lambda: self.replace(full, empty[1])


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


def service_rules(services: int) -> str:
    """What kube-proxy writes for so many Services with two endpoints each, in one restore."""
    chains, rules = [":KUBE-SERVICES - [0:0]", ":KUBE-POSTROUTING - [0:0]", ":KUBE-MARK-MASQ - [0:0]"], []
    for n in range(services):
        address = f"10.43.{n // 250}.{n % 250 + 1}"
        chains.append(f":KUBE-SVC-{n:016d} - [0:0]")
        comment = f'-m comment --comment "default/service-{n}:http cluster IP"'
        rules.append(f"-A KUBE-SERVICES -d {address}/32 -p tcp {comment} -m tcp --dport 80 -j KUBE-SVC-{n:016d}")
        rules.append(f"-A KUBE-SVC-{n:016d} ! -s {NETWORK} -d {address}/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ")
        for end in (0, 1):
            sep = f"KUBE-SEP-{n:015d}{end}"
            pod = f"10.42.{n // 250}.{n % 250 + 1}"
            chains.append(f":{sep} - [0:0]")
            odds = "-m statistic --mode random --probability 0.5" if end == 0 else ""
            rules.append(f"-A KUBE-SVC-{n:016d} {odds} -j {sep}")
            rules.append(f"-A {sep} -s {pod}/32 -j KUBE-MARK-MASQ")
            rules.append(f"-A {sep} -p tcp -m tcp -j DNAT --to-destination {pod}:8080")
    rules += [
        "-A PREROUTING -j KUBE-SERVICES",
        "-A POSTROUTING -j KUBE-POSTROUTING",
        "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000",
        "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000",
        "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ]
    return "\n".join(["*nat", *chains, *rules, "COMMIT", ""])


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
