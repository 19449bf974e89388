"""Rule sets that change one thing at a time, and what the running observers make of them.

``three`` evaluates each rule set by a fresh observer. Here the guard's ``Side``, the agent's ``NodeJudge`` and the loop
of the watch follow a sequence of rule sets, each by its own detection of changes. After each change their state has to
be that of a fresh evaluation of the same rules, and the guard's copy the one that is learned from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random

from tests.unit.guard.flannels import NETWORK, SUBNET, damaged
from tests.unit.observe.foreign_tables import foreign_table
from tests.unit.observe.shared_answers import Answers
from tests.unit.observe.three import Node, agent_says, guard_says, random_node, random_rules
from tests.unit.semantics.random_rules import UPLINK
from tests.unit.watch import virtual

from hitless.agent.judge import NodeJudge
from hitless.agent.ports import AroundPort
from hitless.agent.runtime import SYSTEM
from hitless.guard import primaries
from hitless.guard.rule_copy import Unclear
from hitless.guard.side import Side
from hitless.guard.standby_rules import StandbyRules, learn
from hitless.kernel.clock import Clock
from hitless.model.families import Family
from hitless.model.rules import Accept, Action, Chain, Dnat, Drop, Hook, NoTrack, Return, Rule, Ruleset, Source, Table
from hitless.model.standby import without_guard
from hitless.observe import Asking, Judge, LocalPod, Witnesses
from hitless.observe.rules import Observation
from hitless.sources import FamilyNetworks, SourceSnapshot
from hitless.watch import Watch, WatchOptions
from hitless.watch.ports import World
from hitless.watch.profiles import load

STEPS = 8  # changes of a sequence
_MOST_TURNS = 50
_PRIMARY = primaries.load("flannel")
_PROFILE = load("flannel")
_TRANSLATORS = [(table.name, chain) for table in _PROFILE.tables for chain in table.networks_from]


# --- changes


def change(random: Random, family: Family, ruleset: Ruleset, whole: Ruleset) -> Ruleset:
    """One change: of a chain, of a base chain, of a table of others, or the primary's damage and repair."""
    kind = random.choice(("rules", "rules", "rules", "hook", "firewall", "proxy", "proxy", "damage", "repair", "noise"))
    tables = {(table.family, table.name, table.legacy): table for table in ruleset.tables}
    if kind in ("rules", "hook") and tables:
        table = random.choice(list(tables.values()))
        chains = [chain for chain in table.chains.values() if kind == "rules" or chain.hook is not None]
        if chains:
            chain = random.choice(chains)
            new = _other_rules(random, family, chain) if kind == "rules" else _other_hook(random, chain)
            tables[table.family, table.name, table.legacy] = replace(table, chains={**table.chains, chain.name: new})
    elif kind in ("firewall", "proxy", "noise"):
        gone = [key for key in tables if key[1] == kind]
        for key in gone:
            del tables[key]
        if not gone or random.random() < 0.5:
            table = _TABLES[kind](random, family)
            tables[table.family, table.name, table.legacy] = table
    elif kind == "damage":
        return damaged(random, ruleset)
    elif kind == "repair":
        kept = tables if random.random() < 0.5 else {}
        tables = kept | {(table.family, table.name, table.legacy): table for table in whole.tables}
    return Ruleset(tuple(tables.values()))


def _other_rules(random: Random, family: Family, chain: Chain) -> Chain:
    rules = list(chain.rules)
    if rules and random.random() < 0.5:
        rules.pop(random.randrange(len(rules)))
    else:
        source = Source(random.choice((NETWORK[family], SUBNET[family])))
        actions: list[Action] = (
            [Return(), Accept()] if chain.hook is not None and chain.hook.type == "nat" else [Drop(), Accept()]
        )
        rules.insert(random.randint(0, len(rules)), Rule((source, random.choice(actions))))
    return replace(chain, rules=tuple(rules))


def _other_hook(random: Random, chain: Chain) -> Chain:
    assert chain.hook is not None
    if chain.hook.type == "nat" or random.random() < 0.5:
        return replace(chain, hook=replace(chain.hook, priority=chain.hook.priority + random.choice((-5, 5))))
    return replace(chain, hook=replace(chain.hook, policy="drop" if chain.hook.policy != "drop" else "accept"))


