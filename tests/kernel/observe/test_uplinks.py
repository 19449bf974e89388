"""The uplink that watch and guard find on nodes with different links and routes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.kernel.nftables.nodes import Node, programs
from tests.kernel.nftables.nodes import node as bare

from hitless.guard.places import Places
from hitless.guard.standby_rules import WitnessPlace
from hitless.model.families import Family
from hitless.model.reading import network
from hitless.observe import Asking, LiveNode

pytestmark = pytest.mark.kernel

LINKS = """
for each in eth0 eth1 dummy0; do
  ip link add $each type veth peer name far-$each; ip link set $each up; ip link set far-$each up
done
ip link add cni0 type bridge; ip link set cni0 up
ip addr add 10.42.0.1/24 dev cni0; ip addr add fd42::1/64 dev cni0 nodad
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
"""
ONE = """
ip addr add 192.0.2.2/24 dev eth0
ip -6 addr add 2001:db8:1::2/64 dev eth0 nodad
"""
DEFAULT = ONE + "ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8:1::1\n"
CASES = {
    "a default route": (DEFAULT, "eth0", "eth0"),
    "nothing at all": ("", "", ""),
    "one interface with an address, and no route out": (ONE, "eth0", "eth0"),
    "a default route into a dummy, the site by a gateway": (
        ONE + "ip addr add 203.0.113.2/24 dev dummy0; ip route add default via 203.0.113.1\n"
        "ip route add 198.18.0.0/15 via 192.0.2.1; ip -6 route add 2001:db8:9::/48 via 2001:db8:1::1\n",
        "eth0",
        "eth0",
    ),
    "a default route by a link without carrier, and a second one": (
        DEFAULT + "ip addr add 203.0.113.2/24 dev eth1; ip route add default via 203.0.113.1 dev eth1 metric 5\n"
        "ip route del default via 192.0.2.1; ip route add default via 192.0.2.1 metric 4; ip link set far-eth0 down\n",
        "eth1",
        "eth0",
    ),
    "pods' packets are routed by a rule of their own": (
        DEFAULT + "ip addr add 203.0.113.2/24 dev eth1; ip route add default via 203.0.113.1 dev eth1 table 7\n"
        "ip rule add from 10.42.0.0/16 lookup 7\n",
        "eth1",
        "eth0",
    ),
    "two halves of the world by a tunnel": (
        DEFAULT + "ip addr add 203.0.113.2/24 dev eth1; ip route add 0.0.0.0/1 via 203.0.113.1\n"
        "ip route add 128.0.0.0/1 via 203.0.113.1\n",
        "eth1",
        "eth0",
    ),
    "another family only": (
        "ip -6 addr add 2001:db8:1::2/64 dev eth0 nodad; ip -6 route add default via 2001:db8:1::1\n",
        "",
        "eth0",
    ),
    "routes to other nodes' pods are no way out": (
        "ip addr add 203.0.113.2/32 dev eth1; ip route add 10.42.1.0/24 via 10.42.0.9\n",
        "",
        "",
    ),
}


@pytest.fixture
def node() -> Iterator[Node]:
    programs("ip", "unshare")
    with bare() as made:
        made.run("sh", "-e", "-c", LINKS)
        yield made


@pytest.mark.parametrize("case", CASES)
def test_watch_and_guard_find_the_same_uplink_and_assume_none(node: Node, case: str) -> None:
    script, *expected = CASES[case]
    node.run("sh", "-e", "-c", script or ":")
    networks = [network("10.42.0.0/16", where="test"), network("fd42::/48", where="test")]
    live, places = LiveNode(node.namespace), Places(node.namespace, tuple(Family))
    named = Places(node.namespace, tuple(Family), "ens7")
    try:
        found = [live.witnesses(Asking(each)).uplink.name for each in networks]
        assert found == expected
        assert [places.witnesses(WitnessPlace(each)).uplink.name for each in networks] == expected
        assert [places.uplink(family) for family in Family] == expected
        assert {named.witnesses(WitnessPlace(each)).uplink.name for each in networks} == {"ens7"}
    finally:
        for each in (live, places, named):
            each.close()


def test_a_known_uplink_stays_known_while_its_route_is_missing(node: Node) -> None:
    node.run("sh", "-e", "-c", DEFAULT + "ip addr add 203.0.113.2/24 dev eth1")
    asking = Asking(network("10.42.0.0/16", where="test"))
    live = LiveNode(node.namespace)
    try:
        assert live.witnesses(asking).uplink.name == "eth0"
        node.run("ip", "route", "del", "default")
        assert live.look(float("inf"))
        assert live.witnesses(asking).uplink.name == "eth0"
    finally:
        live.close()
