"""Prerouting: what certainly ends or hides a pod's packet there, and what a normal node has there without harm."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.unit.semantics.test_evaluate import NETWORK, POD, forward, nat, rule, table

from hitless.model.rules import (
    Accept,
    AddrType,
    Chain,
    CtState,
    Destination,
    Dnat,
    Drop,
    Hook,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    NoTrack,
    Opaque,
    OutInterface,
    Protocol,
    ReversePath,
    Rule,
    Ruleset,
    SetMark,
    Snat,
    Source,
    Table,
    TcpFlags,
)
from hitless.semantics import Outcome, evaluate

RAW, MANGLE, DSTNAT = (
    Hook("filter", "prerouting", -300),
    Hook("filter", "prerouting", -150),
    Hook("nat", "prerouting", -100),
)
CALICO = InInterface("cali+")
PACKET = replace(POD, iif="cali1", oif="eth0")


def early(*rules: Rule, hook: Hook = RAW, policy: str = "accept") -> Table:
    return table("early", Chain("PREROUTING", rules, replace(hook, policy=policy)))


def ask(*tables: Table) -> Outcome:
    return evaluate(Ruleset((*tables, nat(), forward())), PACKET)


@pytest.mark.parametrize("hook", [RAW, MANGLE, DSTNAT])
def test_a_drop_is_certain_in_every_kind_of_chain(hook: Hook) -> None:
    assert ask(early(rule(CALICO, Drop()), hook=hook)).state == "not_carried"
    assert ask(early(hook=hook, policy="drop")).reason == "the policy of PREROUTING (ip early) drops it"


def test_a_packet_that_conntrack_does_not_see_is_never_translated() -> None:
    outcome = ask(early(rule(Source(NETWORK), NoTrack())))
    assert outcome.state == "not_carried"
    assert outcome.reason == "PREROUTING rule 1 (ip early) hides it from conntrack, so that no NAT chain is asked"


def test_a_rule_goes_on_behind_a_notrack_and_a_notrack_behind_conntrack_comes_too_late() -> None:
    assert ask(early(rule(NoTrack(), Accept()))).state == "not_carried"
    assert ask(early(rule(NoTrack()), hook=MANGLE)).state == "carried"


@pytest.mark.parametrize(
    ("hook", "state", "dropped"),
    [(RAW, "INVALID", True), (RAW, "NEW", False), (MANGLE, "INVALID", False), (MANGLE, "NEW", True)],
)
def test_a_new_packet_is_invalid_until_conntrack_has_seen_it(hook: Hook, state: str, dropped: bool) -> None:
    outcome = ask(early(rule(CtState(frozenset({state})), Drop()), hook=hook))
    assert outcome.state == ("not_carried" if dropped else "carried")


def test_what_is_known_of_a_first_packet_is_known_before_conntrack_too() -> None:
    assert ask(early(rule(Protocol(6), TcpFlags(0x17, 0x02), Drop()))).state == "not_carried"
    assert ask(early(rule(NoTrack(), Protocol(6), TcpFlags(0x17, 0x02, negated=True), Drop()))).state == "not_carried"


def test_chains_where_conntrack_stands_are_walked_before_and_behind_it() -> None:
    here = Hook("filter", "prerouting", -200)
    assert ask(early(rule(CtState(frozenset({"INVALID"})), Drop()), hook=here)).state == "cannot_tell"
    assert ask(early(rule(Source(NETWORK), Drop()), hook=here)).state == "not_carried"


def test_marks_that_are_set_there_count_later() -> None:
    outcome = ask(early(rule(CALICO, SetMark(0x4000, 0x4000)), hook=MANGLE))
    # kube-proxy's mark: KUBE-POSTROUTING masquerades it, and so it is carried, by another rule
    assert outcome.state == "carried"
    assert outcome.translation is not None and outcome.translation.chain == "KUBE-POSTROUTING"


def test_nobody_knows_the_way_out_there_and_its_name_is_empty() -> None:
    assert ask(early(rule(OutInterface("eth0"), Drop()))).state == "carried"
    assert ask(early(rule(OutInterface("eth0", negated=True), Drop()))).state == "not_carried"
    assert ask(early(rule(OutInterface("+"), Drop()))).state == "not_carried"


def test_a_service_at_another_address_is_nothing_to_the_witness_and_one_at_its_own_cannot_be_told() -> None:
    services = [rule(Destination(ip_network(f"10.43.0.{n}/32")), Jump("KUBE-SVC")) for n in range(200)]
    kube = [*services, rule(AddrType("dst", frozenset({"LOCAL"})), Jump("KUBE-NODEPORTS"))]
    svc = [rule(Opaque("statistic"), Dnat("10.42.1.7:80")), rule(Dnat("10.42.1.8:80"))]

    def node(*more: Rule) -> Table:
        return table(
            "proxy",
            Chain("PREROUTING", (rule(Jump("KUBE-SERVICES")),), DSTNAT),
            Chain("KUBE-SERVICES", (*kube, *more)),
            Chain("KUBE-SVC", tuple(svc)),
            Chain("KUBE-NODEPORTS"),
        )

    assert ask(node()).state == "carried"
    own = ask(node(rule(Destination(ip_network("198.51.100.1/32")), Jump("KUBE-SVC"))))
    assert own.state == "cannot_tell"
    # whichever endpoint is chosen: the choice does not decide
    assert own.reason == "KUBE-SVC rule 1 sends it on to 10.42.1.7:80 (statistic)"


def test_the_rules_of_felix_on_a_healthy_node_do_no_harm() -> None:
    """What calico-node 3.28 writes into raw and mangle for a policy that allows everything, reverse path filter too."""
    felix = (
        rule(SetMark(0, 0xF0000)),
        rule(CALICO, SetMark(0x40000, 0x40000)),
        rule(Mark(0x40000, 0x40000), ReversePath(True), Drop()),
        rule(Mark(0x10000, 0x10000), Accept()),
    )
    outcome = ask(early(*felix), early(rule(CtState(frozenset({"RELATED", "ESTABLISHED"})), Accept()), hook=MANGLE))
    assert outcome.state == "carried"


def test_behind_a_translation_the_reverse_path_is_not_known() -> None:
    late = Hook("filter", "postrouting", 150)
    chains = table("late", Chain("l", (rule(ReversePath(True), Drop()),), late))
    assert evaluate(Ruleset((chains, nat(post=[rule(Masquerade())]))), PACKET).state == "cannot_tell"


def test_a_translation_to_an_address_of_the_pods_is_no_way_out() -> None:
    pods = [rule(Snat(ip_address("10.42.9.9"), ip_address("10.42.9.9")))]
    node = [rule(Snat(ip_address("192.0.2.1"), ip_address("192.0.2.2")))]
    some = [rule(Snat(ip_address("10.41.255.255"), ip_address("10.42.0.0")))]

    def answer(rules: list[Rule]) -> Outcome:
        return evaluate(Ruleset((nat(post=rules),)), PACKET, unroutable=(NETWORK,))

    assert answer(node).state == "carried"
    assert answer(pods).state == "not_carried"
    assert answer(pods).reason == "POSTROUTING rule 1 gives it the source 10.42.9.9, an address of the pods"
    assert answer(some).state == "cannot_tell"
    assert evaluate(Ruleset((nat(post=pods),)), PACKET).state == "carried"
