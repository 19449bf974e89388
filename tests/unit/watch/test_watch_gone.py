"""A translating chain that is gone is the reason, and not one of the chains that are always empty."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from hitless.model.rules import Chain, Drop, Hook, Jump, Masquerade, Rule, Ruleset, Source, Step, Table
from hitless.observe import Asking, NodeView, find
from hitless.observe.judging import Judge

NETWORK = ip_network("10.42.0.0/16")


def rule(*steps: Step) -> Rule:
    return Rule(steps)


POST = Chain("POSTROUTING", (rule(Jump("cali-nat-outgoing")),), Hook("nat", "postrouting", 100))
FELIX = Chain("cali-nat-outgoing", ())
FLANNEL = Chain("FLANNEL-POSTRTG", (rule(Source(NETWORK), Masquerade()),))
OTHER = Chain("mine", (rule(Masquerade()),), Hook("nat", "postrouting", 110))
WALL = Chain("wall", (rule(Drop()),), Hook("filter", "forward", 0))


def nat(*chains: Chain, name: str = "nat") -> Table:
    return Table("ip", name, {chain.name: chain for chain in chains}, False)


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ((nat(POST, FELIX),), "there is no chain FLANNEL-POSTRTG, and no other chain translates it"),
        ((nat(POST, FELIX, FLANNEL),), "no jump from POSTROUTING leads to FLANNEL-POSTRTG"),
        ((nat(POST, FELIX, name="other"),), "chain cali-nat-outgoing is empty"),
        ((nat(POST, FELIX), nat(WALL, name="wall")), "wall rule 1 (ip wall) drops it"),
        ((), "no NAT chain stands at postrouting for IPv4"),
    ],
)
def test_the_reason_of_a_gap_names_the_chain_that_is_gone(tables: tuple[Table, ...], reason: str) -> None:
    judge = Judge(NETWORK, find(Asking(NETWORK), NodeView(), lambda *_: ""), [("nat", "FLANNEL-POSTRTG")])
    answer = judge.answer(Ruleset(tables))
    assert (answer.state, answer.reason) == ("not_carried", reason)


def test_a_chain_that_is_gone_and_not_missed_is_no_gap() -> None:
    judge = Judge(NETWORK, find(Asking(NETWORK), NodeView(), lambda *_: ""), [("nat", "FLANNEL-POSTRTG")])
    assert judge.answer(Ruleset((nat(POST, FELIX), nat(OTHER, name="mine")))).state == "carried"
