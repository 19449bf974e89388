"""What strangers' sets, rules and legacy tables cost the guard, the watch and the agent. Part of bench/hostile.py."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.parts.guard_bounds import folder, require
from tests.kernel.guard.guarded import CLI, World, world

from hitless.kernel import netlink, processes
from hitless.kernel.namespaces import Namespace
from hitless.kernel.nftables import wire
from hitless.lab.agents import AGENTS
from hitless.model.families import Backend

_TRANSACTION, _LISTED = 50_000, 500
BOUND_MB = 128
NOTICED_MS = 1000


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident now, and the most so far."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    now, most = (
        next(int(line.split()[1]) / 1024 for line in status if line.startswith(key)) for key in ("VmRSS", "VmHWM")
    )
    return now, most


def load(namespace: Namespace, number: int, *, intervals: bool) -> None:
    """Elements of the strangers' set, 50,000 in a transaction: nft would read the whole set again for each."""
    head = netlink.nfgenmsg(2) + netlink.text(1, "bl") + netlink.text(2, "s")
    with netlink.Socket(netlink.NETFILTER, namespace, receive_buffer=16 << 20) as socket:
        for at in range(0, number, _TRANSACTION):
            parts = []
            for first in range(at, min(at + _TRANSACTION, number), _LISTED):
                elements = b"".join(_element(each, intervals) for each in range(first, first + _LISTED))
                payload = head + netlink.nested(wire.ELEMENTS_LIST, elements)
                parts.append((wire.SUBSYSTEM << 8 | wire.NEWSETELEM, netlink.CREATE, payload))
            socket.batch(wire.SUBSYSTEM, parts, operation="fill", subject="a stranger's set")


def _element(number: int, interval: bool) -> bytes:
    def one(value: int, *more: bytes) -> bytes:
        key = netlink.nested(wire.ELEMENT_KEY, netlink.attribute(wire.DATA_VALUE, value.to_bytes(4, "big")))
        return netlink.nested(1, key, *more)

    first = 0x01000000 + 4 * number
    if not interval:
        return one(first)
    return one(first) + one(first + 2, netlink.be32(wire.ELEMENT_FLAGS, wire.ELEMENT_INTERVAL_END))


@dataclass(frozen=True)
class Strangers:
    """What they own: made before the daemons start, or while they run."""

    name: str
    fill: Callable[[Namespace], None]
    before: bool = False
    legacy: bool = False


HEAD = """
table ip bl {{
  set s {{ type ipv4_addr; {flags} }}
  chain theirs {{ }}
  chain c {{ type filter hook {hook} priority 0; ip saddr @s drop; {jump} }}
}}
"""


def _nft(namespace: Namespace, text: str) -> None:
    processes.run(["nft", "-f", "-"], namespace=namespace, stdin=text, timeout=600)


def kinds(number: int, rules: int) -> Iterator[Strangers]:
    for hook, words in (("input", "that no pod's packet meets"), ("forward", "that pods' packets are asked for")):
        for intervals in (False, True):

            def fill(namespace: Namespace, hook: str = hook, intervals: bool = intervals) -> None:
                _nft(namespace, HEAD.format(flags="flags interval;" if intervals else "", hook=hook, jump=""))
                load(namespace, number, intervals=intervals)

            kind = "intervals" if intervals else "elements"
            yield Strangers(f"{number} {kind} {words}, there before", fill, True)
            yield Strangers(f"{number} {kind} {words}, loaded meanwhile", fill)
    for hook, words in (("input", "that no pod's packet meets"), ("forward", "that pods' packets pass")):

        def make(namespace: Namespace, hook: str = hook) -> None:
            _nft(namespace, HEAD.format(flags="", hook=hook, jump="jump theirs;"))
            for at in range(0, rules, 10_000):
                _nft(namespace, "".join(f"add rule ip bl theirs {_rule(n)}\n" for n in range(at, at + 10_000)))

        yield Strangers(f"{rules} rules {words}, there before", make, True)
        yield Strangers(f"{rules} rules {words}, made meanwhile", make)

    def direct(namespace: Namespace) -> None:
        _nft(namespace, "table inet bl { chain c { type filter hook forward priority 0; }; }")
        for at in range(0, rules, 10_000):
            _nft(namespace, "".join(f"add rule inet bl c {_networks(n)}\n" for n in range(at, at + 10_000)))

    yield Strangers(f"{rules} rules for networks and ranges, that pods' packets pass, there before", direct, True)
    for chain, words in (("INPUT", "that no pod's packet meets"), ("FORWARD", "that pods' packets pass")):

        def restore(namespace: Namespace, chain: str = chain) -> None:
            text = _legacy(rules, chain)
            processes.run(["iptables-legacy-restore", "--noflush"], namespace=namespace, stdin=text, timeout=600)

        yield Strangers(f"{rules} rules of iptables-legacy {words}, there before", restore, True, True)
        yield Strangers(f"{rules} rules of iptables-legacy {words}, made meanwhile", restore, False, True)


