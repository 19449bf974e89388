"""Deliberate change or damage: each rule of docs/guard.md, in virtual time, from both sides."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest
from tests.unit.guard.flannels import NETWORK, OTHER, flannel_rules, nat

from hitless.guard import primaries
from hitless.guard.deciding import Decider, extends
from hitless.guard.standby_rules import StandbyRules, learn
from hitless.guard.statements import Statement
from hitless.model.families import Family
from hitless.model.rules import Accept, Destination, Masquerade, Return, Rule, Ruleset, Source

V4 = Family.IPV4
OWN = flannel_rules(V4)
OFF = Statement(False, "subnet.env says FLANNEL_IPMASQ=false")
ON = Statement(True, "flanneld runs with --ip-masq")


def seen(ruleset: Ruleset) -> StandbyRules:
    return learn(ruleset, V4, primaries.load("flannel"))


WHOLE = seen(nat())
EMPTIED = seen(nat(chain=()))
GONE = seen(Ruleset())
NEW_SUBNET = seen(nat(chain=flannel_rules(V4, NETWORK[V4], ip_network("10.42.7.0/24"))))
SECOND_POOL = Rule((Source(OTHER[V4]), Masquerade()))
TWO_POOLS = seen(nat(chain=(*OWN, SECOND_POOL)))


def silent() -> Statement | None:
    return None


def guarding(what: StandbyRules = WHOLE) -> Decider:
    """A guard that learned long ago."""
    decider = Decider()
    assert decider.see(what, 0, silent).action == "install"
    decider.see(what, 100, silent)
    return decider


def test_whole_rules_are_learned_at_once() -> None:
    decision = Decider().see(WHOLE, 0, silent)
    assert (decision.action, decision.standby) == ("install", WHOLE)


def test_nothing_is_installed_where_there_is_nothing_to_learn_from() -> None:
    decider = Decider()
    for rules in (EMPTIED, GONE):
        assert decider.see(rules, 0, silent).action == "keep"
    assert decider.installed is None


@pytest.mark.parametrize("rules", [EMPTIED, GONE, seen(nat(jump=False))], ids=["emptied", "gone", "no jump"])
def test_missing_rules_are_bridged_for_however_long(rules: StandbyRules) -> None:
    decider = guarding()
    for now in (200, 201, 260, 100_000, 10_000_000):
        assert decider.see(rules, now, silent).action == "keep"
    assert decider.installed == WHOLE


def test_missing_rules_are_bridged_while_the_agent_says_that_it_translates() -> None:
    decider = guarding()
    assert decider.see(EMPTIED, 200, lambda: ON).action == "keep"
    assert decider.installed == WHOLE


def test_masquerading_that_is_stated_to_be_off_is_followed_at_once() -> None:
    decider = guarding()
    decision = decider.see(EMPTIED, 200, lambda: OFF)
    assert decision.action == "withdraw"
    assert OFF.source in str(decision.why)
    assert decider.installed is None


def test_a_statement_that_comes_late_is_followed_when_it_comes() -> None:
    decider = guarding()
    assert decider.see(GONE, 200, silent).action == "keep"
    assert decider.see(GONE, 230, lambda: OFF).action == "withdraw"


def test_rules_that_stand_are_worth_more_than_words() -> None:
    decider = guarding()
    assert decider.see(WHOLE, 200, lambda: OFF).action == "keep"
    assert decider.installed == WHOLE


def test_after_a_switch_off_and_on_again_the_rules_are_learned_anew() -> None:
    decider = guarding()
    decider.see(EMPTIED, 200, lambda: OFF)
    assert decider.see(NEW_SUBNET, 300, silent).standby == NEW_SUBNET


def test_a_new_subnet_is_followed_at_once() -> None:
    decider = guarding()
    decider.see(EMPTIED, 200, silent)
    decision = decider.see(NEW_SUBNET, 200.05, silent)
    assert (decision.action, decision.standby) == ("install", NEW_SUBNET)


def test_damage_right_after_a_change_goes_back_to_what_had_stood() -> None:
    half = seen(nat(chain=(OWN[4],)))  # written without its RETURNs, by an agent that dies next
    decider = guarding()
    assert decider.see(half, 200, silent).standby == half
    decision = decider.see(EMPTIED, 200.3, silent)
    assert (decision.action, decision.standby) == ("install", WHOLE)
    assert decider.installed == WHOLE


def test_damage_long_after_a_change_bridges_with_the_change() -> None:
    decider = guarding()
    due = decider.see(NEW_SUBNET, 200, silent).again
    assert due == 201
    decider.see(NEW_SUBNET, 201, silent)
    assert decider.see(EMPTIED, 300, silent).action == "keep"
    assert decider.installed == NEW_SUBNET


@pytest.mark.parametrize("verdict", [Return(), Accept()])
def test_a_rule_that_exempts_everything_is_followed_at_once(verdict: Return | Accept) -> None:
    exempt = seen(nat(front=(Rule((Source(NETWORK[V4]), verdict)),)))
    assert exempt.places == ()
    decider = guarding()
    decision = decider.see(exempt, 200, silent)
    assert (decision.action, decision.standby) == ("install", exempt)


def test_a_pool_without_nat_by_exemption_is_followed_at_once() -> None:
    exempt = seen(nat(chain=(*OWN[:4], Rule((Source(OTHER[V4]), Return())), *OWN[4:], SECOND_POOL)))
    decider = guarding(TWO_POOLS)
    decision = decider.see(exempt, 200, silent)
    assert decision.standby == exempt
    assert OTHER[V4] not in exempt.networks


def test_an_exempted_destination_is_followed_at_once() -> None:
    exempt = seen(nat(chain=(Rule((Destination(ip_network("172.16.0.0/12")), Return())), *OWN)))
    assert guarding().see(exempt, 200, silent).standby == exempt


def test_when_an_exemption_goes_the_standby_translates_again() -> None:
    exempt = seen(nat(front=(Rule((Source(NETWORK[V4]), Return())),)))
    decider = guarding()
    decider.see(exempt, 200, silent)
    assert decider.see(WHOLE, 300, silent).standby == WHOLE


def test_flushed_rules_are_no_exemption() -> None:
    exempt = nat(chain=(), front=(Rule((Source(NETWORK[V4]), Return())),))
    decider = guarding()
    assert decider.see(seen(exempt), 200, silent).action == "keep"
    assert decider.installed == WHOLE


def test_a_pool_whose_translation_is_taken_away_is_bridged_for_two_resyncs_and_then_let_go() -> None:
    decider = guarding(TWO_POOLS)
    decision = decider.see(WHOLE, 200, silent)
    assert (decision.action, decision.again) == ("keep", 210)
    assert decider.see(WHOLE, 209, silent).action == "keep"
    assert decider.see(WHOLE, 210, silent).standby == WHOLE


def test_a_pool_that_comes_back_in_time_was_damage() -> None:
    decider = guarding(TWO_POOLS)
    decider.see(WHOLE, 200, silent)
    assert decider.see(TWO_POOLS, 205, silent).action == "keep"
    assert decider.see(WHOLE, 300, silent).again == 310


def test_a_new_pool_is_followed_at_once() -> None:
    assert guarding().see(TWO_POOLS, 200, silent).standby == TWO_POOLS


def test_rules_that_cannot_be_copied_lead_to_withdrawal_when_they_stay() -> None:
    decider = guarding()
    assert decider.unclear("an unknown exemption", 200).again == 201
    assert decider.installed == WHOLE
    decision = decider.unclear("an unknown exemption", 201)
    assert decision.action == "withdraw"
    assert "an unknown exemption" in str(decision.why)
    assert decider.installed is None


def test_rules_that_cannot_be_copied_for_a_moment_change_nothing() -> None:
    decider = guarding()
    decider.unclear("half a reload", 200)
    assert decider.see(WHOLE, 200.5, silent).action == "keep"
    assert decider.unclear("half a reload", 300).action == "keep"


def test_a_guard_that_starts_in_a_gap_bridges_with_what_stands_in_the_kernel() -> None:
    decider = Decider(installed=WHOLE)
    assert decider.see(EMPTIED, 0, silent).action == "keep"
    assert decider.installed == WHOLE


def test_extension_means_every_old_rule_and_nothing_that_translates() -> None:
    exempt = seen(nat(front=(Rule((Source(NETWORK[V4]), Return())),)))
    assert extends(exempt, WHOLE)
    assert not extends(WHOLE, WHOLE)
    assert not extends(TWO_POOLS, WHOLE)
    assert not extends(EMPTIED, WHOLE)
    other_hook = tuple(
        replace(chain, hook=replace(chain.hook, priority=7)) if chain.hook is not None else chain
        for chain in exempt.chains
    )
    assert not extends(replace(exempt, chains=other_hook), WHOLE)


def bridging(decider: Decider) -> bool:
    return decider.installed == WHOLE


def test_a_withdrawal_for_a_word_ends_when_nobody_says_it_any_more() -> None:
    decider = guarding()
    decision = decider.see(EMPTIED, 200, lambda: OFF)
    assert (decision.action, decision.again) == ("withdraw", 202)
    assert decider.withdrawn
    assert decider.see(EMPTIED, 202, lambda: OFF).again == 204
    assert not bridging(decider)
    assert decider.see(EMPTIED, 204, silent).action == "keep"  # perhaps it restarts just now
    assert decider.see(EMPTIED, 204.5, lambda: OFF).action == "keep"
    assert decider.see(EMPTIED, 206, silent).again == 207
    decision = decider.see(EMPTIED, 207, silent)
    assert (decision.action, decision.standby) == ("install", WHOLE)
    assert bridging(decider)
    assert decider.see(EMPTIED, 10_000, silent).action == "keep"


def test_what_comes_back_after_a_withdrawal_follows_the_exemptions_that_stand_by_then() -> None:
    exempt = seen(nat(front=(Rule((Source(NETWORK[V4]), Return())),)))
    decider = guarding()
    decider.see(EMPTIED, 200, lambda: OFF)
    decider.see(exempt, 202, silent)
    decision = decider.see(exempt, 203, silent)
    assert (decision.action, decision.standby) == ("install", exempt)


def test_a_withdrawal_for_rules_without_a_copy_ends_when_they_are_gone() -> None:
    decider = guarding()
    decider.unclear("half a reload", 200)
    assert decider.unclear("half a reload", 201).action == "withdraw"
    decision = decider.see(EMPTIED, 205, silent)
    assert (decision.action, decision.standby) == ("install", WHOLE)


def test_rules_without_a_copy_that_stood_for_long_are_the_last_word() -> None:
    decider = guarding()
    decider.unclear("another configuration", 200)
    decider.unclear("another configuration", 201)
    assert decider.see(EMPTIED, 211, silent).action == "keep"
    assert decider.see(EMPTIED, 1000, silent).action == "keep"
    assert decider.installed is None
    assert not decider.withdrawn


def test_what_cannot_be_told_is_no_decision() -> None:
    """Of a pool it is not known whether it is carried: neither ten seconds nor a word let it go."""
    doubtful = replace(WHOLE, doubtful=(OTHER[V4],))
    decider = guarding(TWO_POOLS)
    for now in (200, 210, 1000):
        decision = decider.see(doubtful, now, lambda: OFF)
        assert decision.action == "keep"
        assert str(OTHER[V4]) in str(decision.why)
    assert decider.installed == TWO_POOLS
    nothing = replace(EMPTIED, doubtful=(NETWORK[V4], OTHER[V4]))
    assert decider.see(nothing, 1001, lambda: OFF).action == "keep"
