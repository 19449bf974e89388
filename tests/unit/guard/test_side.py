"""One family from the rules to a decision: what is learned, what is refused, and what is none of its business."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.unit.guard.around import Node
from tests.unit.guard.flannels import HOOK, NETWORK, flannel_rules, nat

from hitless.guard import primaries
from hitless.guard.primaries import Primary
from hitless.guard.reasons import Code
from hitless.guard.side import Observed, Side
from hitless.guard.standby_rules import learn
from hitless.kernel.nftables.state import unread_state
from hitless.model.families import Family
from hitless.model.rules import (
    Chain,
    Dnat,
    Drop,
    Hook,
    Jump,
    Masquerade,
    Opaque,
    OutInterface,
    Return,
    Rule,
    Ruleset,
    SetMember,
    Source,
    Table,
)
from hitless.observe import LocalPod
from hitless.observe.rules import Observation

V4 = Family.IPV4


FLANNEL = primaries.load("flannel")


def side(primary: Primary = FLANNEL, around: Node | None = None) -> Side:
    return Side.of(V4, primary, (), around or Node(), None)


def see(one: Side, ruleset: Ruleset, t: int = 1) -> Observed | None:
    return one.see(Observation(t, t, ruleset), 0, lambda: None)


def calico(*elements: str, known: bool = True) -> Ruleset:
    pools = frozenset(map(ip_network, elements)) if known else None
    outgoing = Rule((SetMember("cali40masq-ipam-pools", "src", pools), Masquerade()))
    chains = (
        Chain("POSTROUTING", (Rule((Jump("cali-nat-outgoing"),)),), HOOK),
        Chain("cali-nat-outgoing", (outgoing,)),
    )
    return Ruleset((Table("ip", "nat", {chain.name: chain for chain in chains}),))


def test_whole_rules_are_installed_and_the_same_again_is_no_news() -> None:
    one = side()
    seen = see(one, nat())
    assert seen is not None
    assert seen.decision.action == "install"
    assert one.whole
    assert see(one, nat(), 2) is None


def test_what_others_do_in_chains_that_no_pods_packet_passes_is_no_news() -> None:
    one = side()
    see(one, nat())
    (table,) = nat().tables
    more = replace(table, chains={**table.chains, "KUBE-SVC-X": Chain("KUBE-SVC-X", flannel_rules(V4))})
    assert see(one, Ruleset((more,)), 2) is None


def test_base_chains_at_prerouting_that_come_and_go_are_asked_about() -> None:
    one = side(around=Node((LocalPod(ip_address("10.42.1.10"), "cali1"),)))

    def before(kind: str, *rules: Rule) -> Ruleset:
        chain = Chain("PREROUTING", rules, Hook(kind, "prerouting", -150))
        return Ruleset((*nat().tables, Table("ip", "before", {"PREROUTING": chain})))

    see(one, nat())
    sent_on = see(one, before("nat", Rule((Dnat("10.42.1.9"),))), 2)
    assert sent_on is not None
    assert "sends it on to 10.42.1.9" in one.doubt  # as the watch says
    assert see(one, before("nat"), 2) is not None
    assert not one.doubt
    cut = see(one, before("filter", Rule((Drop(),))), 3)
    assert cut is not None
    assert one.forward.open is not None
    ended = see(one, before("filter"), 4)
    assert ended is not None and ended.forward_gap is not None
    assert (ended.forward_gap.begin, ended.gap) == (3, None)


def test_another_way_out_makes_the_same_rules_news() -> None:
    """A guard that begins at boot finds no default route; rules may name the interface that it gets later."""
    node = Node(way="")
    one = side(around=node)
    named = nat(chain=(Rule((Source(NETWORK[V4]), OutInterface("ens3"), Masquerade())),))
    seen = see(one, named)
    assert seen is not None and seen.decision.action == "keep"
    node.way = "ens3"
    one.ask_again()
    again = see(one, named, 2)
    assert again is not None and again.decision.action == "install"
    assert see(one, named, 3) is None


def test_a_gap_begins_with_the_damage_and_ends_with_the_repair() -> None:
    one = side()
    see(one, nat())
    damage, repair = see(one, nat(chain=()), 2), see(one, nat(), 3)
    assert damage is not None and repair is not None
    assert damage.opened
    assert repair.gap is not None
    assert (repair.gap.begin, repair.gap.networks) == (2, (str(NETWORK[V4]),))


def test_pools_in_a_set_that_the_rules_show_are_learned() -> None:
    one = side(primaries.load("calico"))
    seen = see(one, calico("10.42.0.0/16"))
    assert seen is not None and seen.decision.standby is not None
    assert seen.decision.standby.networks == (ip_network("10.42.0.0/16"),)
    # a pool that gets its NAT later is followed
    more = see(one, calico("10.42.0.0/16", "10.99.0.0/16"), 2)
    assert more is not None and more.decision.standby is not None
    assert len(more.decision.standby.networks) == 2


def test_pools_in_a_set_that_the_rules_do_not_show_are_refused_and_it_is_named() -> None:
    one = side(primaries.load("calico"))
    see(one, calico(known=False))
    assert "cali40masq-ipam-pools" in one.unclear
    assert one.installed is None


EXEMPT = Rule((SetMember("no-nat-for", "dst", None), Return()))


def test_an_exemption_by_a_set_in_the_primarys_own_chain_is_refused_and_it_is_named() -> None:
    """The chain does nothing but translate or come back, so that the copy left all of it out, and the guard waited."""
    one = side()
    see(one, nat(chain=(EXEMPT, *flannel_rules(V4))))
    assert "FLANNEL-POSTRTG" in one.unclear and "no-nat-for" in one.unclear
    assert one.installed is None


def test_such_an_exemption_that_comes_later_makes_the_standby_withdraw() -> None:
    """It is no damage: bridging it for ever would translate what the primary leaves alone."""
    one = side()
    see(one, nat())
    seen = see(one, nat(chain=(EXEMPT, *flannel_rules(V4))), 2)
    assert seen is not None
    assert seen.decision.again == one.decider.limits.settle
    assert one.again(one.decider.limits.settle, lambda: None).action == "withdraw"
    assert one.installed is None
    again = see(one, nat(), 3)
    assert again is not None and again.decision.action == "install"


def test_what_rules_know_by_numbers_is_named() -> None:
    numbered = Rule((SetMember("#7", "dst", None), Return()))
    one = Side.of(V4, FLANNEL, (), Node(), None, speak=lambda words: words.replace("#7", "no-nat-for"))
    see(one, nat(chain=(numbered, *flannel_rules(V4))))
    assert "set no-nat-for" in one.unclear
    foreign = Rule((SetMember("#7", "src", None), Masquerade()))
    seen = see(one, nat(front=(foreign,)), 2)
    assert seen is not None and seen.decision.standby is not None
    assert "set no-nat-for" in str(seen.decision.standby.left_out[0])


def test_somebody_elses_translation_that_cannot_be_copied_is_no_reason_to_refuse() -> None:
    foreign = Rule((SetMember("docker", "src", None), Masquerade()))
    one = side()
    see(one, nat(chain=(), front=(foreign,)))
    assert one.unclear == ""
    seen = see(one, nat(front=(foreign,)), 2)
    assert seen is not None and seen.decision.action == "install"
    assert learn(nat(front=(foreign,)), V4, primaries.load("flannel")).left_out


def test_words_of_somebody_elses_rule_do_not_make_the_primary_unclear() -> None:
    """What was left out is compared by table and chain: text that strangers choose may name the primary's chain."""
    for words in ("string match nat FLANNEL-POSTRTG rule 1 ", ", all of FLANNEL-POSTRTG ("):
        foreign = Rule((Opaque(words), Source(ip_network("172.17.0.0/16")), Masquerade()))
        one = side()
        see(one, nat(chain=(), front=(foreign,)))
        assert one.unclear == "", words


