"""Random lives of a guard, by a seed: rules come and go, calls fail, events are lost, time passes, guards die.

After every step the invariants are checked: a broken one is an ``AssertionError`` that names the seed.
"""

from __future__ import annotations

from random import Random

from tests.unit.guard.flannels import JUMP, OTHER, flannel_rules, nat
from tests.unit.guard.worlds import CARRIED, LEAKED, Death, Guarded, World

from hitless.errors import KernelError
from hitless.guard import records
from hitless.guard.learning import Standby, learn
from hitless.guard.loop import Settings
from hitless.guard.primaries import load
from hitless.guard.reasons import Code
from hitless.guard.standby_table import found_in
from hitless.guard.statements import Statement
from hitless.model.events import Writer
from hitless.model.families import Family
from hitless.model.rules import Chain, Destination, Drop, Hook, Masquerade, Return, Rule, Ruleset, Snat, Source, Table

PRIMARY = load("flannel")
_KINDS = {
    "time": 40, "noise": 15, "traffic": 12, "rules": 8, "whole": 6, "poison": 5, "lost": 3, "pods": 3, "failure": 2,
    "said": 2, "vandal": 1, "death": 1,
}  # fmt: skip
SETTLED = 12.0  # seconds after which, with whole rules and nothing failing, everything is as it should be
_OFF = Statement(False, "flanneld runs with --ip-masq=false")
_DROP = Table("ip", "filter", {"FORWARD": Chain("FORWARD", (Rule((Drop(),)),), Hook("filter", "forward", 0))})


