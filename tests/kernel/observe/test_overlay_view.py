"""A node with an overlay: routes and neighbours of thousands of other nodes are not kept."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from tests.kernel.nftables.nodes import node, programs

from hitless.model.families import Family
from hitless.model.reading import network
from hitless.observe import Asking, find
from hitless.observe.nodes import NodeView, Viewer
from hitless.observe.witnesses import Witnesses

pytestmark = pytest.mark.kernel

LINES = """
link add eth0 type veth peer name far
link set far up
link set eth0 up
addr add 192.0.2.2/24 dev eth0
route add default via 192.0.2.1
link add flannel.1 type vxlan id 1 local 192.0.2.2 dev eth0 dstport 8472 nolearning
link set flannel.1 up
addr add 10.42.0.0/32 dev flannel.1
link add veth1 type veth peer name pod
link set pod up
link set veth1 up
route add 10.42.0.5/32 dev veth1
"""
PEER = """
neigh replace 10.42.{0}.0 lladdr 02:00:00:00:00:{0:02x} dev flannel.1 nud permanent
route add 10.42.{0}.0/24 via 10.42.{0}.0 dev flannel.1 onlink
"""


def test_other_nodes_are_left_out_and_the_witnesses_are_the_same() -> None:
    programs("ip")
    with node() as place:

        def seen() -> tuple[NodeView, Witnesses]:
            viewer = Viewer(place.namespace)
            try:
                view = viewer.look()
                asking = Asking(network("10.42.0.0/16", where="test"), network("10.42.0.0/24", where="test"))
                return view, find(asking, view, lambda *_: "")
            finally:
                viewer.close()

        place.run("ip", "-batch", "-", stdin=LINES)
        before, asked = seen()
        place.run("ip", "-batch", "-", stdin="".join(PEER.format(number) for number in range(1, 40)))
        after, asked_then = seen()
    assert after.routes == before.routes and after.neighbours == before.neighbours
    assert any(not one.to.prefixlen for one in after.routes[Family.IPV4])  # the default route is there
    assert asked == asked_then and [pod.address for pod in asked.pods] == [ip_address("10.42.0.5")]