def _proxy(random: Random, family: Family) -> Table:
    """Base chains of every type, with a rule or two for all packets, some of them through a chain of their own."""
    to = "10.42.1.9" if family is Family.IPV4 else "fd42:0:0:1::9"
    type_, hook, rules = random.choice((
        ("nat", "prerouting", (Rule((Dnat(to),)),)),
        ("nat", "prerouting", ()),
        ("filter", "prerouting", (Rule((NoTrack(),)),)),
        ("filter", "forward", (Rule((Drop(),)),)),
        ("filter", "postrouting", (Rule((Drop(),)),)),
    ))  # fmt: skip
    priority = -300 if type_ == "filter" and hook == "prerouting" else -101 if hook == "prerouting" else 50
    chain = Chain("proxying", rules, Hook(type_, hook, priority))
    return Table(random.choice((family.nft, "inet")), "proxy", {chain.name: chain})


def _noise(random: Random, family: Family) -> Table:
    """No packet passes it."""
    return Table(family.nft, "noise", {"C": Chain("C", (Rule((Drop(),)),) * random.randint(0, 2))})


_TABLES = {"firewall": lambda random, family: foreign_table(random, family), "proxy": _proxy, "noise": _noise}


# --- those that follow


class FollowingGuard:
    """A side, as the guard's loop calls it."""

    def __init__(self, family: Family, node: Node) -> None:
        self._family, self._node = family, node
        self._t = 0
        self.side = Side.of(family, _PRIMARY, (), node, None)
        self.passed_over = False

    def follow(self, ruleset: Ruleset, *, moved: bool) -> str:
        """The state after a change."""
        if moved:
            self.side.ask_again()
        self._t += 1
        self.passed_over = self.side.see(Observation(self._t, self._t, ruleset), 0, lambda: None) is None
        if self._t % 3 == 0:
            self.side.count(ruleset)
        if self.side.open or self.side.forward.open is not None:
            return "not_carried"
        return "cannot_tell" if self.side.doubt or self.side.forward_doubt else "carried"

    def fresh(self, ruleset: Ruleset) -> str:
        """The same without a history."""
        states = [guard_says(ruleset, place.network, place.subnet, self._node)[0] for place in self.side._places]
        return next((state for state in ("not_carried", "cannot_tell") if state in states), "carried")

    def stale_copy(self, ruleset: Ruleset) -> bool:
        """Whether it did not learn from a change what it could have learned."""
        return self.passed_over and self._learned(ruleset) != self.side._standby

    def _learned(self, ruleset: Ruleset) -> StandbyRules | None:
        try:
            return learn(without_guard(ruleset), self._family, _PRIMARY, uplink=self._node.uplink(self._family))
        except Unclear:
            return None


@dataclass
class _AgentRules:
    """The rules of the moment, around a node that may have changed at each reading."""

    node: Node
    current: Ruleset = field(default_factory=lambda: Ruleset(()))
    new: bool = True

    def changed(self, families: Collection[Family]) -> bool:
        was, self.new = self.new, False
        return was

    def everything(self, families: Collection[Family]) -> Ruleset:
        return self.current

    def around(self, families: Collection[Family]) -> AroundPort:
        return self.node

    def close(self) -> None:
        pass


class FollowingAgent:
    """What /readyz is made of, evaluated only where something has changed."""

    def __init__(self, family: Family, node: Node) -> None:
        self._family, self._rules = family, _AgentRules(node)
        networks = FamilyNetworks(NETWORK[family], SUBNET[family])
        self._snapshot = SourceSnapshot({family: networks}, masquerade=True)
        self._judge = NodeJudge(self._rules, SYSTEM)
        self._state = ""

    def follow(self, ruleset: Ruleset, *, moved: bool) -> str:
        """The state after a change."""
        self._rules.new = ruleset is not self._rules.current
        self._rules.current = ruleset
        found = self._judge.judge(self._snapshot, changed=False)
        if found is not None:
            self._state = found[self._family].state
        return self._state

    def fresh(self, ruleset: Ruleset) -> str:
        """The same without a history."""
        return agent_says(ruleset, NETWORK[self._family], SUBNET[self._family], self._rules.node)[0]


