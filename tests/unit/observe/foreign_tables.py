"""A random foreign table, made of what ``random_rules`` does not draw: sets, marks of connections, maps, unknown
conditions."""

from __future__ import annotations

from random import Random

from tests.unit.guard.flannels import NETWORK, OTHER, SUBNET
from tests.unit.semantics.random_rules import POD_IN, UPLINK

from hitless.model.families import Family
from hitless.model.packets import TCP, UDP
from hitless.model.reading import packed_network
from hitless.model.rules import (
    Accept,
    Action,
    AnyOf,
    Chain,
    ConnMark,
    Destination,
    DestinationPort,
    Drop,
    Goto,
    Hook,
    InInterface,
    Jump,
    Mark,
    Match,
    NoTrack,
    Opaque,
    OutInterface,
    Protocol,
    Reject,
    Return,
    Rule,
    SetConnMark,
    SetMark,
    SetMember,
    Source,
    Table,
)


def _condition(random: Random, family: Family) -> Match:
    negated = random.random() < 0.25
    hosts = [SUBNET[family][number] for number in (10, 11, 0x20, 77)]
    networks = [packed_network(host.packed, host.max_prefixlen) for host in hosts]
    pool = [*networks, SUBNET[family], NETWORK[family], OTHER[family]]
    kind = random.randrange(9)
    if kind <= 3:
        members = frozenset(random.sample(pool, random.randint(1, 3)))
        return SetMember(f"set{kind}", random.choice(("src", "src", "dst")), members, negated)
    if kind == 4:
        groups: list[tuple[Match, ...]] = [
            (Source(random.choice(pool)), OutInterface(random.choice((UPLINK, "eth9")))),
            (InInterface(random.choice((POD_IN, "lan0"))), Protocol(random.choice((TCP, UDP)))),
            (Protocol(TCP), DestinationPort(443, 443)),
        ]
        return AnyOf(tuple(random.sample(groups, random.randint(1, 2))), negated, random.choice(("", "pairs")))
    if kind == 5:
        return ConnMark(random.choice((0, 1, 0x10)), random.choice((0x1, 0x1F, 0xFFFFFFFF)), negated)
    if kind == 6:
        return Mark(random.choice((0, 1, 0x4000)), random.choice((0x1, 0x4000)), negated)
    if kind == 7:
        return Opaque("something that nobody knows")
    return random.choice((Source, Destination))(random.choice(pool), negated)


def _action(random: Random, hook: str, callee: str) -> Action:
    refusing: list[Action] = [Drop(), Reject()] if hook == "forward" else [Drop(), NoTrack()]
    if hook == "postrouting":
        refusing = [Drop()]
    choices: list[Action] = [
        *refusing, Accept(), Accept(), Return(), SetMark(0x4000, 0x4000), SetMark(1, 1), SetConnMark(1, 1),
    ]  # fmt: skip
    if callee:
        choices += [Jump(callee), Jump(callee), Goto(callee)]
    return random.choice(choices)


def _rules(random: Random, family: Family, hook: str, callee: str) -> tuple[Rule, ...]:
    made = []
    for _ in range(random.randint(1, 3)):
        conditions = [_condition(random, family) for _ in range(random.choice((1, 1, 2)))]
        made.append(Rule((*conditions, _action(random, hook, callee))))
    return tuple(made)


def foreign_table(random: Random, family: Family) -> Table:
    """A firewall's table: base chains at some hooks, each with a chain of its own to jump to."""
    chains: dict[str, Chain] = {}
    for hook in random.sample(("prerouting", "forward", "postrouting"), random.choice((1, 1, 2))):
        callee = f"{hook}-more" if random.random() < 0.6 else ""
        if callee:
            chains[callee] = Chain(callee, _rules(random, family, hook, ""))
        priority = -300 if hook == "prerouting" else random.choice((-10, 0, 10))
        policy = "drop" if random.random() < 0.05 else "accept"
        chains[hook] = Chain(hook, _rules(random, family, hook, callee), Hook("filter", hook, priority, policy))
    return Table(random.choice((family.nft, "inet")), "firewall", chains)
