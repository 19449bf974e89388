"""A node in memory and in virtual time, for the guard's loop: rules that others write, the guard's tables, connections.

What stands in the guard's tables is kept as the bytes that the kernel would get, and read back as the kernel's reader
does. Others' commits and the guard's own come back as events. A write may fail, and the guard may die at any call.
"""

from __future__ import annotations

import heapq
import io
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.unit.guard.around import Node
from tests.unit.guard.flannels import nat

from hitless.daemon.logs import Log
from hitless.errors import KernelError
from hitless.guard.journal import Journal
from hitless.guard.loop import GuardLoop, GuardPorts, GuardSettings
from hitless.guard.poisoned_flows import Freed
from hitless.guard.reporting import Reporter
from hitless.guard.standby_rules import StandbyRules
from hitless.guard.standby_table import StandbyTable
from hitless.guard.statements import Statement
from hitless.kernel import netlink
from hitless.kernel.clock import Clock
from hitless.kernel.nftables import expressions, wire
from hitless.kernel.nftables.owned import Count, OwnedChain, Owner
from hitless.model.events import Writer
from hitless.model.families import Family
from hitless.model.rules import Chain, Comment, Rule, Ruleset, Table
from hitless.model.standby import CARRIED, LEAKED, TABLE, without_guard
from hitless.observe.rules import Observation

EPOCH = 1_700_000_000_000_000_000
FLANNELD = Writer(4711, "flanneld")
US = Writer(1, "hitless")


class Death(BaseException):
    """The guard was killed here."""


