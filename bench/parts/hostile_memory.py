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

from hitless.kernel import processes
from hitless.lab.agents import AGENTS
from hitless.model.families import Backend

BOUND_MB = 128
NOTICED_MS = 1000


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident now, and the most so far."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    now, most = (
        next(int(line.split()[1]) / 1024 for line in status if line.startswith(key)) for key in ("VmRSS", "VmHWM")
    )
    return now, most


def plain(number: int, first: int = 0x01000000) -> str:
    values = range(first, first + number)
    return ", ".join(f"{v >> 24}.{v >> 16 & 255}.{v >> 8 & 255}.{v & 255}" for v in values)


def ranges(number: int, first: int = 0x01000000) -> str:
    values = range(first, first + 4 * number, 4)
    return ", ".join(
        f"{v >> 24}.{v >> 16 & 255}.{v >> 8 & 255}.{v & 255}-{v >> 24}.{v >> 16 & 255}.{v >> 8 & 255}.{(v & 255) + 1}"
        for v in values
    )


def _elements(name: str, make: Callable[[int, int], str], number: int, part: int) -> Iterator[str]:
    for at in range(0, number, part):
        first = 0x01000000 + (at if make is plain else 4 * at)
        yield f"add element ip bl {name} {{ {make(min(part, number - at), first)} }}\n"


@dataclass(frozen=True)
class Strangers:
    """What they own: made before the daemons start, or while they run."""

    name: str
    head: str
    fill: Callable[[], Iterator[str]]
    before: bool = False
    legacy: bool = False


HEAD = "add table ip bl\nadd set ip bl s {{ type ipv4_addr; {flags} }}\nadd chain ip bl theirs\n"
HOOK = "add chain ip bl c {{ type filter hook {hook} priority 0; }}\nadd rule ip bl c ip saddr @s drop\n"


def kinds(number: int, rules: int) -> Iterator[Strangers]:
    intervals = HEAD.format(flags="flags interval;")
    for hook, words in (("input", "that no pod's packet meets"), ("forward", "that pods' packets are asked for")):
        end = HOOK.format(hook=hook)
        yield Strangers(
            f"{number} elements {words}, there before",
            HEAD.format(flags="") + end,
            lambda: _elements("s", plain, number, 50_000),
            True,
        )
        yield Strangers(
            f"{number} elements {words}, loaded meanwhile",
            HEAD.format(flags="") + end,
            lambda: _elements("s", plain, number, 50_000),
        )
        yield Strangers(
            f"{number} intervals {words}, loaded meanwhile",
            intervals + end,
            lambda: _elements("s", ranges, number, 50_000),
        )
    lines = [
        f"add rule ip bl theirs ip saddr 198.51.{n >> 8 & 255}.{n & 255} tcp dport {n % 60000 + 1} counter drop\n"
        for n in range(rules)
    ]
    chunks = ["".join(lines[at : at + 10_000]) for at in range(0, rules, 10_000)]
    yield Strangers(
        f"{rules} rules in a chain of theirs, there before", HEAD.format(flags=""), lambda: iter(chunks), True
    )
    yield Strangers(f"{rules} rules in a chain of theirs, made meanwhile", HEAD.format(flags=""), lambda: iter(chunks))
    yield Strangers(f"{rules} rules of iptables-legacy, there before", "", lambda: iter([_legacy(rules)]), True, True)
    yield Strangers(
        f"{rules} rules of iptables-legacy, made meanwhile", "", lambda: iter([_legacy(rules)]), False, True
    )


def _legacy(rules: int) -> str:
    lines = [
        f"-A THEIRS -s 198.51.{n >> 8 & 255}.{n & 255}/32 -p tcp --dport {n % 60000 + 1} -j DROP" for n in range(rules)
    ]
    return "\n".join(["*filter", ":THEIRS - [0:0]", "-A INPUT -j THEIRS", *lines, "COMMIT", ""])


def memory(number: int, rules: int, only: str = "") -> None:
    for each in kinds(number, rules):
        if only in each.name:
            print(each.name, flush=True)
            _measure(each)


def _measure(strangers: Strangers) -> None:
    backend = Backend.LEGACY if strangers.legacy else Backend.NFT
    program = f"iptables-{backend.value}"
    with folder() as there, world(there, backend=backend, family="ipv4", pods=1) as made:

        def fill() -> None:
            for text in (strangers.head, *strangers.fill()) if strangers.head else strangers.fill():
                if strangers.legacy:
                    processes.run(["iptables-legacy-restore", "--noflush"], namespace=made.node.namespace, stdin=text)
                else:
                    processes.run(["nft", "-f", "-"], namespace=made.node.namespace, stdin=text)

        if strangers.before:
            fill()
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
            fill()
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
