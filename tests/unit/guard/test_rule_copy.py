"""What is copied, what is left out and said, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.unit.guard.flannels import HOOK, KUBE, NETWORK, SUBNET, flannel_rules, nat, native

from hitless.guard import primaries
from hitless.guard.rule_copy import Unclear
from hitless.guard.standby_rules import StandbyRules, learn
from hitless.model.families import Family
from hitless.model.packets import Packet
from hitless.model.rules import (
    Accept,
    Chain,
    Destination,
    Goto,
    Jump,
    Mark,
    Masquerade,
    Opaque,
    OpaqueAction,
    Protocol,
    Return,
    Rule,
    Ruleset,
    SetMark,
    SetMember,
    Source,
    Step,
    Table,
)
from hitless.semantics import evaluate

V4 = Family.IPV4
POD, FAR = SUBNET[V4][10], "198.51.100.77"


def learned(ruleset: Ruleset, family: Family = V4) -> StandbyRules:
    return learn(ruleset, family, primaries.load("flannel"))


def carries(standby: StandbyRules, **changes: object) -> bool:

    packet = Packet(**{"src": POD, "dst": ip_address(FAR), "oif": "eth0", "iif": "pod", **changes})  # type: ignore[arg-type]
    return evaluate(standby.ruleset(), packet, ("postrouting",)).state == "carried"


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("legacy", [False, True])
def test_flannels_chain_is_learned_with_its_network_and_this_nodes_part(family: Family, legacy: bool) -> None:
    standby = learned(nat(family, legacy=legacy), family)
    assert [(place.network, place.subnet) for place in standby.places] == [(NETWORK[family], SUBNET[family])]
    prefix = "legacy" if legacy else "nft"
    assert {chain.name for chain in standby.chains} == {
        f"{prefix}.nat.{name}" for name in ("POSTROUTING", "KUBE-POSTROUTING", "FLANNEL-POSTRTG")
    }


def test_the_copy_stands_right_behind_its_original() -> None:
    (base,) = [chain for chain in learned(nat()).chains if chain.hook is not None]
    assert base.hook is not None
    assert base.hook.priority == HOOK.priority + 1


@pytest.mark.parametrize("family", list(Family))
def test_flannels_nftables_mode_is_learned_too(family: Family) -> None:
    standby = learned(native(family), family)
    assert standby.networks == (NETWORK[family],)


def test_returns_are_part_of_what_is_said() -> None:
    standby = learned(nat())
    assert carries(standby)
    assert not carries(standby, dst=NETWORK[V4][0x300])
    assert carries(standby, mark=0x4000)  # kube-proxy's chain, which stands in front, translates it


def test_an_accept_in_front_of_the_primary_is_honoured() -> None:

    standby = learned(nat(front=(Rule((Destination(ip_network("198.51.100.77/32")), Accept())),)))
    assert not carries(standby)
    assert standby.networks == (NETWORK[V4],)


def test_rules_that_decide_nothing_are_not_copied() -> None:
    quiet = Chain("QUIET", (Rule((Opaque("anything"), Return())),))
    front = (Rule((Opaque("statistic"), Jump("QUIET"))), Rule((Opaque("counts"),)), Rule((SetMark(0x80, 0x80),)))
    standby = learned(nat(front=front, more=(quiet,)))
    assert standby.chains == learned(nat()).chains
    assert standby.left_out == ()


def test_a_translation_behind_an_unknown_condition_is_left_to_the_primary_and_named() -> None:
    loopback = Rule((SetMember("KUBE-LOOP-BACK", "dst"), Masquerade()))
    standby = learned(nat(front=(loopback,)))
    assert standby.chains == learned(nat()).chains
    assert len(standby.left_out) == 1
    assert "POSTROUTING rule 1" in str(standby.left_out[0])


def test_a_chain_of_nothing_but_unknown_translations_is_left_out_whole() -> None:
    odd = Chain("ODD", (Rule((Opaque("u32"), Return())), Rule((Source(NETWORK[V4]), Masquerade()))))
    standby = learned(nat(front=(Rule((Jump("ODD"),)),), more=(odd,)))
    assert standby.chains == learned(nat()).chains
    assert "ODD" in str(standby.left_out[0])


@pytest.mark.parametrize(
    "steps",
    [
        (Opaque("recent"), Accept()),
        (Opaque("recent"), Return()),
        (SetMember("no-nat", "dst"), Return()),
        (OpaqueAction("queue"),),
        (Opaque("recent"), Goto("KUBE-POSTROUTING")),
        (Mark(0x4000, 0x4000), SetMark(0x4000, 0)),  # flips a bit that flannel asks for, and goes on
        (Protocol(6), SetMark(0x4000, 0x4000)),
    ],
)
def test_what_has_no_exact_copy_is_refused_and_named(steps: tuple[Step, ...]) -> None:
    with pytest.raises(Unclear, match="POSTROUTING rule 1"):
        learned(nat(front=(Rule(steps),)))


def test_an_unknown_exemption_in_a_called_chain_is_refused() -> None:
    odd = Chain("ODD", (Rule((Opaque("u32"), Accept())),))
    with pytest.raises(Unclear, match="ODD rule 1"):
        learned(nat(front=(Rule((Jump("ODD"),)),), more=(odd,)))


def test_another_nat_chain_that_changes_a_tested_mark_is_refused() -> None:
    other = Table("ip", "other", {"post": Chain("post", (Rule((SetMark(0x4000, 0x4000),)),), HOOK)})
    with pytest.raises(Unclear, match="other post rule 1"):
        learned(Ruleset((*nat().tables, other)))


def test_kube_proxys_flip_of_its_mark_is_harmless_because_it_translates_next() -> None:
    other = Table("ip", "kube-proxy", {"nat-postrouting": Chain("nat-postrouting", KUBE, HOOK)})
    assert learned(Ruleset((*native().tables, other))).networks == (NETWORK[V4],)


def test_an_emptied_chain_or_a_missing_jump_carries_nothing() -> None:
    assert learned(nat(chain=())).places == ()
    assert learned(nat(jump=False)).places == ()
    assert learned(Ruleset()).places == ()


def test_rules_without_a_network_are_carried_for_networks_that_people_name() -> None:
    ruleset = nat(chain=(Rule((Masquerade(),)),))
    assert learned(ruleset).places == ()
    named = learn(ruleset, V4, primaries.load("flannel"), networks=[NETWORK[V4]])
    assert named.networks == (NETWORK[V4],)


def test_the_guards_own_table_is_never_learned_from() -> None:
    standby = learned(nat())
    assert learned(Ruleset((*nat(chain=()).tables, *standby.ruleset().tables))).places == ()


def test_a_policy_of_drop_is_refused() -> None:
    table = nat().tables[0]

    base = replace(table.chains["POSTROUTING"], hook=replace(HOOK, policy="drop"))
    with pytest.raises(Unclear, match="policy"):
        learned(Ruleset((replace(table, chains={**table.chains, "POSTROUTING": base}),)))


def test_two_backends_at_once_are_both_copied() -> None:
    both = Ruleset((*nat().tables, *nat(legacy=True, chain=flannel_rules(V4)).tables))
    standby = learned(both)
    assert sorted(chain.hook.priority for chain in standby.chains if chain.hook is not None) == [101, 102]
