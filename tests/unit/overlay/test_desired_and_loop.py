"""Peer by peer is the same as all at once; and the loop: damage, lost events, a kernel that refuses."""

from __future__ import annotations

import asyncio
import errno
import io
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.overlay.worlds import World, clock, cluster, lease, unreached, with_lease, without

from hitless.agent.health import Health
from hitless.agent.metrics import agent_metrics
from hitless.agent.overlay.desired import DesiredObjects
from hitless.agent.overlay.loop import OverlayLoop
from hitless.agent.overlay.worker import Worker
from hitless.daemon.logs import Log
from hitless.desired.overlay import Ground, desired_overlay
from hitless.errors import KernelError
from hitless.model.families import Family
from hitless.model.leases import BackendType, Endpoint, Lease, Leases
from hitless.model.links import Neighbour, Route, Verb, WireguardPeer
from hitless.model.overlay import OverlaySnapshot, WireguardConfig

CHANGES = st.lists(
    st.tuples(st.integers(2, 6), st.sampled_from(["gone", "there"]), st.integers(0, 2), st.integers(2, 6)), max_size=12
)


@pytest.mark.slow
@given(CHANGES)
@settings(max_examples=150, deadline=None)
def test_one_change_after_the_other_leads_to_the_same_as_computing_everything(
    changes: list[tuple[int, str, int, int]],
) -> None:
    snapshot, wanted = cluster(), DesiredObjects()
    wanted.whole(snapshot, Ground())
    for number, what, salt, at in changes:
        node = f"node{number}"
        before = dict(wanted.objects)
        there = lease(at, salt=salt, node=node)  # perhaps with somebody else's subnet and MAC
        snapshot = without(snapshot, node) if what == "gone" else with_lease(snapshot, there)
        keys = wanted.update(snapshot, Ground(), {node})
        if keys is None:
            wanted.whole(snapshot, Ground())
        whole = desired_overlay(snapshot, Ground())
        assert wanted.objects == whole.state.objects and wanted.refused == whole.refused
        if keys is not None:
            changed = {
                key for key in before.keys() | wanted.objects.keys() if before.get(key) != wanted.objects.get(key)
            }
            assert changed <= keys


def test_nonsense_in_one_family_leaves_the_other_alone() -> None:
    snapshot = cluster()
    wrong = lease(3)
    ends = {**wrong.endpoints, Family.IPV6: replace(wrong.endpoints[Family.IPV6], mac="01:00:5e:00:00:01")}
    found = desired_overlay(with_lease(snapshot, Lease("node3", BackendType.VXLAN, ends)), Ground())
    assert list(found.refused) == ["node3 (ipv6)"] and "01:00:5e:00:00:01" in found.refused["node3 (ipv6)"]
    assert ("neighbour", "flannel.1", IPv4Address("10.42.3.0")) in found.state.objects


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (Endpoint(IPv4Network("10.42.1.0/25"), IPv4Address("192.0.2.9"), "02:00:00:00:00:09"), "overlaps this node's"),
        (
            Endpoint(IPv4Network("10.99.0.0/24"), IPv4Address("192.0.2.9"), "02:00:00:00:00:09"),
            "outside of the network",
        ),
        (Endpoint(IPv4Network("10.42.9.0/24"), IPv4Address("192.0.2.1"), "02:00:00:00:00:09"), "this node's own"),
        (
            Endpoint(IPv4Network("10.42.9.0/24"), IPv4Address("192.0.2.9"), "00:00:00:00:00:00"),
            "none of a single device",
        ),
        (Endpoint(IPv4Network("10.42.9.0/24"), IPv4Address("192.0.2.9"), "02:00:00:00:04:01"), "this node's own"),
    ],
)
def test_a_peer_with_an_invalid_lease_is_left_out_with_the_reason(end: Endpoint, words: str) -> None:
    found = desired_overlay(with_lease(cluster(), Lease("node9", BackendType.VXLAN, {Family.IPV4: end})), Ground())
    assert words in found.refused["node9"] and "node9" in found.by_node and not found.by_node["node9"]


