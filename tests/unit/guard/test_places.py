"""Which pods and which uplink the guard asks about, and when they are others than before."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.guard.flannels import NETWORK, SUBNET

from hitless.guard import places
from hitless.guard.places import NOWHERE, Places
from hitless.guard.standby_rules import WitnessPlace
from hitless.kernel.namespaces import HERE
from hitless.model.families import Family
from hitless.observe import Asking, LocalPod, NodeView, Witnesses, find

PLACES = {family: WitnessPlace(NETWORK[family], SUBNET[family]) for family in Family}


class Node:
    """A ``LiveNode``: pods and uplinks as the test says, and how often each was asked for."""

    def __init__(self, *_: object, uplink: str = "") -> None:
        self.pods: dict[Family, int] = dict.fromkeys(Family, 0)
        self.ways: dict[Family, str] = dict.fromkeys(Family, "eth0")
        self.reads = True
        self.asked = 0
        self.closed = False
        self.uplink_named = uplink

    def look(self, now: float) -> bool:
        return self.reads

    def witnesses(self, asking: Asking) -> Witnesses:
        self.asked += 1
        family = Family.IPV4 if asking.network.version == 4 else Family.IPV6
        found = find(replace(asking, uplink=self.ways[family]), NodeView(), lambda *_: "")
        home = SUBNET[family]
        return replace(found, pods=tuple(LocalPod(home[n + 10], f"veth{n}") for n in range(self.pods[family])))

    def uplink(self, family: Family) -> str:
        return "default0"

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(places, "LiveNode", lambda *_, **__: made)
    return made


def test_a_place_is_asked_about_once_until_the_node_is_read_again(node: Node) -> None:
    around = Places(HERE, tuple(Family))
    first = around.witnesses(PLACES[Family.IPV4])
    assert around.witnesses(PLACES[Family.IPV4]) is first and node.asked == 1
    around.close()
    assert node.closed


def test_other_pods_are_reported_for_their_family_alone(node: Node) -> None:
    around = Places(HERE, tuple(Family))
    for place in PLACES.values():
        around.witnesses(place)
    assert around.changed(1.0) == frozenset()
    node.pods[Family.IPV6] = 2
    assert around.changed(2.0) == {Family.IPV6}
    assert len(around.witnesses(PLACES[Family.IPV6]).pods) == 2
    assert around.changed(3.0) == frozenset()


def test_without_a_reading_nothing_has_changed(node: Node) -> None:
    around = Places(HERE, tuple(Family))
    around.witnesses(PLACES[Family.IPV4])
    node.reads, node.pods[Family.IPV4] = False, 1
    assert around.changed(1.0) == frozenset()
    node.reads = True
    assert around.changed(2.0) == {Family.IPV4}


def test_the_uplink_is_that_of_pods_packets_and_else_the_nodes(node: Node) -> None:
    around = Places(HERE, tuple(Family))
    assert around.uplink(Family.IPV4) == "default0"
    around.witnesses(PLACES[Family.IPV4])
    assert around.uplink(Family.IPV4) == "eth0"
    assert around.uplink(Family.IPV6) == "default0"
    node.ways[Family.IPV4] = "eth1"
    assert around.changed(1.0) == {Family.IPV4}
    assert around.uplink(Family.IPV4) == "eth1"


def test_a_node_of_which_nothing_is_known_has_no_pods_and_no_uplink() -> None:
    found = NOWHERE.witnesses(PLACES[Family.IPV4])
    assert not found.pods and found.unused and not found.uplink.name
    assert NOWHERE.uplink(Family.IPV4) == ""
