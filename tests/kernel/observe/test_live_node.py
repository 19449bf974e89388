"""A node that is read repeatedly: whether the witnesses have changed."""

from __future__ import annotations

import time

import pytest
from tests.kernel.nftables.nodes import node, programs

from hitless.model.families import Family
from hitless.model.reading import network
from hitless.observe import Asking, LiveNode

pytestmark = pytest.mark.kernel

PORT = """
link add veth{0} type veth peer name pod{0}
link set pod{0} up
link set veth{0} master cni0 up
neigh replace 10.42.0.{0} lladdr 02:00:00:00:00:0{0} dev cni0 nud stale
"""
# with an address of its own: else a new port may give the bridge another one, and the kernel forgets its neighbours
LINES = """
link add cni0 address 02:00:00:00:00:01 type bridge
link set cni0 up
addr add 10.42.0.1/24 dev cni0
""" + PORT.format(5)


def _ages(live: LiveNode) -> list[int]:
    return [one.age for one in live.view.neighbours[Family.IPV4]]


def test_a_pod_that_was_confirmed_longer_ago_is_the_same_one_and_a_new_pod_is_added() -> None:
    programs("ip")
    asking = Asking(network("10.42.0.0/16", where="test"), network("10.42.0.0/24", where="test"))
    with node() as place:
        place.run("ip", "-batch", "-", stdin=LINES)
        live = LiveNode(place.namespace, [Family.IPV4])
        try:
            first, ages = live.witnesses(asking), _ages(live)
            assert [str(pod.address) for pod in first.pods] == ["10.42.0.5"]
            end = time.monotonic() + 60
            while _ages(live) == ages:  # the ages are the kernel's ticks
                assert time.monotonic() < end
                time.sleep(0.01)
                assert live.look(time.monotonic() + 100)
                assert live.witnesses(asking) == first
            place.run("ip", "-batch", "-", stdin=PORT.format(6))
            assert live.look(time.monotonic() + 100)
            assert [str(pod.address) for pod in live.witnesses(asking).pods] == ["10.42.0.5", "10.42.0.6"]
        finally:
            live.close()
