"""Reasons on a crowded node: chains that are empty on every healthy node are not the cause."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest

from hitless.model.packets import Packet
from hitless.model.rules import (
    Chain,
    Destination,
    Hook,
    Jump,
    Mark,
    Masquerade,
    OutInterface,
    Return,
    Rule,
    Ruleset,
    SetMark,
    Source,
    Step,
    Table,
)
from hitless.semantics import Outcome, evaluate

NETWORK, MULTICAST, OTHER = map(ip_network, ("10.42.0.0/16", "224.0.0.0/4", "10.99.0.0/16"))
POD = Packet(ip_address("10.42.1.10"), ip_address("198.51.100.1"), iif="veth0")


def rule(*steps: Step) -> Rule:
    return Rule(steps)


KUBE = (rule(Mark(0x4000, 0x4000, negated=True), Return()), rule(SetMark(0x4000, 0)), rule(Masquerade()))
MASQUERADE = rule(Source(NETWORK), Destination(MULTICAST, negated=True), Masquerade())
FELIX = tuple(rule(Jump(name)) for name in ("cali-fip-snat", "cali-nat-outgoing"))
JUMPS = tuple(rule(Jump(name)) for name in ("cali-POSTROUTING", "KUBE-POSTROUTING", "FLANNEL-POSTRTG"))


def crowded(flannel: Sequence[Rule] | None, post: Sequence[Rule] = JUMPS) -> Outcome:
    chains = [
        Chain("POSTROUTING", tuple(post), Hook("nat", "postrouting", 100)),
        Chain("cali-POSTROUTING", FELIX),
        Chain("cali-fip-snat", ()),
        Chain("cali-nat-outgoing", ()),
        Chain("KUBE-POSTROUTING", KUBE),
    ]
    chains += [] if flannel is None else [Chain("FLANNEL-POSTRTG", tuple(flannel))]
    return evaluate(Ruleset((Table("ip", "nat", {chain.name: chain for chain in chains}),)), POD)


@pytest.mark.parametrize(
    ("flannel", "post", "reason"),
    [
        ((), JUMPS, "chain FLANNEL-POSTRTG is empty"),
        ((), (JUMPS[2], JUMPS[0], JUMPS[1]), "chain FLANNEL-POSTRTG is empty"),
        ((MASQUERADE,), JUMPS[:2], "no jump from POSTROUTING leads to FLANNEL-POSTRTG"),
        ((rule(Return()), MASQUERADE), JUMPS, "FLANNEL-POSTRTG rule 1 returns every packet"),
        ((rule(Source(OTHER), Masquerade()),), JUMPS, "no rule of FLANNEL-POSTRTG matches"),
    ],
)
def test_the_cause_is_named_and_not_a_chain_that_is_always_empty(
    flannel: Sequence[Rule] | None, post: Sequence[Rule], reason: str
) -> None:
    outcome = crowded(flannel, post)
    assert (outcome.state, outcome.reason) == ("not_carried", reason)


def test_a_condition_that_is_not_known_is_told_in_the_words_of_iptables() -> None:
    outcome = crowded([rule(OutInterface("flannel.1", negated=True), Masquerade())])
    assert (outcome.state, outcome.reason) == (
        "cannot_tell",
        "FLANNEL-POSTRTG rule 1 depends on what is not known here: ! -o flannel.1",
    )


def test_a_doubt_about_a_masqueraded_packet_has_a_reason() -> None:
    """More base chains of one priority behind the translation than orders can be tried. It once had no reason, and no
    answer: StopIteration."""
    post = Chain("POSTROUTING", (rule(Masquerade()),), Hook("nat", "postrouting", 100))
    later = [Chain(f"c{number}", (), Hook("filter", "postrouting", 150)) for number in range(4)]
    later.append(Chain("marking", (rule(SetMark(0x1, 0x1)),), Hook("filter", "postrouting", 150)))
    tables = (Table("ip", "nat", {"POSTROUTING": post}), Table("ip", "late", {chain.name: chain for chain in later}))
    outcome = evaluate(Ruleset(tables), POD)
    assert (outcome.state, outcome.reason) == ("cannot_tell", "several base chains of the same priority disagree")
