"""A node that is looked at again and again: whether it is another one than before."""

from __future__ import annotations

import time

import pytest
from tests.kernel.nftables.nodes import node, programs

from hitless.model.families import Family
from hitless.observe import LiveNode

pytestmark = pytest.mark.kernel

LINES = """
link add cni0 type bridge
link set cni0 up
addr add 10.42.0.1/24 dev cni0
link add veth1 type veth peer name pod
link set pod up
link set veth1 master cni0 up
neigh replace 10.42.0.5 lladdr 02:00:00:00:00:05 dev cni0 nud reachable
"""


def test_a_neighbour_that_only_grew_older_makes_no_other_node_and_a_new_one_does() -> None:
    programs("ip")
    with node() as place:
        place.run("ip", "-batch", "-", stdin=LINES)
        live = LiveNode(place.namespace, [Family.IPV4])
        try:
            settled = time.monotonic() + 60
            while not all(link.carrier for link in live.view.links.values() if link.up):  # the kernel takes a second
                live.look(time.monotonic() + 100)
                assert time.monotonic() < settled
            first = live.view.neighbours[Family.IPV4]
            assert [str(one.address) for one in first] == ["10.42.0.5"]
            while live.view.neighbours[Family.IPV4] == first:  # the ages are the kernel's ticks
                assert not live.changed(time.monotonic() + 100)
                assert time.monotonic() < settled
                time.sleep(0.01)
            place.run(
                "ip", "-batch", "-", stdin="neigh replace 10.42.0.6 lladdr 02:00:00:00:00:06 dev cni0 nud stale\n"
            )
            assert live.changed(time.monotonic() + 100)
            assert not live.changed(time.monotonic()), "it is not time yet"
        finally:
            live.close()
