"""A path MTU that the kernel has learnt for one destination is neither a route nor a pod of this node."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from tests.kernel.nftables.nodes import Node, node, programs, wait_for

from hitless.kernel.addresses import NodeFacts
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, names_of, unicast
from hitless.model.families import Family
from hitless.observe.nodes import Viewer
from hitless.observe.pods import pods

pytestmark = pytest.mark.kernel

FAR = {Family.IPV4: "10.42.5.7", Family.IPV6: "fd42:0:0:5::7"}
NETWORK = {Family.IPV4: "10.42.0.0/16", Family.IPV6: "fd42::/48"}
OWN = {Family.IPV4: "10.42.0.0/24", Family.IPV6: "fd42::/64"}
HERE = """
ip link add d0 type veth peer name d0 netns {router}
ip link set d0 up
ip addr add 192.0.2.2/24 dev d0
ip addr add fd00::2/64 dev d0 nodad
ip route add 10.42.0.0/16 dev d0
ip -6 route add fd42::/48 dev d0
"""
# it answers for the whole pod network, and sends on by a link with a smaller MTU
ROUTER = """
ip link set d0 up
ip addr add 192.0.2.1/24 dev d0
ip addr add fd00::1/64 dev d0 nodad
ip link add w0 mtu 1280 type veth peer name w1
ip link set w0 up
ip link set w1 up
ip addr add 198.51.100.1/24 dev w0
ip addr add fd99::1/64 dev w0 nodad
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.d0.proxy_arp=1
sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.d0.proxy_ndp=1
ip route add 10.42.5.7 dev w0
ip -6 route add fd42:0:0:5::7 dev w0
ip neigh add 10.42.5.7 lladdr 02:00:00:00:00:09 dev w0
ip neigh add fd42:0:0:5::7 lladdr 02:00:00:00:00:09 dev w0
ip neigh add proxy fd42:0:0:5::7 dev d0
"""


@pytest.fixture
def place() -> Iterator[Node]:
    programs("ip", "ping")
    with node() as here, node() as router:
        here.run("sh", "-ec", HERE.format(router=router.namespace.pid))
        router.run("sh", "-ec", ROUTER)
        yield here


@pytest.mark.parametrize("family", Family)
def test_a_learnt_path_mtu_is_neither_a_route_nor_a_pod(place: Node, family: Family) -> None:
    far, alone = FAR[family], ip_network(FAR[family])
    with RtnetlinkReader(place.namespace) as reader:

        def learnt() -> bool:
            place.run("ping", "-c", "1", "-W", "1", "-M", "do", "-s", "1400", far, check=False)
            every = reader.routes(names_of(reader.devices()), family, lambda _: True)
            return alone in [route.to for route in every]

        wait_for(learnt, "the kernel to learn the path MTU")
        assert alone not in [route.to for route in reader.routes(names_of(reader.devices()), family, unicast)]
    facts, viewer = NodeFacts(place.namespace), Viewer(place.namespace)
    try:
        assert list(facts.paths(family).hosts(ip_network(NETWORK[family]))) == []
        assert facts.paths(family).interface(ip_address(far)) == "d0"
        assert pods(viewer.look(), ip_network(NETWORK[family]), ip_network(OWN[family])) == ()
    finally:
        facts.close()
        viewer.close()
