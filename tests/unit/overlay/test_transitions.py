"""From every way of carrying pods' packets to every other one: no peer is without a way after any write, wherever the
agent dies, and the next start leads to where it was going."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from tests.unit.overlay.worlds import (
    MOST,
    NETWORKS,
    OUTER,
    World,
    at,
    cluster,
    lease,
    mac,
    unreached,
    with_lease,
    without,
)

from hitless.agent.overlay.worker import Worker
from hitless.model.families import Family
from hitless.model.leases import BackendType, Endpoint, Lease
from hitless.model.links import Device, LinkObject, LinkState, Route, Verb
from hitless.model.overlay import HostGw, Outer, OverlaySnapshot, VxlanConfig
from hitless.testing.fake_kernel import Death
from hitless.testing.fake_links import FakeLinks


def moved(snapshot: OverlaySnapshot) -> OverlaySnapshot:
    """This node has another address."""
    address = IPv4Address("192.0.2.200")
    return replace(snapshot, outer={**OUTER, Family.IPV4: Outer("eth0", 1500, address, address)})


def with_mac(snapshot: OverlaySnapshot) -> OverlaySnapshot:
    """This node's devices have other hardware addresses."""
    ends = {family: replace(end, mac=mac(family, 1, salt=9)) for family, end in snapshot.own.endpoints.items()}
    return replace(snapshot, own=replace(snapshot.own, endpoints=ends))


def single(snapshot: OverlaySnapshot) -> OverlaySnapshot:
    """The same cluster without IPv6."""

    def only(one: Lease) -> Lease:
        return replace(one, endpoints={Family.IPV4: one.endpoints[Family.IPV4]})

    leases = {name: only(one) for name, one in snapshot.leases.by_node.items()}
    return replace(
        snapshot,
        networks={Family.IPV4: NETWORKS[Family.IPV4]},
        outer={Family.IPV4: OUTER[Family.IPV4]},
        own=only(snapshot.own),
        leases=replace(snapshot.leases, by_node=leases),
    )


def readdressed(value: Lease) -> Lease:
    """A peer at another address, in both families."""
    ends = {family: replace(end, public_ip=end.public_ip + 100) for family, end in value.endpoints.items()}
    return replace(value, endpoints=ends)


OLD, GATEWAY = BackendType.VXLAN, BackendType.HOST_GW
TRANSITIONS = {
    "nothing": (cluster(), cluster()),
    "MTU": (cluster(), cluster(VxlanConfig(mtu=1400))),
    "port": (cluster(), cluster(VxlanConfig(port=4789))),
    "GBP": (cluster(), cluster(VxlanConfig(gbp=True))),
    "learning": (cluster(), cluster(VxlanConfig(learning=True))),
    "VNI, peers still use the old one": (cluster(), cluster(VxlanConfig(vni=7), vni=1)),
    "VNI, peers use the new one": (cluster(), cluster(VxlanConfig(vni=7))),
    "VNI, the last peers follow": (cluster(VxlanConfig(vni=7), vni=1), cluster(VxlanConfig(vni=7))),
    "vxlan to host-gw, peers still use vxlan": (cluster(), cluster(HostGw(), kind=OLD)),
    "vxlan to host-gw": (cluster(), cluster(HostGw())),
    "host-gw to vxlan, peers still use host-gw": (cluster(HostGw()), cluster(kind=BackendType.HOST_GW)),
    "host-gw to vxlan": (cluster(HostGw()), cluster()),
    "DirectRouting on": (cluster(), cluster(VxlanConfig(direct_routing=True))),
    "DirectRouting off": (cluster(VxlanConfig(direct_routing=True)), cluster()),
    "this node's address": (cluster(), moved(cluster())),
    "this node's hardware address": (cluster(), with_mac(cluster())),
    "a peer's hardware address": (cluster(), with_lease(cluster(), lease(3, salt=5))),
    "a peer's address": (cluster(), with_lease(cluster(), readdressed(lease(3)))),
    "a peer's address, host-gw": (cluster(HostGw()), with_lease(cluster(HostGw()), readdressed(lease(3, GATEWAY)))),
    "a peer comes": (without(cluster(), "node4"), cluster()),
    "IPv6 comes": (single(cluster()), cluster()),
    "IPv6 goes": (cluster(), single(cluster())),
    "a peer goes": (cluster(), without(cluster(), "node4")),
    "a peer's name is used again": (cluster(), with_lease(without(cluster(), "node4"), lease(99, node="node4"))),
}


