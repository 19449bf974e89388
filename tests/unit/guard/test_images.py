"""What is written is what is read back, and the meter asks what the standby says."""

from __future__ import annotations

from random import Random

import pytest
from tests.unit.guard.flannels import NETWORK, SUBNET, nat, random_primary

from hitless.guard import images, primaries
from hitless.guard.rule_copy import Unclear
from hitless.guard.standby_rules import learn
from hitless.kernel.nftables import encoding
from hitless.model.families import Family
from hitless.model.rules import Opaque, Rule
from hitless.model.standby import ABOUT

V4 = Family.IPV4


@pytest.mark.slow
def test_canonical_chains_are_their_own_canonical_form() -> None:
    compared = 0
    for case in range(60):
        for family in Family:
            try:
                standby = learn(
                    random_primary(Random(f"canonical {case} {family}"), family), family, primaries.load("flannel")
                )
            except Unclear:
                continue
            assert images.canonical(standby.chains, family) == standby.chains
            compared += bool(standby.chains)
    assert compared > 30


def test_the_image_has_the_chains_a_meter_and_a_note_of_its_places() -> None:
    standby = learn(nat(), V4, primaries.load("flannel"))
    image = images.image(V4, standby.chains, [(place.network, place.subnet) for place in standby.places])
    names = [chain.name for chain in image]
    assert {chain.name for chain in standby.chains} < set(names)
    meters = [chain for chain in image if chain.hook is not None and chain.hook.type == "filter"]
    assert [chain.name for chain in meters] == ["meter.nft.nat.POSTROUTING"]
    about = next(chain for chain in image if chain.name == ABOUT)
    assert [comment for _, comment in about.rules] == [f"pods {NETWORK[V4]} {SUBNET[V4]}"]


def test_the_meter_never_sets_a_mark_and_never_translates() -> None:
    standby = learn(nat(), V4, primaries.load("flannel"))
    image = images.image(V4, standby.chains, [(NETWORK[V4], None)])
    written = b"".join(form for chain in image if chain.name.startswith(("leak.", "meter.")) for form, _ in chain.rules)
    assert b"masq\0" not in written
    assert b"leaked\0" in written
    # kube-proxy's flip of its mark (a bitwise on the mark, then a set) is in the copy and not in the meter
    assert b"bitwise\0" in written
    rules = sum(len(chain.rules) for chain in image if chain.name == "leak.nft.nat.KUBE-POSTROUTING")
    assert rules == 2


def test_an_empty_standby_is_a_table_without_a_hook() -> None:
    assert all(chain.hook is None and not chain.rules for chain in images.image(V4, (), ()))


def test_what_has_no_native_form_is_refused_by_the_encoder() -> None:
    with pytest.raises(encoding.Inexact, match="u32"):
        list(encoding.expressions(Rule((Opaque("u32"),)), 4))
