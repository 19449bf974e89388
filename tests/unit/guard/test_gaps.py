"""Gaps as intervals, with their authors; forwarding asked of real pods."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from tests.unit.guard.flannels import NETWORK, SUBNET, nat

from hitless.guard import gaps
from hitless.guard.learning import Place
from hitless.model.events import Writer
from hitless.model.families import Family
from hitless.model.rules import (
    Accept,
    Chain,
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

V4 = Family.IPV4
PLACE = Place(NETWORK[V4], SUBNET[V4])
PODS = [(ip_address("10.42.1.2"), "cali1"), (ip_address("10.42.1.3"), "cali2")]
FLANNEL = Writer(7, "iptables-nft")


def filter_table(*rules: Rule, policy: str = "accept") -> Ruleset:
    return Ruleset((Table("ip", "filter", {"FORWARD": Chain("FORWARD", rules, Hook("filter", "forward", 0, policy))}),))


def test_whole_rules_are_no_gap_and_emptied_ones_are() -> None:
    assert gaps.egress(nat(), [PLACE], "eth0") == gaps.Fate()
    fate = gaps.egress(nat(chain=()), [PLACE], "eth0")
    assert fate.cut == (str(NETWORK[V4]),)
    assert "FLANNEL-POSTRTG" in fate.reason


def test_what_cannot_be_told_is_a_doubt_and_no_gap() -> None:
    fate = gaps.egress(nat(front=(Rule((Opaque("recent"), Accept())),)), [PLACE], "eth0")
    assert (fate.cut, fate.doubtful) == ((), (str(NETWORK[V4]),))


def test_a_gap_runs_from_its_first_loss_to_its_end_and_names_who_opened_it() -> None:
    tracker = gaps.Tracker()
    cut = gaps.Fate(("10.42.0.0/16",), (), "empty")
    assert tracker.see(gaps.Fate(), 1, None) is None
    assert tracker.see(cut, 2, FLANNEL) is None
    assert tracker.see(gaps.Fate(("10.99.0.0/16",), (), "other"), 3, None) is None
    ended = tracker.see(gaps.Fate(), 4, None)
    assert ended == gaps.OpenGap(2, ("10.42.0.0/16", "10.99.0.0/16"), "empty", FLANNEL)
    assert tracker.open is None


def test_forwarding_is_cut_when_every_pod_is_dropped() -> None:
    fate = gaps.forward(filter_table(policy="drop"), PODS, "eth0")
    assert fate.cut == ("10.42.1.2", "10.42.1.3")
    assert fate.reason


def test_one_pod_that_a_policy_keeps_in_is_no_outage() -> None:
    ruleset = filter_table(Rule((InInterface("cali1"), Drop())))
    assert gaps.forward(ruleset, PODS, "eth0") == gaps.Fate()


def test_forwarding_that_the_agent_allows_is_open_again() -> None:
    ruleset = filter_table(Rule((Source(NETWORK[V4]), Accept())), policy="drop")
    assert gaps.forward(ruleset, PODS, "eth0") == gaps.Fate()


def test_forwarding_of_nobody_is_no_gap() -> None:
    assert gaps.forward(filter_table(policy="drop"), [], "eth0") == gaps.Fate()


def raw(*rules: Rule, policy: str = "accept", priority: int = -300, kind: str = "filter") -> Table:
    hook = Hook(kind, "prerouting", priority, policy)
    return Table("ip", "raw", {"PREROUTING": Chain("PREROUTING", rules, hook)})


@pytest.mark.parametrize(
    ("steps", "words"),
    [((Drop(),), "PREROUTING rule 1 (ip raw) drops it"), ((NoTrack(),), "hides it from conntrack")],
)
def test_forwarded_packets_pass_prerouting_too_and_are_lost_there(steps: tuple[Step, ...], words: str) -> None:
    fate = gaps.forward(Ruleset((raw(Rule(steps)), *nat().tables)), PODS, "eth0")
    assert fate.cut == ("10.42.1.2", "10.42.1.3")
    assert words in fate.reason


def test_a_pod_that_is_dropped_at_prerouting_is_no_outage_while_another_gets_through() -> None:
    assert gaps.forward(Ruleset((raw(Rule((InInterface("cali1"), Drop()))),)), PODS, "eth0") == gaps.Fate()


def test_a_mark_that_prerouting_sets_is_there_when_forward_asks_for_it() -> None:
    """Felix marks what it has seen in raw and drops at forward what bears no mark of its."""
    forward = filter_table(Rule((Mark(0x10000, 0x10000), Accept())), policy="drop").tables
    assert gaps.forward(Ruleset(forward), PODS, "eth0").cut
    marking = raw(Rule((SetMark(0x10000, 0x10000),)))
    assert gaps.forward(Ruleset((marking, *forward)), PODS, "eth0") == gaps.Fate()


def test_nat_chains_at_prerouting_are_not_asked() -> None:
    services = raw(Rule((Dnat("10.42.1.9"),)), priority=-100, kind="nat")
    assert gaps.forward(Ruleset((services,)), PODS, "eth0") == gaps.Fate()
