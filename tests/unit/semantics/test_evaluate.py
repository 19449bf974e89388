"""The evaluator on rule sets made by hand: what each kind of damage does to a pod's packet, and how it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from hitless.model.packets import ICMP, TCP, UDP, Packet
from hitless.model.rules import (
    Accept,
    AddrType,
    Chain,
    CtState,
    Destination,
    DestinationPort,
    Dnat,
    Drop,
    Goto,
    Hook,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    Opaque,
    OpaqueAction,
    OutInterface,
    Protocol,
    Reject,
    Return,
    Rule,
    Ruleset,
    SetMark,
    SetMember,
    Snat,
    Source,
    Step,
    Table,
    TcpFlags,
    UnknownMark,
)
from hitless.semantics import Outcome, evaluate

NETWORK, SUBNET, MULTICAST = map(ip_network, ("10.42.0.0/16", "10.42.1.0/24", "224.0.0.0/4"))
POD = Packet(ip_address("10.42.1.10"), ip_address("198.51.100.1"), iif="veth0", oif="eth0")
POD6 = Packet(ip_address("fd42::a"), ip_address("2001:db8:ffff::1"), iif="veth0", oif="eth0")

SRCNAT = Hook("nat", "postrouting", 100)
FORWARD = Hook("filter", "forward", 0)


def rule(*steps: Step) -> Rule:
    return Rule(steps)


FLANNEL = (
    rule(Mark(0x4000, 0x4000), Return()),
    rule(Source(SUBNET), Destination(NETWORK), Return()),
    rule(Source(NETWORK), Destination(SUBNET), Return()),
    rule(Source(NETWORK, negated=True), Destination(SUBNET), Return()),
    rule(Source(NETWORK), Destination(MULTICAST, negated=True), Masquerade(random_fully=True)),
    rule(Source(NETWORK, negated=True), Destination(NETWORK), Masquerade(random_fully=True)),
)
KUBE = (
    rule(Mark(0x4000, 0x4000, negated=True), Return()),
    rule(SetMark(0x4000, 0)),
    rule(Masquerade(random_fully=True)),
)


def table(name: str, *chains: Chain, family: str = "ip", legacy: bool = False) -> Table:
    return Table(family, name, {chain.name: chain for chain in chains}, legacy)


def nat(
    flannel: Sequence[Rule] = FLANNEL,
    post: Sequence[Rule] = (rule(Jump("KUBE-POSTROUTING")), rule(Jump("FLANNEL-POSTRTG"))),
    *,
    legacy: bool = False,
) -> Table:
    return table(
        "nat",
        Chain("POSTROUTING", tuple(post), SRCNAT),
        Chain("KUBE-POSTROUTING", KUBE),
        Chain("FLANNEL-POSTRTG", tuple(flannel)),
        legacy=legacy,
    )


def forward(*rules: Rule, policy: str = "accept", priority: int = 0) -> Table:
    return table("filter", Chain("FORWARD", rules, Hook("filter", "forward", priority, policy)))


def ask(*tables: Table, packet: Packet = POD, hooks: Sequence[str] = ("forward", "postrouting")) -> Outcome:
    return evaluate(Ruleset(tables), packet, hooks)


def test_whole_rules_carry_a_pod_to_the_outside_and_say_by_which_rule() -> None:
    outcome = ask(nat(), forward())
    assert outcome.state == "carried"
    assert outcome.reason == "FLANNEL-POSTRTG rule 5 masquerades it (-s 10.42.0.0/16 ! -d 224.0.0.0/4)"
    assert outcome.translation is not None
    assert (outcome.translation.chain, outcome.translation.number) == ("FLANNEL-POSTRTG", 5)
    assert outcome.translation.random_fully
    assert outcome.chains == {
        ("ip", "filter", "FORWARD"),
        ("ip", "nat", "POSTROUTING"),
        ("ip", "nat", "KUBE-POSTROUTING"),
        ("ip", "nat", "FLANNEL-POSTRTG"),
    }


def test_traffic_between_pods_is_left_alone_on_purpose() -> None:
    outcome = ask(nat(), packet=replace(POD, dst=ip_address("10.42.7.7")))
    assert outcome.state == "not_carried"
    assert outcome.reason == "FLANNEL-POSTRTG rule 2 returns (-s 10.42.1.0/24 -d 10.42.0.0/16)"


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (nat(flannel=()), "chain FLANNEL-POSTRTG is empty"),
        (nat(post=[rule(Jump("KUBE-POSTROUTING"))]), "no jump from POSTROUTING leads to FLANNEL-POSTRTG"),
        (nat(post=()), "chain POSTROUTING is empty"),
        (
            nat(post=[rule(Return()), rule(Jump("FLANNEL-POSTRTG"))]),
            "POSTROUTING rule 1 returns before it is translated",
        ),
        (
            nat(post=[rule(Source(NETWORK), Accept()), rule(Jump("FLANNEL-POSTRTG"))]),
            "POSTROUTING rule 1 accepts before it is translated (-s 10.42.0.0/16)",
        ),
        (nat(flannel=FLANNEL[:4]), "no rule of FLANNEL-POSTRTG translates"),
        (
            nat(flannel=[rule(Source(ip_network("10.99.0.0/16")), Masquerade())]),
            "no rule of FLANNEL-POSTRTG matches",
        ),
        (
            nat(flannel=[rule(Source(NETWORK), Return()), *FLANNEL]),
            "FLANNEL-POSTRTG rule 1 returns (-s 10.42.0.0/16)",
        ),
        (table("filter", Chain("FORWARD", (), FORWARD)), "no NAT chain stands at postrouting for IPv4"),
    ],
)
def test_each_damage_is_a_gap_with_its_reason(damaged: Table, reason: str) -> None:
    outcome = ask(damaged)
    assert (outcome.state, outcome.reason) == ("not_carried", reason)
    assert outcome.translation is None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (forward(policy="drop"), "the policy of FORWARD (ip filter) drops it"),
        (forward(rule(InInterface("veth+"), Drop())), "FORWARD rule 1 (ip filter) drops it (-i veth+)"),
        (forward(rule(Accept()), rule(Drop())), ""),
        (forward(rule(Protocol(TCP), Reject("tcp-reset"))), "FORWARD rule 1 (ip filter) rejects it (-p tcp)"),
    ],
)
def test_a_dropped_packet_is_not_carried_although_it_would_be_translated(damage: Table, reason: str) -> None:
    outcome = ask(nat(), damage)
    assert outcome.state == ("not_carried" if reason else "carried")
    if reason:
        assert outcome.reason == reason
        assert outcome.dropped is not None
        assert outcome.dropped.chain == "FORWARD"


def test_accept_ends_only_its_own_base_chain() -> None:
    assert ask(nat(), forward(rule(Accept())), forward(rule(Drop()), priority=10)).state == "not_carried"


def test_drop_in_another_base_chain_wins_whatever_the_order() -> None:
    assert ask(nat(), forward(rule(Drop()), priority=-10), forward(rule(Accept()))).state == "not_carried"


def test_return_in_a_base_chain_meets_its_policy() -> None:
    assert ask(nat(), forward(rule(Return()), rule(Accept()), policy="drop")).state == "not_carried"


def test_goto_does_not_come_back_to_the_chain_that_it_left() -> None:
    def with_call(call: Step) -> Outcome:
        chains = (
            Chain("POSTROUTING", (rule(Jump("A")), rule(Masquerade())), SRCNAT),
            Chain("A", (rule(call), rule(Accept()))),
            Chain("B", ()),
        )
        return ask(table("nat", *chains))

    assert with_call(Jump("B")).state == "not_carried"  # back in A, whose second rule accepts
    assert with_call(Goto("B")).state == "carried"  # back in POSTROUTING, which translates


def test_goto_from_a_base_chain_ends_at_its_policy() -> None:
    chains = (Chain("POSTROUTING", (rule(Goto("A")), rule(Masquerade())), SRCNAT), Chain("A", ()))
    assert ask(table("nat", *chains)).state == "not_carried"


def test_a_second_nat_chain_carries_what_the_first_left_alone() -> None:
    standby = table("standby", Chain("post", (rule(Source(NETWORK), Masquerade()),), Hook("nat", "postrouting", 120)))
    outcome = ask(nat(flannel=()), standby)
    assert outcome.state == "carried"
    assert outcome.translation is not None
    assert outcome.translation.table == "standby"
    whole = ask(nat(), standby)
    assert whole.translation is not None
    assert whole.translation.table == "nat"
    assert ("ip", "standby", "post") not in whole.chains  # not even asked


def test_accept_in_a_nat_chain_does_not_keep_the_next_one_from_translating() -> None:
    first = table("nat", Chain("POSTROUTING", (rule(Accept()),), SRCNAT))
    second = table("x", Chain("post", (rule(Masquerade()),), Hook("nat", "postrouting", 110)))
    assert ask(first, second).state == "carried"


def test_legacy_and_nft_tables_are_one_path() -> None:
    assert ask(nat(flannel=(), legacy=True), nat()).state == "carried"
    assert ask(nat(legacy=True), nat(flannel=())).state == "carried"
    assert ask(nat(flannel=(), legacy=True), nat(flannel=())).state == "not_carried"


def test_nat_chains_are_called_at_the_nat_position_whatever_their_priority_says() -> None:
    marker = table("m", Chain("mark", (rule(SetMark(1)),), Hook("filter", "postrouting", 60)))
    early = table("n", Chain("post", (rule(Mark(1), Masquerade()),), Hook("nat", "postrouting", 50)))
    assert ask(early, marker).state == "carried"


def test_tables_of_the_other_family_are_not_asked_and_inet_ones_are() -> None:
    masquerade = Chain("post", (rule(Masquerade()),), SRCNAT)
    assert ask(table("n", masquerade), packet=POD6).state == "not_carried"
    for packet in (POD, POD6):
        assert ask(table("n", masquerade, family="inet"), packet=packet).state == "carried"


def test_marks_travel_from_hook_to_hook() -> None:
    marks = forward(rule(SetMark(0x4000, 0x4000)))
    outcome = ask(nat(flannel=()), marks)
    assert outcome.state == "carried"
    assert outcome.translation is not None
    assert outcome.translation.chain == "KUBE-POSTROUTING"
    assert outcome.endings[0].mark == 0  # KUBE-POSTROUTING takes its mark away again


def test_snat_is_as_good_as_masquerade_and_is_told_apart() -> None:
    node = ip_address("192.0.2.11")
    outcome = ask(table("nat", Chain("POSTROUTING", (rule(Snat(node, node)),), SRCNAT)))
    assert outcome.state == "carried"
    assert outcome.translation is not None
    assert outcome.translation.how == "snat"


# --- cannot tell


def test_an_opaque_condition_that_decides_makes_it_impossible_to_tell() -> None:
    outcome = ask(nat(flannel=[rule(Opaque("match bpf"), Return()), *FLANNEL]))
    assert outcome.state == "cannot_tell"
    assert outcome.reason == "FLANNEL-POSTRTG rule 1 depends on what is not known here: match bpf"
    assert outcome.translation is None


def test_an_opaque_condition_that_does_not_matter_changes_nothing() -> None:
    assert ask(nat(flannel=[rule(Opaque("match limit")), *FLANNEL])).state == "carried"
    assert ask(nat(), forward(rule(Opaque("match recent"), Accept()))).state == "carried"
    behind = nat(flannel=[*FLANNEL, rule(Opaque("match bpf"), Drop())])
    assert ask(behind).state == "carried"
    assert ask(nat(), forward(rule(Opaque("match bpf"), Accept()), policy="drop")).state == "cannot_tell"


def test_an_opaque_action_makes_it_impossible_to_tell_only_where_it_is_met() -> None:
    queue = OpaqueAction("target NFQUEUE")
    assert ask(nat(), forward(rule(queue))).state == "cannot_tell"
    assert ask(nat(), forward(rule(Protocol(UDP), queue))).state == "carried"


def test_a_drop_that_certainly_comes_makes_doubts_before_it_irrelevant() -> None:
    assert ask(nat(), forward(rule(Opaque("x"), SetMark(1)), rule(Drop()))).state == "not_carried"


def test_a_lost_mark_splits_only_where_it_is_asked_for() -> None:
    restored = forward(rule(UnknownMark()))
    flannel_alone = nat(post=[rule(Jump("FLANNEL-POSTRTG"))])
    assert ask(flannel_alone, restored).state == "cannot_tell"  # rule 1 returns marked packets
    assert ask(flannel_alone, restored, forward(rule(SetMark(0)), priority=5)).state == "carried"
    assert ask(nat(flannel=[rule(Masquerade())]), restored).state == "carried"
    # marked: KUBE-POSTROUTING translates it; not marked: it is known from there on, and FLANNEL-POSTRTG does
    both = ask(nat(), restored)
    assert both.state == "carried"
    assert both.translation is None


def test_a_missing_interface_name_is_not_known_rather_than_no() -> None:
    drops = forward(rule(InInterface("cali+"), Drop()))
    assert ask(nat(), drops, packet=replace(POD, iif="")).state == "cannot_tell"
    assert ask(nat(), drops, packet=replace(POD, iif="veth0")).state == "carried"


def test_equal_priorities_are_walked_in_every_order() -> None:
    marks = forward(rule(SetMark(1)))
    drops = forward(rule(Mark(1), Drop()))
    outcome = ask(nat(), marks, drops)
    assert outcome.state == "cannot_tell"
    assert ask(nat(), marks, forward(rule(Mark(2), Drop()))).state == "carried"


def test_calls_that_go_round_or_nowhere_end_in_cannot_tell() -> None:
    loop = table(
        "nat",
        Chain("POSTROUTING", (rule(Jump("A")),), SRCNAT),
        Chain("A", (rule(Jump("B")),)),
        Chain("B", (rule(Jump("A")),)),
    )
    assert ask(loop).state == "cannot_tell"
    assert ask(table("nat", Chain("POSTROUTING", (rule(Jump("GONE")),), SRCNAT))).state == "cannot_tell"


@pytest.mark.slow
def test_a_web_of_calls_that_would_never_end_ends_in_cannot_tell() -> None:
    depth = 40
    chains = [Chain(f"C{n}", (rule(Jump(f"C{n + 1}")), rule(Jump(f"C{n + 1}")))) for n in range(depth)]
    chains.append(Chain(f"C{depth}", ()))
    outcome = ask(table("nat", Chain("POSTROUTING", (rule(Jump("C0")),), SRCNAT), *chains))
    assert (outcome.state, outcome.reason) == ("cannot_tell", "there are too many rules to follow")


# --- conditions


@pytest.mark.parametrize(
    ("condition", "packet", "holds"),
    [
        (DestinationPort(443, 443), POD, True),
        (DestinationPort(444, 500, negated=True), POD, True),
        (DestinationPort(443, 443), replace(POD, protocol=ICMP), None),
        (OutInterface("eth+"), POD, True),
        (OutInterface("eth"), POD, False),
        (OutInterface("eth0"), replace(POD, oif=""), None),
        (TcpFlags(0x17, 0x02), POD, True),
        (TcpFlags(0x17, 0x02), replace(POD, state="ESTABLISHED"), None),
        (CtState(frozenset({"NEW"})), POD, True),
        (CtState(frozenset({"DNAT"})), POD, False),
        (CtState(frozenset({"DNAT"}), negated=True), POD, True),
        (AddrType("dst", frozenset({"LOCAL"})), POD, False),
        (AddrType("dst", frozenset({"UNICAST"})), POD, True),
        (AddrType("dst", frozenset({"LOCAL", "UNICAST"})), POD, True),
        (AddrType("dst", frozenset({"LOCAL", "UNICAST"})), POD6, None),
        (AddrType("dst", frozenset({"MULTICAST"})), replace(POD, dst=ip_address("224.0.0.5")), True),
        (SetMember("pods", "src", frozenset({NETWORK})), POD, True),
        (SetMember("pods", "dst", frozenset({NETWORK})), POD, False),
        (SetMember("#3", "src", None), POD, None),
        (SetMember("pods", "src,dst", frozenset({NETWORK})), POD, None),
        (Source(NETWORK), POD6, False),
        (Source(NETWORK, negated=True), POD6, True),
    ],
)
def test_a_condition_holds_or_not_or_cannot_be_told(condition: Step, packet: Packet, holds: bool | None) -> None:
    chain = Chain("post", (rule(condition, Return()), rule(Masquerade())), SRCNAT)
    state = ask(table("n", chain, family="inet"), packet=packet).state
    assert state == {True: "not_carried", False: "carried", None: "cannot_tell"}[holds]


def test_a_rule_behind_the_translation_cannot_know_the_new_source() -> None:
    late = table("late", Chain("post", (rule(Source(NETWORK), Drop()),), Hook("filter", "postrouting", 200)))
    assert ask(nat(), late).state == "cannot_tell"
    assert ask(nat(flannel=()), late).dropped is not None


@pytest.mark.parametrize(("state", "answer"), [("INVALID", "not_carried"), ("ESTABLISHED", "cannot_tell")])
def test_packets_that_open_no_flow_are_not_translated_by_rules(state: str, answer: str) -> None:
    assert ask(nat(), packet=replace(POD, state=state)).state == answer


def test_a_destination_translation_on_the_way_leaves_the_rest_open() -> None:
    dnat = table("nat", Chain("PREROUTING", (rule(Dnat("10.42.3.3")),), Hook("nat", "prerouting", -100)))
    outcome = evaluate(Ruleset((dnat,)), POD, ("prerouting", "forward", "postrouting"))
    assert outcome.state == "cannot_tell"


def test_a_standby_that_bears_the_name_of_the_agent_s_chain_is_told_by_its_table() -> None:
    name = "nft.nat.FLANNEL-POSTRTG"
    standby = Table(
        "ip",
        "hitless-guard",
        {
            name: Chain(name, (rule(Source(NETWORK), Masquerade()),)),
            "nft.nat.POSTROUTING": Chain("nft.nat.POSTROUTING", (rule(Jump(name)),), Hook("nat", "postrouting", 101)),
        },
    )
    outcome = ask(nat(flannel=()), standby)
    assert outcome.state == "carried"
    assert outcome.reason == f"{name} rule 1 (ip hitless-guard) masquerades it (ip saddr {NETWORK})"