class Life:
    """One node and its guards, one after the other."""

    def __init__(self, seed: int, *, families: tuple[Family, ...] = (Family.IPV4,)) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.world = World(families=families)
        self.steps = self.guards = self.deaths = 0
        self._leaked = False  # packets that should have been translated, in spite of a standby
        self._wholes = {family: nat(family).tables for family in families}
        self._damaged = {family: _damaged(family) for family in families}
        self.world.others = dict(self._wholes)
        self._known: dict[tuple[Family, tuple[int, ...]], Standby] = {}
        self._meant: dict[Family, set[tuple[Chain, ...]]] = {family: {()} for family in families}
        self._read: dict[Family, tuple[Table, tuple[Chain, ...]]] = {}
        self.guard = self._born()

    # --- what happens

    def step(self) -> None:
        """Something happens, and the guard turns."""
        self.steps += 1
        (kind,) = self.random.choices(list(_KINDS), list(_KINDS.values()))
        before, said, failing = self.guard.reporter.recent, self.world.said, self.world.failing_reads
        try:
            getattr(self, f"_{kind}")()
            others = {family: self.world.others[family] for family in self.world.families}
            self.guard.loop.turn()
            while self.world.queue:
                self.guard.loop.turn()
        except Death:
            self._dies()
        else:
            assert others == self.world.others, f"{self.seed}: somebody else's rules were touched"
            if kind != "lost":
                new = [one for one in self.guard.reporter.recent if all(one is not other for other in before)]
                self._check_new(new, {said, self.world.said}, failed=bool(failing or self.world.failing_reads))
        self._check()

    def forget(self) -> None:
        """Let go of everything but the numbers."""
        self._known.clear()
        self._meant.clear()
        self._read.clear()
        self.world.written.clear()
        self.world.others.clear()
        del self.guard

    def settle(self) -> None:
        """Whole rules, nothing fails, and time passes: the standby is what the rules mean."""
        self.world.failing_writes = self.world.failing_reads = 0
        self.world.die_at, self.world.said = -1, None
        for family in self.world.families:
            self._commit(family, self._wholes[family])
        self.guard.run(SETTLED)
        for family in self.world.families:
            if self.guard.loop.sides[family].withdrawn is None:
                assert self._standing(family) == self._learned(family, self._wholes[family]).chains, self.seed
                assert not self.guard.loop.sides[family].open, self.seed
        assert self.guard.reporter.problem == "", self.seed

    def _born(self) -> Guarded:
        self.guards += 1
        made = Guarded(self.world, None, settings=Settings(families=self.world.families))
        for family in self.world.families:
            self._meant[family].add(self._learned(family, self.world.others[family]).chains)
        try:
            made.loop.begin()
        except (Death, KernelError):  # the unit starts it again
            self.deaths += 1
            return self._born()
        return made

    def _dies(self) -> None:
        self.deaths += 1
        stood = {family: (table, self._standing(family)) for family, table in self.world.written.items()}
        excused = bool(self.world.failing_writes or self.world.said == _OFF or self._leaked)
        self.guard = self._born()
        for family, (table, chains) in stood.items():
            assert family in self.world.written, f"{self.seed}: a new guard took away {table.name}"
            kept = excused or not chains or self._standing(family)
            assert kept, f"{self.seed}: a new guard emptied the {family.value} standby"

    def _time(self) -> None:
        self.guard.run(self.random.choice((0.01, 0.3, 1.0, 3.0)))

    def _family(self) -> Family:
        return self.random.choice(self.world.families)

    def _rules(self) -> None:
        """Damage, exemptions, another subnet, forwarding."""
        family = self._family()
        self._commit(family, self.random.choice(self._damaged[family]))

    def _whole(self) -> None:
        family = self._family()
        self._commit(family, self._wholes[family])

    def _commit(self, family: Family, tables: tuple[Table, ...]) -> None:
        self._meant[family].add(self._learned(family, tables).chains)
        self.world.commit(family, tables, Writer(self.random.randint(1, 9), self.random.choice("abc")))

    def _noise(self) -> None:
        """Somebody else's table changes."""
        family = self._family()
        name = f"noise{self.random.randint(0, 3)}"
        noise = Table(family.nft, name, {"C": Chain("C", (JUMP,) * self.random.randint(0, 2))})
        kept = tuple(table for table in self.world.others[family] if table.name != name)
        self.world.commit(family, (*kept, noise))

    def _traffic(self) -> None:
        """Only what could really happen: the standby carries what the primary does not."""
        family = self._family()
        carries = bool(self._learned(family, self.world.others[family]).places)
        if not carries and self._standing(family):
            self.world.traffic(family, CARRIED, self.random.randint(1, 5))
        elif self.random.random() < 0.1:
            self.world.traffic(family, LEAKED, 1)
            self._leaked = True

    def _poison(self) -> None:
        self.world.poisoned[self._family()] = self.random.randint(1, 5)

    def _failure(self) -> None:
        self.world.failing_writes, self.world.failing_reads = self.random.randint(0, 2), self.random.randint(0, 2)

    def _lost(self) -> None:
        self.world.event(lost=True)

    def _vandal(self) -> None:
        self.world.vandal(self._family())

    def _said(self) -> None:
        self.world.said = self.random.choice((None, _OFF, Statement(True, "flanneld runs with --ip-masq")))

    def _pods(self) -> None:
        self.world.other_pods = set(self.world.families)

    def _death(self) -> None:
        self.world.die_at = self.world.calls + self.random.randint(1, 6)

    # --- what must always be true

    def _check(self) -> None:
        for family in self.world.families:
            chains = self._standing(family)
            if any(
                isinstance(step, Masquerade | Snat) for chain in chains for rule in chain.rules for step in rule.steps
            ):
                assert chains in self._meant[family], f"{self.seed}: the standby says what the primary never meant"
            side, reporter = self.guard.loop.sides[family], self.guard.reporter
            if not reporter.problem:
                wanted = side.installed.chains if side.installed is not None else ()
                assert chains == wanted, f"{self.seed}: what stands is not what was decided"
            numbers = reporter.numbers[family]
            assert sum(numbers.gaps.values()) >= numbers.uncovered, self.seed
        self._check_records()

    def _check_new(self, recent: list[records.Record], said: set[Statement | None], *, failed: bool) -> None:
        """What was reported in this step: missing rules are no reason to withdraw, and a gap's flows are freed."""
        for record in recent:
            if isinstance(record, records.Withdrawn):
                stated = record.code is Code.SWITCHED_OFF and _OFF in said
                contradicted = record.code is Code.CONTRADICTED
                assert stated or contradicted, f"{self.seed}: withdrawn without a statement: {record.why}"
            elif isinstance(record, records.Gap) and not record.open and not failed:
                family = Family(record.family)
                guarded = self.guard.loop.sides[family].installed is not None
                poisoned = self.world.poisoned.get(family, 0) if guarded else 0
                assert not poisoned, f"{self.seed}: {poisoned} flows were not freed after a gap"

    def _check_records(self) -> None:
        for record in self.guard.reporter.recent:
            begin, end = getattr(record, "begin", 0), getattr(record, "end", 0)
            assert begin <= end <= self.world.now(), f"{self.seed}: {record}"

    def _standing(self, family: Family) -> tuple[Chain, ...]:
        table = self.world.written.get(family)
        if table is None:
            return ()
        known = self._read.get(family)
        if known is None or known[0] is not table:
            there = found_in(Ruleset((table,)), family, "eth0")
            known = table, there.standby.chains if there is not None and there.standby is not None else ()
            self._read[family] = known
        return known[1]

    def _learned(self, family: Family, tables: tuple[Table, ...]) -> Standby:
        """What tables mean, each set of them looked at once."""
        kept = tuple(table for table in tables if not table.name.startswith("noise"))
        key = family, tuple(map(id, kept))  # there are a few of them, and they live as long as this does
        if key not in self._known:
            self._known[key] = learn(Ruleset(kept), family, PRIMARY, uplink="eth0")
        return self._known[key]


def of(seed: int) -> Life:
    """The life of a seed: every other one has both families."""
    return Life(seed, families=tuple(Family) if seed % 2 else (Family.IPV4,))


def _damaged(family: Family) -> tuple[tuple[Table, ...], ...]:
    rules = flannel_rules(family)
    exempt = Rule((Destination(OTHER[family]), Return()))
    whole = nat(family).tables
    return (
        nat(family, chain=()).tables,
        nat(family, jump=False).tables,
        nat(family, chain=rules[:3]).tables,
        nat(family, chain=(exempt, *rules)).tables,
        nat(family, front=(Rule((Source(OTHER[family]), Masquerade())),)).tables,
        (*whole, _DROP) if family is Family.IPV4 else whole,
        (),
    )
