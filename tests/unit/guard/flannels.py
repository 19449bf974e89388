"""Primary rule sets as model values: flannel's, whole and damaged, among other people's rules."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from random import Random

from tests.unit.semantics.random_rules import random_iptables, random_nft

from hitless.model.families import Family, Network
from hitless.model.rules import (
    Accept,
    Chain,
    Comment,
    Destination,
    Hook,
    Jump,
    Mark,
    Masquerade,
    Return,
    Rule,
    Ruleset,
    SetMark,
    Source,
    Table,
)

NETWORK: dict[Family, Network] = {Family.IPV4: ip_network("10.42.0.0/16"), Family.IPV6: ip_network("fd42::/48")}
SUBNET: dict[Family, Network] = {Family.IPV4: ip_network("10.42.1.0/24"), Family.IPV6: ip_network("fd42:0:0:1::/64")}
OTHER: dict[Family, Network] = {Family.IPV4: ip_network("10.99.0.0/16"), Family.IPV6: ip_network("fd99::/48")}
HOOK = Hook("nat", "postrouting", 100)
OURS = Comment("flanneld masq")
JUMP = Rule((OURS, Jump("FLANNEL-POSTRTG")))


def flannel_rules(family: Family, network: Network | None = None, subnet: Network | None = None) -> tuple[Rule, ...]:
    net, part = network or NETWORK[family], subnet or SUBNET[family]
    masquerade = Masquerade(random_fully=True)
    return (
        Rule((Mark(0x4000, 0x4000), OURS, Return())),
        Rule((Source(part), Destination(net), OURS, Return())),
        Rule((Source(net), Destination(part), OURS, Return())),
        Rule((Source(net, True), Destination(part), OURS, Return())),
        Rule((Source(net), Destination(family.multicast, True), OURS, masquerade)),
        Rule((Source(net, True), Destination(net), OURS, masquerade)),
    )


KUBE = (
    Rule((Mark(0x4000, 0x4000, True), Return())),
    Rule((SetMark(0x4000, 0),)),
    Rule((Masquerade(random_fully=True),)),
)


def nat(
    family: Family = Family.IPV4,
    *,
    chain: tuple[Rule, ...] | None = None,
    front: tuple[Rule, ...] = (),
    jump: bool = True,
    behind: tuple[Rule, ...] = (),
    legacy: bool = False,
    more: tuple[Chain, ...] = (),
) -> Ruleset:
    """A node's nat table: kube-proxy's part, flannel's, and whatever is put in front of it or behind."""
    base = (*front, Rule((Jump("KUBE-POSTROUTING"),)), *((JUMP,) if jump else ()), *behind)
    chains = [
        Chain("POSTROUTING", base, HOOK),
        Chain("KUBE-POSTROUTING", KUBE),
        Chain("FLANNEL-POSTRTG", flannel_rules(family) if chain is None else chain),
        *more,
    ]
    return Ruleset((Table(family.nft, "nat", {each.name: each for each in chains}, legacy),))


def native(family: Family = Family.IPV4, chain: tuple[Rule, ...] | None = None) -> Ruleset:
    """Flannel's own nftables table."""
    rules = flannel_rules(family) if chain is None else chain
    return Ruleset((Table(family.nft, f"flannel-{family}", {"postrtg": Chain("postrtg", rules, HOOK)}),))


def random_primary(random: Random, family: Family) -> Ruleset:
    """Flannel's chain, or native table, in the middle of random rules of others."""
    own = list(flannel_rules(family))
    for _ in range(random.choice((0, 0, 1, 2))):
        extra = random.choice(
            (
                Rule((Destination(random.choice((OTHER[family], NETWORK[family]))), Return())),
                Rule((Source(random.choice((OTHER[family], SUBNET[family]))), Mark(0x1, 0x1), Return())),
                Rule((Source(OTHER[family]), Masquerade())),
                Rule((Destination(OTHER[family]), Accept())),
            )
        )
        own.insert(random.randint(0, len(own)), extra)
    if random.random() < 0.25:
        others = random_nft(random, family)
        return Ruleset((*native(family, tuple(own)).tables, *others))
    table = next(table for table in random_iptables(random, family) if table.name == "nat")
    chains = dict(table.chains)
    base = chains["POSTROUTING"]
    at = random.randint(0, len(base.rules))
    chains["POSTROUTING"] = replace(base, rules=(*base.rules[:at], JUMP, *base.rules[at:]))
    chains["FLANNEL-POSTRTG"] = Chain("FLANNEL-POSTRTG", tuple(own))
    return Ruleset((replace(table, chains=chains, legacy=random.random() < 0.3),))


def damaged(random: Random, ruleset: Ruleset) -> Ruleset:
    """What restarts, flushes and foreign tools leave of it."""
    kind = random.choice(("emptied", "emptied", "jump", "base", "table"))
    tables = []
    for table in ruleset.tables:
        if "FLANNEL-POSTRTG" not in table.chains and "postrtg" not in table.chains:
            tables.append(table)
            continue
        chains = dict(table.chains)
        name = "FLANNEL-POSTRTG" if "FLANNEL-POSTRTG" in chains else "postrtg"
        base = "POSTROUTING" if "POSTROUTING" in chains else name
        if kind == "table":
            continue
        if kind == "emptied":
            chains[name] = replace(chains[name], rules=())
        elif kind == "jump":
            chains[base] = replace(chains[base], rules=tuple(rule for rule in chains[base].rules if rule != JUMP))
            chains[name] = replace(chains[name], rules=())
        else:
            chains[base] = replace(chains[base], rules=())
        tables.append(replace(table, chains=chains))
    return Ruleset(tuple(tables))