def kept(target: OverlaySnapshot, before: OverlaySnapshot) -> OverlaySnapshot:
    """The peers of both, as the target knows them."""
    nodes = before.leases.by_node.keys() & target.leases.by_node.keys()
    same: dict[str, Lease] = {}
    for name in nodes:
        old, new = before.leases.by_node[name], target.leases.by_node[name]
        both = {
            family: end
            for family, end in new.endpoints.items()
            if family in old.endpoints and old.endpoints[family].subnet == end.subnet
        }
        if same_address(both, old):
            same[name] = replace(new, endpoints=both)
    return replace(target, leases=replace(target.leases, by_node=same))


def same_address(ends: Mapping[Family, Endpoint], old: Lease) -> bool:
    """A peer that moved is reached at its new address only when that was written."""
    return all(end.public_ip == old.endpoints[family].public_ip for family, end in ends.items())


def numberless(kernel: FakeLinks) -> LinkState:
    values: list[LinkObject] = [
        replace(one, index=0) if isinstance(one, Device) else one for one in kernel.objects.values()
    ]
    return LinkState.of(values)


@pytest.mark.parametrize("name", TRANSITIONS)
def test_no_write_leaves_a_peer_without_a_way_and_death_at_any_of_them_is_made_good(name: str) -> None:
    before, after = TRANSITIONS[name]
    start = World.new()
    if name == "VNI, the last peers follow":  # then the first device is still there
        start.reach(cluster())
    assert not start.reach(before).left
    assert unreached(start.kernel, before) == []
    watched = kept(after, before)
    # the kernel forgets a device's neighbours with its MAC; and two devices may not have one VNI and port
    gap = name in ("this node's hardware address", "GBP")

    whole = World(start.kernel.fork())
    turn = whole.reach(after)
    assert not turn.left and not turn.refused and unreached(whole.kernel, after) == []
    for state in whole.kernel.history if not gap else ():
        assert unreached(at(whole.kernel, state), watched) == []
    target, total = numberless(whole.kernel), whole.kernel.writes
    assert (total == 0) is (name in ("nothing", "vxlan to host-gw, peers still use vxlan"))
    names = [one.name for one in target.devices()]
    assert not [one for one in names if one.startswith("flold")]

    for number in range(total):
        for early in (True, False):
            world = World(start.kernel.fork())
            world.kernel.die_at(number, before=early)
            with pytest.raises(Death):
                world.reach(after)
            world.kernel.die_at(None)
            turn = world.reach(after)
            assert not turn.left and numberless(world.kernel).objects == target.objects
            for state in world.kernel.history if not gap else ():
                assert unreached(at(world.kernel, state), watched) == []


def test_nothing_is_removed_before_all_leases_are_known() -> None:
    world = World.new()
    world.reach(cluster())
    alone = without(cluster(), "node4")
    unsure = replace(alone, leases=replace(alone.leases, synced=False))
    worker = Worker(world.kernel, lambda: 0.0)
    assert not world.reach(unsure, worker).done
    assert unreached(world.kernel, cluster()) == []
    world.reach(alone, worker)
    assert len(unreached(world.kernel, cluster())) == 2
    assert len(cluster().leases.by_node) == MOST - 2


def test_what_peers_may_still_send_to_stays_for_a_while() -> None:
    world, now = World.new(), [0.0]
    world.reach(cluster())
    worker = Worker(world.kernel, lambda: now[0], linger=60.0)
    world.reach(cluster(VxlanConfig(vni=7)), worker)
    assert {"flannel.1", "flannel.7"} <= {one.name for one in numberless(world.kernel).devices()}
    now[0] = 59.0
    assert not worker.turn(whole=True).done
    now[0] = 61.0
    assert worker.turn(whole=True).done
    assert "flannel.1" not in {one.name for one in numberless(world.kernel).devices()}


@pytest.mark.parametrize("incremental", [True, False])
def test_a_plain_route_of_a_node_that_left_goes_also_where_plain_routes_are_not_the_backend(incremental: bool) -> None:
    mixed = with_lease(cluster(), lease(4, GATEWAY))
    world = World.new()
    foreign = Route(IPv4Network("10.42.77.0/24"), "eth0", IPv4Address("192.0.2.9"))
    world.kernel.do(Verb.ADD, foreign)
    worker = Worker(world.kernel, lambda: 0.0)
    world.reach(mixed, worker)
    plain = [one for one in world.kernel.objects.values() if isinstance(one, Route) and not one.onlink]
    assert len(plain) == 3
    worker.desire(without(mixed, "node4"), {"node4"} if incremental else None)
    assert worker.turn(whole=not incremental).done
    plain = [one for one in world.kernel.objects.values() if isinstance(one, Route) and not one.onlink]
    assert plain == [foreign]
