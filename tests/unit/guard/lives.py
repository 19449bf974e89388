"""Random lives of a guard: rules come and go, calls fail, events are lost, time passes, guards die.

After every step the invariants are checked: a broken one is an ``AssertionError``.

- other programs' rules are never touched;
- the standby translates only what the primary's rules meant at some time, and the kernel holds what was decided;
- missing rules are no reason to withdraw, and flows that were bound in a gap are freed at its end;
- a new guard takes over the tables of the one that died;
- with whole rules and without failures the standby comes to be what the rules mean.

``defects`` plants mistakes in the guard, each of which these find.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.unit.guard.flannels import JUMP, OTHER, flannel_rules, nat
from tests.unit.guard.worlds import CARRIED, LEAKED, Death, Guarded, World
from tests.unit.histories import Action, Kind

from hitless.errors import KernelError
from hitless.guard import records
from hitless.guard.loop import GuardSettings
from hitless.guard.primaries import load
from hitless.guard.reasons import Code
from hitless.guard.standby_rules import StandbyRules, learn
from hitless.guard.standby_table import found_in
from hitless.guard.statements import Statement
from hitless.model.events import Writer
from hitless.model.families import Family
from hitless.model.rules import Chain, Destination, Drop, Hook, Masquerade, Return, Rule, Ruleset, Snat, Source, Table

PRIMARY = load("flannel")
SETTLED = 12.0  # seconds after which, with whole rules and nothing failing, everything is as it should be
_OFF = Statement(False, "flanneld runs with --ip-masq=false")
_STATEMENTS = {"nothing": None, "off": _OFF, "on": Statement(True, "flanneld runs with --ip-masq")}
_WRITERS = ("a", "b", "c")
_NOISE = {
    (family, number, rules): Table(family.nft, f"noise{number}", {"C": Chain("C", (JUMP,) * rules)})
    for family in Family
    for number in range(4)
    for rules in range(3)
}
_DROP = Table("ip", "filter", {"FORWARD": Chain("FORWARD", (Rule((Drop(),)),), Hook("filter", "forward", 0))})


class Life:
    """One node and its guards, one after the other."""

    def __init__(self, *, dual: bool = False) -> None:
        families = tuple(Family) if dual else (Family.IPV4,)
        self.world = World(families=families)
        self.tally: Counter[str] = Counter()
        self._leaked = False  # packets that should have been translated, in spite of a standby
        self._wholes = {family: nat(family).tables for family in families}
        self._damaged = {family: _damaged(family) for family in families}
        self.world.others = dict(self._wholes)
        self._known: dict[tuple[Family, tuple[int, ...]], StandbyRules] = {}
        self._meant: dict[Family, set[tuple[Chain, ...]]] = {family: {()} for family in families}
        self._read: dict[Family, tuple[Table, tuple[Chain, ...]]] = {}
        self.guard = self._born()

    # --- what happens

    def step(self, action: str, **values: Any) -> None:
        """Something happens, and the guard turns."""
        self.tally[action] += 1
        self.tally["steps"] += 1
        before, said, failing = self.guard.reporter.recent, self.world.said, self.world.failing_reads
        try:
            getattr(self, action)(**values)
            others = {family: self.world.others[family] for family in self.world.families}
            self.guard.loop.turn()
            while self.world.queue:
                self.guard.loop.turn()
        except Death:
            self._dies()
        else:
            assert others == self.world.others, "somebody else's rules were touched"
            if action != "events_are_lost":
                new = [one for one in self.guard.reporter.recent if all(one is not other for other in before)]
                self._check_new(new, {said, self.world.said}, failed=bool(failing or self.world.failing_reads))
        self._check()

    def settle(self) -> None:
        """Whole rules, nothing fails, and time passes: the standby is what the rules mean."""
        self.world.failing_writes = self.world.failing_reads = 0
        self.world.die_at, self.world.said = -1, None
        for family in self.world.families:
            self._commit(family, self._wholes[family])
        self.guard.run(SETTLED)
        for family in self.world.families:
            if self.guard.loop.sides[family].withdrawn is None:
                learned = self._learned(family, self._wholes[family]).chains
                assert self._standing(family) == learned, f"the {family.value} standby is not what the rules mean"
                assert not self.guard.loop.sides[family].open, f"a gap of {family.value} that is over is still open"
        assert self.guard.reporter.problem == "", self.guard.reporter.problem
        self.tally["settled"] += 1

    def _born(self) -> Guarded:
        self.tally["guards"] += 1
        made = Guarded(self.world, None, settings=GuardSettings(families=self.world.families))
        for family in self.world.families:
            self._meant[family].add(self._learned(family, self.world.others[family]).chains)
        try:
            made.loop.begin()
        except (Death, KernelError):  # the unit starts it again
            self.tally["deaths"] += 1
            return self._born()
        return made

    def _dies(self) -> None:
        self.tally["deaths"] += 1
        stood = {family: (table, self._standing(family)) for family, table in self.world.written.items()}
        excused = bool(self.world.failing_writes or self.world.said == _OFF or self._leaked)
        self.guard = self._born()
        for family, (table, chains) in stood.items():
            assert family in self.world.written, f"a new guard took away {table.name}"
            kept = excused or not chains or self._standing(family)
            assert kept, f"a new guard emptied the {family.value} standby"

    def time_goes_on(self, seconds: float) -> None:
        self.guard.run(seconds)

    def _family(self, number: int) -> Family:
        return self.world.families[number % len(self.world.families)]

    def damage(self, family: int, number: int, writer: str) -> None:
        """Damage, exemptions, another subnet, forwarding."""
        chosen = self._family(family)
        self._commit(chosen, self._damaged[chosen][number], writer)

    def repair(self, family: int, writer: str) -> None:
        chosen = self._family(family)
        self._commit(chosen, self._wholes[chosen], writer)

    def _commit(self, family: Family, tables: tuple[Table, ...], writer: str = "a") -> None:
        self._meant[family].add(self._learned(family, tables).chains)
        self.world.commit(family, tables, Writer(_WRITERS.index(writer) + 1, writer))

    def noise(self, family: int, number: int, rules: int) -> None:
        """Somebody else's table changes."""
        chosen = self._family(family)
        noise = _NOISE[chosen, number, rules]
        kept = tuple(table for table in self.world.others[chosen] if table.name != noise.name)
        self.world.commit(chosen, (*kept, noise))

    def traffic(self, family: int, packets: int, leaks: bool) -> None:
        """Only what could really happen: the standby carries what the primary does not."""
        chosen = self._family(family)
        carries = bool(self._learned(chosen, self.world.others[chosen]).places)
        if not carries and self._standing(chosen):
            self.world.traffic(chosen, CARRIED, packets)
        elif leaks:
            self.world.traffic(chosen, LEAKED, 1)
            self._leaked = True

    def flows_are_poisoned(self, family: int, count: int) -> None:
        self.world.poisoned[self._family(family)] = count

    def calls_fail(self, writes: int, reads: int) -> None:
        self.world.failing_writes, self.world.failing_reads = writes, reads

    def events_are_lost(self) -> None:
        self.world.event(lost=True)

    def table_is_deleted(self, family: int) -> None:
        self.world.vandal(self._family(family))

    def agent_states(self, masquerade: str) -> None:
        self.world.said = _STATEMENTS[masquerade]

    def pods_change(self) -> None:
        self.world.other_pods = set(self.world.families)

    def death(self, calls: int) -> None:
        self.world.die_at = self.world.calls + calls

    def close(self) -> None:
        """Nothing to end."""

    # --- what must always be true

    def _check(self) -> None:
        for family in self.world.families:
            chains = self._standing(family)
            if any(
                isinstance(step, Masquerade | Snat) for chain in chains for rule in chain.rules for step in rule.steps
            ):
                assert chains in self._meant[family], "the standby says what the primary never meant"
            side, reporter = self.guard.loop.sides[family], self.guard.reporter
            if not reporter.problem:
                wanted = side.installed.chains if side.installed is not None else ()
                assert chains == wanted, "what stands is not what was decided"
            numbers = reporter.numbers[family]
            assert sum(numbers.gaps.values()) >= numbers.uncovered, "more uncovered gaps than gaps"
        self._check_records()

    def _check_new(self, recent: list[records.Record], said: set[Statement | None], *, failed: bool) -> None:
        """What was reported in this step: missing rules are no reason to withdraw, and a gap's flows are freed."""
        for record in recent:
            self.tally[f"{record.__struct_config__.tag} records"] += 1
            if isinstance(record, records.Withdrawn):
                stated = record.code is Code.SWITCHED_OFF and _OFF in said
                contradicted = record.code is Code.CONTRADICTED
                assert stated or contradicted, f"withdrawn without a statement: {record.why}"
            elif isinstance(record, records.GuardGap) and not record.open and not failed:
                family = Family(record.family)
                guarded = self.guard.loop.sides[family].installed is not None
                poisoned = self.world.poisoned.get(family, 0) if guarded else 0
                assert not poisoned, f"{poisoned} flows were not freed after a gap"

    def _check_records(self) -> None:
        for record in self.guard.reporter.recent:
            begin, end = getattr(record, "begin", 0), getattr(record, "end", 0)
            assert begin <= end <= self.world.now(), f"{record}"

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

    def _learned(self, family: Family, tables: tuple[Table, ...]) -> StandbyRules:
        """What tables mean, each set of them looked at once."""
        kept = tuple(table for table in tables if not table.name.startswith("noise"))
        key = family, tuple(map(id, kept))  # there are a few of them, and they live as long as this does
        if key not in self._known:
            self._known[key] = learn(Ruleset(kept), family, PRIMARY, uplink="eth0")
        return self._known[key]


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


_FAMILIES, _BY = (0, 1), _WRITERS
ACTIONS = (
    Action("time_goes_on", 40, {"seconds": (0.01, 0.3, 1.0, 3.0)}),
    Action("noise", 15, {"family": _FAMILIES, "number": range(4), "rules": range(3)}),
    Action("traffic", 12, {"family": _FAMILIES, "packets": (1, 5), "leaks": (False,) * 9 + (True,)}),
    Action("damage", 8, {"family": _FAMILIES, "number": range(7), "writer": _BY}),
    Action("repair", 6, {"family": _FAMILIES, "writer": _BY}),
    Action("flows_are_poisoned", 5, {"family": _FAMILIES, "count": (1, 5)}),
    Action("events_are_lost", 3),
    Action("pods_change", 3),
    Action("calls_fail", 2, {"writes": range(3), "reads": range(3)}),
    Action("agent_states", 2, {"masquerade": tuple(_STATEMENTS)}),
    Action("table_is_deleted", 1, {"family": _FAMILIES}),
    Action("death", 1, {"calls": range(1, 7)}),
)
KIND = Kind(Life, ACTIONS, {"dual": (False, True)}, 500, ("deaths", "gap records", "withdrawn records", "settled"))