class _Around(Node):
    """Read anew each time that an observer asks."""

    def look(self, now: float) -> bool:
        return True


class _Feed(virtual.Node):
    """The ports of the watch, around the node of the others."""

    around: Node

    def witnesses(self, asking: Asking) -> Witnesses:
        return self.around.witnesses(asking)


class FollowingWatch:
    """The loop of the watch, in virtual time."""

    def __init__(self, family: Family, node: Node, ruleset: Ruleset) -> None:
        self._feed = feed = _Feed()
        feed.around = node
        feed.begin(ruleset.tables)
        feed.read()
        clock = Clock(0)
        clock.now = feed.now  # type: ignore[method-assign]
        options = WatchOptions(_PROFILE, networks=(NETWORK[family],), families=(family,), urgent=False)
        self._loop = Watch(options, clock, world=World(feed, feed, feed, feed))._loop  # type: ignore[arg-type]
        list(self._loop.begin())

    def follow(self, ruleset: Ruleset, *, moved: bool) -> str:
        """The state after a change. Legacy tables and other pods are found with the next heartbeat."""
        feed = self._feed
        tables = {(table.family, table.name, table.legacy): table for table in ruleset.tables}
        keys = list(dict.fromkeys((*feed.rules, *tables)))
        feed.write([tables.get(key) for key in keys], keys, None)
        found_late = moved or (not feed.legacy and any(table.legacy for table in ruleset.tables))
        feed.horizon = feed.seconds + (1.5 if found_late else 0.0)
        for _ in range(_MOST_TURNS):
            list(self._loop.turn())
            if not feed.backlog and feed.seconds >= feed.horizon:
                break
        (watched,) = self._loop._networks
        return str(watched.tracker.state)

    def fresh(self, ruleset: Ruleset) -> str:
        """The same without a history."""
        (watched,) = self._loop._networks
        assert set(map(id, self._feed.current.tables)) == set(map(id, ruleset.tables)), "the feed is behind"
        return Judge(watched.network, watched.judge.witnesses, _TRANSLATORS).answer(self._feed.current).state


# --- the property


def _primary_rules(random: Random, family: Family) -> Ruleset:
    """Mostly rules from which a guard learns: without pods, it has nothing to evaluate."""
    for _ in range(random.choice((1, 10))):
        ruleset = random_rules(random, family)
        with suppress(Unclear):
            if learn(ruleset, family, _PRIMARY, uplink=UPLINK).places:
                break
    return ruleset


def _pods(random: Random, family: Family) -> tuple[tuple[LocalPod, ...], str]:
    node = random_node(random, family)
    return node.pods, node.way


def stale(seed: str, count: int, tally: Counter[str]) -> Iterator[str]:
    """Follow so many sequences; each state that is not that of a fresh evaluation, as a text."""
    answers = Answers()
    for number in range(count):
        random = Random(f"{seed} {number}")
        family = random.choice(list(Family))
        whole, node = _primary_rules(random, family), _Around(*_pods(random, family))
        guard = FollowingGuard(family, node)
        followers: dict[str, FollowingGuard | FollowingAgent | FollowingWatch] = {
            "watch": FollowingWatch(family, node, whole), "agent": FollowingAgent(family, node), "guard": guard,
        }  # fmt: skip
        ruleset, before = whole, dict[str, str]()
        for step in range(STEPS):
            moved = step > 0 and random.random() < 0.2
            if moved:
                node.pods, node.way = _pods(random, family)
            elif step:
                ruleset = change(random, family, ruleset, whole)
            answers.begin(ruleset)
            with answers.shared():
                states = {name: each.follow(ruleset, moved=moved) for name, each in followers.items()}
                fresh = {name: each.fresh(ruleset) for name, each in followers.items()}
            tally["steps"] += 1
            tally["guard passed over"] += guard.passed_over
            tally["guard has no pods"] += not guard.side._places
            tally["states changed"] += states != before
            tally.update(f"{name} {state}" for name, state in states.items())
            before = states
            where = f"{seed} {number}, step {step}"
            if states != fresh:
                yield f"{where}: {states} instead of {fresh}"
            if guard.stale_copy(ruleset):
                yield f"{where}: the guard did not learn from a change"