def test_what_stops_the_copy_further_down_in_the_primarys_own_chain_makes_it_unclear() -> None:
    """Left out as a whole with whoever calls it, the primary's chain is still what it is about."""
    odd = Rule((Opaque("recent"), Return()))
    calls = Chain("CALLS", (Rule((Jump("FLANNEL-POSTRTG"),)),))
    one = side()
    see(one, nat(chain=(odd, *flannel_rules(V4)), front=(Rule((Jump("CALLS"),)),), more=(calls,)))
    assert "FLANNEL-POSTRTG" in one.unclear


@pytest.mark.slow
def test_rules_that_could_not_be_read_are_no_word_for_or_against_the_standby() -> None:
    one = side()
    assert see(one, nat()) is not None
    standby = one.installed
    assert standby is not None
    unread = unread_state(7, (2, 1)).ruleset()
    seen = see(one, unread)
    assert seen is not None
    assert (seen.decision.action, one.open, one.unclear) == ("keep", False, "")
    assert one.why.code == Code.RULES_UNREADABLE
    assert "were not read" in one.doubt
    assert one.installed == standby
    fresh = side()  # a guard that starts in such a moment waits
    begun = see(fresh, unread)
    assert begun is not None
    assert (begun.decision.action, fresh.unclear) == ("keep", "")
    later = see(fresh, nat())
    assert later is not None
    assert later.decision.action == "install"