@dataclass
class World:
    """One node. ``others`` are everybody else's tables by family."""

    others: dict[Family, tuple[Table, ...]] = field(default_factory=lambda: {f: nat(f).tables for f in Family})
    families: tuple[Family, ...] = tuple(Family)
    seconds: float = 0.0
    said: Statement | None = None
    failing_writes: int = 0
    failing_reads: int = 0
    die_at: int = -1
    calls: int = 0
    turns: int = 0
    writes: int = 0
    poisoned: dict[Family, int] = field(default_factory=dict)
    counts: dict[Family, dict[str, int]] = field(default_factory=dict)
    written: dict[Family, Table] = field(default_factory=dict)
    owner_port: int = 0
    node: Node = field(default_factory=Node)
    other_pods: set[Family] = field(default_factory=set)
    queue: deque[Observation] = field(default_factory=deque)
    said_so_far: int = 0
    script: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)

    # --- time

    def now(self) -> int:
        return EPOCH + round(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return EPOCH / 1e9 + self.seconds

    def worked(self) -> float:
        return self.seconds / 1000

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Somebody does something then."""
        self.said_so_far += 1
        heapq.heappush(self.script, (seconds, self.said_so_far, action))

    # --- what others do

    def ruleset(self) -> Ruleset:
        tables = [table for family in self.families for table in self.others[family]]
        return Ruleset((*tables, *(self.written[family] for family in self.families if family in self.written)))

    def commit(self, family: Family, tables: Sequence[Table], writer: Writer | None = FLANNELD) -> None:
        """Others' tables of a family are these from now on."""
        self.others[family] = tuple(tables)
        self.event(writer)

    def event(self, writer: Writer | None = None, *, lost: bool = False, own: bool = False) -> None:
        self.queue.append(Observation(self.now(), self.now(), self.ruleset(), writer, lost, own))

    def vandal(self, family: Family) -> None:
        """Somebody deletes the guard's table (a kernel without owners)."""
        if self.written.pop(family, None) is not None:
            self.counts.pop(family, None)
            self.event(Writer(99, "nft"), own=True)

    def traffic(self, family: Family, name: str, packets: int = 1) -> None:
        """The guard's table counts."""
        if family in self.counts:
            self.counts[family][name] += packets

    def _call(self) -> None:
        self.calls += 1
        if self.calls == self.die_at:
            self.die_at = -1
            raise Death(f"call {self.calls}")

    # --- rules and their waiting (RulesPort)

    @property
    def first(self) -> Observation:
        self.queue.clear()
        return Observation(self.now(), self.now(), self.ruleset(), lost=True)

    @property
    def waiting(self) -> bool:
        return bool(self.queue)

    def next(self, timeout: float) -> Observation | None:
        self.turns += 1
        self._call()
        until = self.seconds + timeout
        while not self.queue and self.script and self.script[0][0] <= until:
            at, _, action = heapq.heappop(self.script)
            self.seconds = max(self.seconds, at)
            action()
        if self.queue:
            return self.queue.popleft()
        self.seconds = until
        return None

    # --- the guard's tables (standby_table.OwnTables)

    def available(self, families: Sequence[Family]) -> None:
        self._call()

    def own(self, families: Sequence[Family]) -> None:
        self._call()

    def replace(self, desired: Mapping[Family, Sequence[OwnedChain]], counters: Sequence[str]) -> None:
        self._call()
        if self.failing_writes:
            self.failing_writes -= 1
            raise KernelError("write", f"table {TABLE}", 12)
        self.writes += 1
        for family, chains in desired.items():
            self.written[family] = _read_back(family, tuple(chains))
            self.counts[family] = dict.fromkeys(counters, 0)
        self.event(US, own=True)
        self._call()

    def owner(self, family: Family) -> Owner | None:
        return Owner(0, self.owner_port) if family in self.written else None

    def counters(self, family: Family) -> Mapping[str, Count]:
        self._call()
        return {name: Count(packets, 0) for name, packets in self.counts.get(family, {}).items()}

    def read(self, family: Family) -> Ruleset:
        return Ruleset((self.written[family],) if family in self.written else ())

    # --- connections (FlowsPort)

    def heal(self, standby: StandbyRules, *, dry: bool = False) -> Freed:
        self._call()
        if self.failing_reads:
            self.failing_reads -= 1
            raise KernelError("read", "the connection table", 12)
        count = self.poisoned.get(standby.family, 0)
        if not dry:
            self.poisoned[standby.family] = 0
        return Freed(count, ["udp 10.42.1.7:1 -> 198.51.100.1:53"] * min(1, count))

    def untranslated(self, standby: StandbyRules) -> list[str]:
        return ["udp 10.42.1.7:2 -> 198.51.100.1:53"]

    def close(self) -> None:
        """Nothing to close."""

    # --- surroundings, statements

    def witnesses(self, place: Any) -> Any:
        return self.node.witnesses(place)

    def uplink(self, family: Family) -> str:
        return self.node.uplink(family)

    def changed(self, now: float) -> frozenset[Family]:
        found, self.other_pods = frozenset(self.other_pods), set()
        return found

    def stated(self, spoken: float) -> Statement | None:
        return self.said

    def ports(self, *, tables: bool = True) -> GuardPorts:
        standing = StandbyTable(self.families, tables=self, read=self.read) if tables else None
        return GuardPorts(self, standing, self, self, self.stated, self)


@lru_cache(1024)  # what is written again is read again
def _read_back(family: Family, chains: tuple[OwnedChain, ...]) -> Table:
    found = {}
    for chain in chains:
        rules: list[Rule] = []
        for form, comment in chain.rules:
            payload = netlink.nfgenmsg(0) + netlink.nested(wire.RULE_EXPRESSIONS, form)
            for rule in expressions.decode(payload, family.nft, lambda _name: None):
                rules.append(Rule((*rule.steps, Comment(comment))) if comment else rule)
        found[chain.name] = Chain(chain.name, tuple(rules), chain.hook)
    return Table(family.nft, TABLE, found)


class Guarded:
    """A guard in a world, with what it wrote."""

    def __init__(
        self, world: World, folder: Path | None, *, settings: GuardSettings | None = None, observe: bool = False
    ) -> None:
        """``folder`` ``None``: neither journal nor state."""
        self.world, self.folder = world, folder or Path("/nowhere")
        self.settings = settings or GuardSettings(families=world.families, observe=observe)
        self.stream = io.StringIO()
        log = Log(self.stream, monotonic=world.monotonic)
        clock = Clock(0)
        clock.now = world.now  # type: ignore[method-assign]
        self.reporter = Reporter(
            log,
            Journal(folder / "journal" if folder else None),
            clock,
            state=folder / "state.json" if folder else None,
            monotonic=world.monotonic,
        )
        self.loop = GuardLoop(self.settings, world.ports(tables=not self.settings.observe), self.reporter, log)

    def run(self, seconds: float) -> None:
        """Turn for so long."""
        end = self.world.seconds + seconds
        self.world.at(end, lambda: None)
        while self.world.seconds < end or self.world.queue:
            self.loop.turn()

    @property
    def journal(self) -> list[dict[str, Any]]:
        path = self.folder / "journal"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record for record in self.journal if record["type"] == kind]

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]


def foreign(world: World) -> Ruleset:
    """What is not the guard's."""
    return without_guard(world.ruleset())


__all__ = ["CARRIED", "FLANNELD", "LEAKED", "Death", "Guarded", "World", "foreign"]
