"""One peer's change costs the same whatever the number of peers, and nothing is in memory twice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import FrameType
from typing import Any

import pytest
from tests.unit.overlay.worlds import World, clock, cluster

from hitless.agent.overlay.worker import Worker
from hitless.model.families import Family
from hitless.model.leases import BackendType, Endpoint, Lease, Leases
from hitless.model.links import Device
from hitless.model.overlay import OverlaySnapshot


def peer(number: int, salt: int = 0) -> Lease:
    mac = f"02:00:00:{salt:02x}:00:{number:02x}"
    four = Endpoint(IPv4Network((0x0A2A0000 + (number << 8), 24)), IPv4Address(0xC6336400 + number), mac, 1)
    six_net, six = int(IPv6Address("fd42::")) + (number << 64), int(IPv6Address("fd01::")) + number
    ends = {Family.IPV4: four, Family.IPV6: Endpoint(IPv6Network((six_net, 64)), IPv6Address(six), f"06{mac[2:]}", 1)}
    return Lease(f"n{number}", BackendType.VXLAN, ends)


def settled(count: int) -> tuple[World, Worker, OverlaySnapshot]:
    world = World.new()
    worker = Worker(world.kernel, clock())
    snapshot = cluster(peers={one.node: one for one in map(peer, range(2, count + 2))})
    worker.desire(snapshot, None)
    turn = worker.turn()
    assert not turn.left and turn.peers == count
    worker.turn()  # what its own writes made of the kernel is known by now
    return world, worker, snapshot


def steps(act: Callable[[], object]) -> int:
    """The instructions of the interpreter that it takes: unlike time, the same each time."""
    counted = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal counted
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        counted += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return counted


def cost(count: int) -> int:
    world, worker, snapshot = settled(count)

    def change() -> None:
        now = replace(snapshot.leases, by_node={**snapshot.leases.by_node, "n3": peer(3, salt=1)})
        worker.desire(replace(snapshot, leases=now), {"n3"})
        turn = worker.turn()
        assert {str(one.object.key[0]) for one in turn.done} == {"forwarding", "neighbour"} and not turn.left

    world.kernel.history.clear()
    return steps(change)


def test_one_peers_change_costs_the_same_among_many_as_among_few() -> None:
    few, many = cost(10), cost(200)
    assert many < few * 1.02  # a few more steps in tables that have grown


@pytest.mark.parametrize("restarted", [False, True])
def test_what_is_there_and_what_should_be_are_the_same_objects(restarted: bool) -> None:
    world, worker, snapshot = settled(20)
    if restarted:
        worker = Worker(world.kernel, clock())
        worker.desire(snapshot, None)
        assert not worker.turn().done
    mirror, wanted = worker._mirror, worker._wanted
    for key, value in mirror.objects.items():
        same = wanted.objects.get(key)
        if same is not None and not isinstance(same, Device):
            assert same is value and key is value.key
    held = {id(key) for key in mirror.objects}
    assert all(id(key) in held for keys in wanted.by_node.values() for key in keys)
    assert isinstance(snapshot.leases, Leases)