def _rule(number: int) -> str:
    return f"ip saddr 198.51.{number >> 8 & 255}.{number & 255} tcp dport {number % 60000 + 1} counter drop"


def _networks(number: int) -> str:
    high, low = number >> 8 & 255, number & 255
    kinds = f"198.{high}.{low}.0/24", f"198.{high}.{low & 240}.0/20", f"198.{high}.{low}.3-198.{high}.{low}.9"
    return f"ip saddr {kinds[number % 3]} counter drop"


def _legacy(rules: int, chain: str) -> str:
    lines = [
        f"-A THEIRS -s 198.51.{n >> 8 & 255}.{n & 255}/32 -p tcp --dport {n % 60000 + 1} -j DROP" for n in range(rules)
    ]
    return "\n".join(["*filter", ":THEIRS - [0:0]", f"-A {chain} -j THEIRS", *lines, "COMMIT", ""])


def memory(number: int, rules: int, only: str = "") -> None:
    for each in kinds(number, rules):
        if only in each.name:
            print(each.name, flush=True)
            _measure(each)


def _measure(strangers: Strangers) -> None:
    backend = Backend.LEGACY if strangers.legacy else Backend.NFT
    program = f"iptables-{backend.value}"
    with folder() as there, world(there, backend=backend, family="ipv4", pods=1) as made:
        if strangers.before:
            strangers.fill(made.node.namespace)
        agent = processes.start(AGENTS["hitless"].command(made.cluster.plan, made.node), namespace=made.node.namespace)
        made.started.append(agent)
        _until(lambda: "MASQUERADE" in made.on_node(f"{program}-save", "-t", "nat"), 60)
        begin = time.monotonic()
        guard = made.guard()
        made.until_state("standing by")
        started = time.monotonic() - begin
        with (there / "watch.jsonl").open("wb") as out:
            watch = processes.start([*CLI, "watch", "--json"], namespace=made.node.namespace, stdout=out)
        made.started.append(watch)
        _until(lambda: (there / "watch.jsonl").read_bytes().count(b'"state"') > 0, 60)
        if not strangers.before:
            strangers.fill(made.node.namespace)
        noticed = _flush(made, program, there)
        time.sleep(1.0)
        for name, process in (("guard", guard), ("watch", watch), ("agent", agent)):
            now, most = memory_mb(process.pid)
            words = f" (noticed a flush after {noticed[name]:.0f} ms)" if name in noticed else ""
            require(most <= BOUND_MB, f"{name:5} {now:4.0f} MB, at most {most:4.0f} of {BOUND_MB} MB{words}")
        require(
            noticed["guard"] <= NOTICED_MS and noticed["watch"] <= NOTICED_MS,
            f"noticed within {NOTICED_MS} ms; the guard was ready after {started:.1f} s",
        )
        watch.send_signal(signal.SIGTERM)


def _until(condition: Callable[[], object], seconds: float) -> float:
    """Milliseconds until it held."""
    begin = time.monotonic()
    while not condition():
        if time.monotonic() - begin > seconds:
            break
        time.sleep(0.002)
    return (time.monotonic() - begin) * 1000


def _told(there: Path) -> int:
    """How often the watch told of a change of the chain (with the standby in place its loss is no gap)."""
    return sum(b"FLANNEL-POSTRTG: -" in line for line in (there / "watch.jsonl").read_bytes().splitlines())


def _flush(made: World, program: str, there: Path) -> dict[str, float]:
    """How long until guard and watch have told of an emptied chain. The guard's log and the watch's lines are read."""
    agent = made.started[0]
    os.kill(agent.pid, signal.SIGSTOP)
    before = made.log().count("gap begins")
    lines = _told(there)
    made.on_node(program, "-t", "nat", "-F", "FLANNEL-POSTRTG")
    begin = time.monotonic()
    found: dict[str, float] = {}
    while len(found) < 2 and time.monotonic() - begin < 60:
        if "guard" not in found and made.log().count("gap begins") > before:
            found["guard"] = (time.monotonic() - begin) * 1000
        if "watch" not in found and _told(there) > lines:
            found["watch"] = (time.monotonic() - begin) * 1000
        time.sleep(0.005)
    os.kill(agent.pid, signal.SIGCONT)
    return {"guard": 60_000.0, "watch": 60_000.0} | found
