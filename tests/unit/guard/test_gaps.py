"""Gaps as intervals, with their authors; forwarding asked of real pods."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from tests.unit.guard.around import Node
from tests.unit.guard.flannels import NETWORK, SUBNET, nat

from hitless.guard import gaps
from hitless.guard.standby_rules import WitnessPlace
from hitless.model.events import Writer
from hitless.model.families import Family
from hitless.model.rules import (
    Accept,
    Chain,
    CtState,
    Destination,
    Dnat,
    Drop,
    Hook,
    InInterface,
    Mark,
    NoTrack,
    Opaque,
    Rule,
    Ruleset,
    SetMark,
    Source,
    Step,
    Table,
)
from hitless.observe import LocalPod

V4 = Family.IPV4
PLACE = WitnessPlace(NETWORK[V4], SUBNET[V4])
PODS = (LocalPod(ip_address("10.42.1.2"), "cali1"), LocalPod(ip_address("10.42.1.3"), "cali2"))
NETWORKS = (str(NETWORK[V4]),)


def egress(ruleset: Ruleset) -> gaps.PrimaryFate:
    return gaps.Asker().egress(ruleset, [PLACE], Node(PODS))


def forward(ruleset: Ruleset, *, pods: tuple[LocalPod, ...] = PODS, whole: bool = False) -> gaps.PrimaryFate:
    return gaps.Asker().forward(ruleset, [PLACE], Node(pods), whole=whole)


FLANNEL = Writer(7, "iptables-nft")


def filter_table(*rules: Rule, policy: str = "accept") -> Ruleset:
    return Ruleset((Table("ip", "filter", {"FORWARD": Chain("FORWARD", rules, Hook("filter", "forward", 0, policy))}),))


def test_whole_rules_are_no_gap_and_emptied_ones_are() -> None:
    assert egress(nat()) == gaps.PrimaryFate()
    fate = egress(nat(chain=()))
    assert fate.cut == (str(NETWORK[V4]),)
    assert "FLANNEL-POSTRTG" in fate.reason


def test_what_cannot_be_told_is_a_doubt_and_no_gap() -> None:
    fate = egress(nat(front=(Rule((Opaque("recent"), Accept())),)))
    assert (fate.cut, fate.doubtful) == ((), (str(NETWORK[V4]),))


def test_a_gap_runs_from_its_first_loss_to_its_end_and_names_who_opened_it() -> None:
    tracker = gaps.GapTracker()
    cut = gaps.PrimaryFate(("10.42.0.0/16",), (), "empty")
    assert tracker.see(gaps.PrimaryFate(), 1, None) is None
    assert tracker.see(cut, 2, FLANNEL) is None
    assert tracker.see(gaps.PrimaryFate(("10.99.0.0/16",), (), "other"), 3, None) is None
    ended = tracker.see(gaps.PrimaryFate(), 4, None)
    assert ended == gaps.OpenGap(2, ("10.42.0.0/16", "10.99.0.0/16"), "empty", FLANNEL)
    assert tracker.open is None


def test_forwarding_is_cut_when_every_pod_is_dropped() -> None:
    fate = forward(filter_table(policy="drop"))
    assert fate.cut == NETWORKS
    assert fate.reason


def test_one_pod_that_a_policy_keeps_in_is_no_outage() -> None:
    ruleset = filter_table(Rule((InInterface("cali1"), Drop())))
    assert forward(ruleset) == gaps.PrimaryFate()


def test_forwarding_that_the_agent_allows_is_open_again() -> None:
    ruleset = filter_table(
        Rule((Source(NETWORK[V4]), Accept())), Rule((Destination(NETWORK[V4]), Accept())), policy="drop"
    )
    assert forward(ruleset) == gaps.PrimaryFate()


def test_a_node_without_pods_is_asked_about_addresses_that_nobody_has() -> None:
    assert forward(filter_table(policy="drop"), pods=()).cut == NETWORKS
    assert gaps.Asker().forward(filter_table(policy="drop"), [], Node()) == gaps.PrimaryFate()  # nothing is guarded


def test_an_outage_of_every_pod_that_is_there_is_a_gap_although_another_would_get_out() -> None:
    rules = [Rule((Source(ip_network(pod.address)), Drop())) for pod in PODS]
    fate = forward(filter_table(*rules))
    assert fate.cut == NETWORKS
    assert "all 2 pods here; a pod without such a rule would be carried" in fate.reason


def test_pods_that_are_kept_in_are_counted_when_all_are_asked() -> None:
    rules = filter_table(Rule((Source(ip_network(PODS[0].address)), Drop())))
    assert forward(rules) == gaps.PrimaryFate()
    fate = forward(rules, whole=True)
    assert (fate.cut, fate.pods, fate.kept) == ((), 2, 1)
    assert "1 of 2 pods is kept in by FORWARD (10.42.1.2: " in fate.partly


def test_answers_that_are_dropped_are_a_gap_of_forwarding() -> None:
    fate = forward(filter_table(Rule((Source(NETWORK[V4]), Accept())), policy="drop"))
    assert (fate.cut, fate.reason) == (NETWORKS, "answers are dropped by the policy of FORWARD (ip filter)")


def raw(*rules: Rule, policy: str = "accept", priority: int = -300, kind: str = "filter") -> Table:
    hook = Hook(kind, "prerouting", priority, policy)
    return Table("ip", "raw", {"PREROUTING": Chain("PREROUTING", rules, hook)})


@pytest.mark.parametrize(
    ("steps", "words"),
    [((Drop(),), "PREROUTING rule 1 (ip raw) drops it"), ((NoTrack(),), "hides it from conntrack")],
)
def test_forwarded_packets_pass_prerouting_too_and_are_lost_there(steps: tuple[Step, ...], words: str) -> None:
    fate = forward(Ruleset((raw(Rule(steps)), *nat().tables)))
    assert fate.cut == NETWORKS
    assert words in fate.reason


def test_a_pod_that_is_dropped_at_prerouting_is_no_outage_while_another_gets_through() -> None:
    assert forward(Ruleset((raw(Rule((InInterface("cali1"), Drop()))),))) == gaps.PrimaryFate()


def test_a_mark_that_prerouting_sets_is_there_when_forward_asks_for_it() -> None:
    """Felix marks what it has seen in raw and drops at forward what bears no mark of its."""
    answered = Rule((CtState(frozenset({"ESTABLISHED"})), Accept()))
    filtering = filter_table(answered, Rule((Mark(0x10000, 0x10000), Accept())), policy="drop").tables
    assert forward(Ruleset(filtering)).cut
    marking = raw(Rule((SetMark(0x10000, 0x10000),)))
    assert forward(Ruleset((marking, *filtering))) == gaps.PrimaryFate()


def test_nat_chains_at_prerouting_are_not_asked() -> None:
    services = raw(Rule((Dnat("10.42.1.9"),)), priority=-100, kind="nat")
    assert forward(Ruleset((services,))) == gaps.PrimaryFate()