def test_a_node_that_encrypts_sends_nothing_in_the_clear() -> None:
    plain = cluster()
    ends = {family: replace(end, mac="", public_key="own=") for family, end in plain.own.endpoints.items()}
    own = Lease("node1", BackendType.WIREGUARD, ends)
    peer = {family: replace(end, mac="", public_key="peer=") for family, end in lease(2).endpoints.items()}
    peers = {"node2": Lease("node2", BackendType.WIREGUARD, peer), "node3": lease(3)}
    snapshot = replace(plain, backend=WireguardConfig(), own=own, leases=Leases(peers, {}, True))
    found = desired_overlay(snapshot, Ground())
    assert "in the clear" in found.refused["node3 (ipv4)"]
    routes = [one for one in found.state.objects.values() if isinstance(one, Route)]
    assert {one.device for one in routes} == {"flannel-wg", "flannel-wg-v6"}
    assert len([one for one in found.state.objects.values() if isinstance(one, WireguardPeer)]) == 2
    assert {one.name: one.mtu for one in found.state.devices()} == {"flannel-wg": 1420, "flannel-wg-v6": 1420}
    single = desired_overlay(replace(snapshot, backend=WireguardConfig(mode="auto")), Ground())
    (both,) = [one for one in single.state.objects.values() if isinstance(one, WireguardPeer)]
    assert {one.version for one in both.allowed} == {4, 6}


# --- the loop


class Told:
    """A waker that is told by hand; as with a socket, what comes while nobody listens is heard by the next who does."""

    def __init__(self) -> None:
        self._listener: Callable[[], None] | None = None
        self._unheard = False

    def watch(self, wake: Callable[[], None]) -> None:
        self._listener = wake
        if self._unheard:
            self.wake()

    def wake(self) -> None:
        listener, self._listener = self._listener, None
        self._unheard = listener is None
        if listener is not None:
            listener()

    def close(self) -> None:
        return

    async def listened_to(self) -> None:
        """Wait until the loop's turn is over, and told of: what happens from now on is another turn's."""
        await until(lambda: self._listener is not None)


def run(story: Callable[[OverlayLoop, World, Told, Health], object], snapshot: OverlaySnapshot) -> tuple[str, Health]:
    """A loop over a fake kernel while the story goes on."""
    world, told, health, text = World.new(), Told(), Health(stale_after=60.0), io.StringIO()

    async def both() -> None:
        loop = OverlayLoop(
            Worker(world.kernel, clock()), told, Log(text), agent_metrics(), health, resync=3600.0, clock=clock()
        )
        loop.desire(snapshot, None)
        turning = asyncio.create_task(loop.run())
        await until(lambda: unreached(world.kernel, snapshot) == [])
        await told.listened_to()
        steps = story(loop, world, told, health)
        assert hasattr(steps, "__await__")
        await steps
        await told.listened_to()
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)

    asyncio.run(both())
    return text.getvalue(), health


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60.0):
        while not holds():  # noqa: ASYNC110 - the fake kernel tells nobody
            await asyncio.sleep(0.002)


def test_damage_is_repaired_when_the_kernel_tells_of_it() -> None:
    async def story(loop: OverlayLoop, world: World, told: Told, health: Health) -> None:
        neighbour = next(one for one in world.kernel.objects.values() if isinstance(one, Neighbour))
        world.kernel.do(Verb.REMOVE, neighbour)
        told.wake()
        await until(lambda: world.kernel.objects.get(neighbour.key) == neighbour)
        await told.listened_to()
        world.kernel.do(Verb.REMOVE, world.kernel.objects["device", "flannel.1"])
        told.wake()
        await until(lambda: unreached(world.kernel, cluster()) == [])

    text, health = run(story, cluster())
    assert text.count('"overlay repaired"') >= 2 and health.overlay == ()


def test_lost_events_are_made_good_by_a_full_read() -> None:
    async def story(loop: OverlayLoop, world: World, told: Told, health: Health) -> None:
        route = next(one for one in world.kernel.objects.values() if isinstance(one, Route))
        world.kernel.do(Verb.REMOVE, route)
        world.kernel.lose_events()
        told.wake()
        await until(lambda: route.key in world.kernel.objects)

    run(story, cluster())


@pytest.mark.slow
def test_a_refused_object_is_reported_and_retried_and_delays_no_other() -> None:
    async def story(loop: OverlayLoop, world: World, told: Told, health: Health) -> None:
        for _ in range(12):
            error = KernelError("write", "a route", errno.ENOBUFS)
            world.kernel.fail_next(error, lambda one: isinstance(one.object, Route) and "10.42.9" in str(one.object))
        more = with_lease(with_lease(cluster(), lease(9)), lease(8))
        loop.desire(more, {"node8", "node9"})
        await until(lambda: world.kernel.way(IPv4Network("10.42.8.0/24")) is not None)
        await until(lambda: bool(health.overlay))
        assert "10.42.9.0/24" in health.overlay[0]
        await until(lambda: unreached(world.kernel, more) == [] and not health.overlay)

    text, _ = run(story, cluster())
    assert '"overlay not applied"' in text
