"""A watch that begins while the agent's chains are empty knows the pod networks by the guard's copies of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.unit.guard.flannels import NETWORK, SUBNET, nat, native

from hitless.guard import primaries
from hitless.guard.standby_rules import learn
from hitless.model.families import Family
from hitless.model.rules import Ruleset
from hitless.watch.networks import better, part_by_rules, pod_networks
from hitless.watch.profiles import load

BOTH = pytest.mark.parametrize("family", list(Family))


def legacy(family: Family, **more: object) -> Ruleset:
    return nat(family, legacy=True, **more)  # type: ignore[arg-type]  # the words of nat


@BOTH
@pytest.mark.parametrize(
    ("rules", "profile", "chain"),
    [
        (nat, "canal", "nft.nat.FLANNEL-POSTRTG"),
        (nat, "flannel", "nft.nat.FLANNEL-POSTRTG"),
        (legacy, "canal", "legacy.nat.FLANNEL-POSTRTG"),
        (native, "flannel-nftables", "nft.flannel-{}.postrtg"),
    ],
)
def test_the_guard_knows_what_the_emptied_chains_named(
    family: Family, rules: Callable[..., Ruleset], profile: str, chain: str
) -> None:
    standby = learn(rules(family), family, primaries.load("flannel")).ruleset()
    emptied = rules(family, chain=())
    watched = load(profile)
    assert pod_networks(emptied, watched) == {}
    both = Ruleset((*emptied.tables, *standby.tables))
    assert pod_networks(both, watched) == {NETWORK[family]: chain.format(family.value)}
    assert part_by_rules(both, watched, NETWORK[family]) == SUBNET[family]


@BOTH
def test_the_agents_own_chains_speak_first(family: Family) -> None:
    whole = nat(family)
    standby = learn(whole, family, primaries.load("flannel")).ruleset()
    both = Ruleset((*standby.tables, *whole.tables))
    assert pod_networks(both, load("canal")) == {NETWORK[family]: "FLANNEL-POSTRTG"}


def test_what_the_guard_keeps_of_other_agents_is_not_asked() -> None:
    standby = learn(nat(), Family.IPV4, primaries.load("flannel")).ruleset()
    assert pod_networks(standby, load("flannel-nftables")) == {}


@BOTH
def test_a_profile_that_watches_none_of_the_agents_rules_is_told_which_one_fits(family: Family) -> None:
    natives, chains = native(family), nat(family)
    for profile in ("canal", "flannel"):
        told = better(natives, load(profile))
        assert told.endswith("--profile flannel-nftables fits") and f"flannel-{family.value} postrtg" in told
        assert better(Ruleset((*natives.tables, *nat(family, chain=()).tables)), load(profile)) == told
        assert [better(one, load(profile)) for one in (chains, nat(family, chain=()), Ruleset())] == [""] * 3
    assert better(chains, load("flannel-nftables")).endswith("--profile canal or flannel fits")
    assert better(natives, load("flannel-nftables")) == ""
