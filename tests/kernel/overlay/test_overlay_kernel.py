"""Agents with leases in a shared directory: pods of different nodes reach each other, and go on doing so."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.overlay.ground import HANG, Ground, ground

from hitless.kernel.links import LinkEvents
from hitless.kernel.links.scope import Scope
from hitless.model.reading import network

pytestmark = pytest.mark.kernel

SCOPE = Scope((network("10.42.0.0/16", where="test"), network("fd42::/48", where="test")))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path / "leases") as made:
        yield made


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path / "leases", 3) as made:
        yield made


def test_pods_of_three_nodes_reach_each_other_in_both_families(three: Ground) -> None:
    agents = [three.start(member) for member in three.members]
    for agent in agents:
        agent.wait_ready(peers=2)
    three.all_reach()
    text = three.members[0].node.run("cat", "/run/subnet.env")
    assert "FLANNEL_SUBNET=10.42.1.1/24\n" in text and "FLANNEL_MTU=1430\n" in text


def test_a_restart_changes_nothing_and_stopping_neither(two: Ground) -> None:
    one, other = two.members
    first, second = two.start(one), two.start(other)
    first.wait_ready(peers=1)
    second.wait_ready(peers=1)
    before = one.state()
    events = LinkEvents(one.namespace)
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            two.members[0].agents[-1].end(number)
            assert one.state() == before
            two.start(one).wait_ready(peers=1)
        assert one.state() == before
        assert [one.value for one in events.ready(SCOPE) if one.value is not None] == []
    finally:
        events.close()


def test_damage_of_any_kind_of_object_is_repaired(two: Ground) -> None:
    one, other = two.members
    agent = two.start(one)
    two.start(other).wait_ready(peers=1)
    agent.wait_ready(peers=1)
    before = one.state()
    mac = json.loads(other.ip("-j link show flannel.1"))[0]["address"]
    for words in (
        "ip route del 10.42.2.0/24",
        "ip -6 route del fd42:0:0:2::/64",
        "ip route replace 10.42.2.0/24 via 192.0.2.99",
        "ip neigh del 10.42.2.0 dev flannel.1",
        "ip neigh replace 10.42.2.0 lladdr 02:00:00:00:00:09 dev flannel.1 nud permanent",
        f"bridge fdb del {mac} dev flannel.1",
        f"bridge fdb replace {mac} dev flannel.1 dst 192.0.2.77",
        "ip addr del 10.42.1.0/32 dev flannel.1",
        "ip link set flannel.1 address 02:00:00:00:00:07",
        "ip link set flannel.1 mtu 1300",
        "ip link set flannel.1 down",
        "ip link set flannel-v6.1 down",
        "ip link del flannel.1",
        "ip link del flannel-v6.1",
    ):
        one.node.run(*words.split())
        end = time.monotonic() + HANG
        while (now := _numberless(one.state())) != _numberless(before):
            assert time.monotonic() < end, (words, set(now) ^ set(_numberless(before)))
            time.sleep(0.02)
    two.all_reach()
    assert not agent.events("overlay not applied")


def _numberless(lines: list[str]) -> list[str]:
    """Without interfaces' numbers, and the addresses that the kernel makes itself."""
    return sorted(line.partition(": ")[2] or line for line in lines if "fe80" not in line and "inet6" not in line)


def test_a_node_that_leaves_goes_also_while_the_agent_was_away_and_foreign_state_stays(three: Ground) -> None:
    agents = [three.start(member) for member in three.members]
    for agent in agents:
        agent.wait_ready(peers=2)
    one, _, third = three.members
    agents[0].end()
    agents[2].end()
    (three.directory / "node3.json").unlink()
    foreign = (
        "route add 10.42.77.0/24 via 192.0.2.9", "route add 203.0.113.0/24 dev flannel.1",
        "neigh add 198.51.100.1 lladdr 02:00:00:00:00:08 dev flannel.1 nud permanent",
        "addr add 198.51.100.9/24 dev flannel.1", "link add vxlan.foreign type vxlan id 9 dstport 4790",
    )  # fmt: skip
    for words in foreign:
        one.ip(words)
    assert "10.42.3.0/24" in one.ip("route")
    three.start(one).wait_ready(peers=1)
    state = "\n".join(one.state())
    assert "10.42.3.0" not in state and "fd42:0:0:3:" not in state and "dst 192.0.2.3 " not in state
    for words in ("10.42.77.0/24 via 192.0.2.9", "203.0.113.0/24", "198.51.100.1 ", "198.51.100.9/24", "vxlan.foreign"):
        assert words in state, words
    assert third.number == 3
