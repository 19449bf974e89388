"""WireGuard on a fake kernel: to it and back from every other backend, wherever the agent dies, and nothing of a peer's
goes in the clear once this node encrypts; keys that change, preshared keys, and peers behind a NAT."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.unit.overlay.test_transitions import kept, numberless
from tests.unit.overlay.worlds import MOST, OUTER, World, at, cluster, lease, ways, with_lease, without

from hitless.agent.overlay.identity import offer
from hitless.agent.overlay.keys import key_file, stored_or_made
from hitless.agent.overlay.worker import Worker
from hitless.errors import InputError, KernelError
from hitless.kernel.links.wireguard import Secrets
from hitless.model.families import Family, Network
from hitless.model.leases import BackendType, Lease, Leases
from hitless.model.links import Device, LinkState, Route, Verb, WireguardPeer
from hitless.model.overlay import HostGw, OverlaySnapshot, VxlanConfig, WireguardConfig
from hitless.testing.fake_kernel import Death
from hitless.testing.fake_links import FakeLinks

CLEAR = ("flannel.1", "flannel-v6.1", "eth0")


def key(number: int) -> str:
    return base64.b64encode(bytes([number]) * 32).decode()


def encrypted(number: int, *, salt: int = 0, mode: str = "separate") -> Lease:
    plain = lease(number, BackendType.HOST_GW)
    ends = {
        family: replace(
            end, public_key=key(number + salt), port=51821 if family is Family.IPV6 and mode == "separate" else 51820
        )
        for family, end in plain.endpoints.items()
    }
    return Lease(plain.node, BackendType.WIREGUARD, ends)


def with_subnet_of(number: int, other: int) -> Lease:
    """A peer that has the other's subnet."""
    ends = encrypted(other).endpoints
    mine = {family: replace(end, subnet=ends[family].subnet) for family, end in encrypted(number).endpoints.items()}
    return replace(encrypted(number), endpoints=mine)


def wireguard(*others: Lease, mode: str = "separate", synced: bool = True, **fields: object) -> OverlaySnapshot:
    """Node 1 and its peers; ``others`` in place of those of their names."""
    plain = cluster(synced=synced)
    peers = {one.node: one for one in (encrypted(number, mode=mode) for number in range(2, MOST))}
    peers |= {one.node: one for one in others}
    backend = WireguardConfig(mode=mode, **fields)  # type: ignore[arg-type]  # fields by name
    return replace(plain, backend=backend, own=encrypted(1, mode=mode), leases=Leases(peers, {}, synced))


def all_plain(snapshot: OverlaySnapshot) -> OverlaySnapshot:
    """Its peers have not changed yet."""
    return replace(snapshot, leases=cluster().leases)


VXLAN, PLAIN, DIRECT = cluster(), cluster(HostGw()), cluster(VxlanConfig(direct_routing=True))
TRANSITIONS = {
    "nothing": (wireguard(), wireguard()),
    "vxlan to wireguard": (VXLAN, wireguard()),
    "vxlan to one device for both families": (VXLAN, wireguard(mode="auto")),
    "host-gw to wireguard": (PLAIN, wireguard()),
    "DirectRouting to wireguard": (DIRECT, wireguard()),
    "wireguard to vxlan": (wireguard(), VXLAN),
    "wireguard to host-gw": (wireguard(), PLAIN),
    "two devices to one": (wireguard(), wireguard(mode="auto")),
    "one device to two": (wireguard(mode="ipv6"), wireguard()),
    "another port": (wireguard(), wireguard(port=7, port_v6=8)),
    "another MTU": (wireguard(), wireguard(mtu=1400)),
    "a preshared key": (wireguard(), wireguard(preshared_key=key(99), keepalive=25)),
    "a peer's key": (wireguard(), wireguard(encrypted(3, salt=50))),
    "this node's key": (wireguard(), replace(wireguard(), own=encrypted(1, salt=60))),
    "a peer goes": (wireguard(), without(wireguard(), "node4")),
    "two peers swap their subnets": (
        wireguard(), wireguard(with_subnet_of(2, 3), with_subnet_of(3, 2)),
    ),
    "all peers still use vxlan": (VXLAN, all_plain(wireguard())),
    "all peers still use host-gw": (PLAIN, replace(wireguard(), leases=PLAIN.leases)),
}  # fmt: skip


def unreached(kernel: FakeLinks, snapshot: OverlaySnapshot) -> list[str]:
    """Peers whose pods' packets do not go to their node, by whichever of its addresses."""
    found = ways(kernel, snapshot)
    return [
        f"{end.subnet}: {found[end.subnet]}"
        for one in snapshot.leases.by_node.values()
        for end in one.endpoints.values()
        if (found[end.subnet] or ("", ""))[-1] not in {str(other.public_ip) for other in one.endpoints.values()}
    ]


def in_the_clear(kernel: FakeLinks, snapshot: OverlaySnapshot) -> list[str]:
    return [f"{net}: {way}" for net, way in ways(kernel, snapshot).items() if way is not None and way[0] in CLEAR]


@pytest.mark.parametrize("name", TRANSITIONS)
def test_no_peer_is_without_a_way_wherever_the_agent_dies_and_then_nothing_goes_in_the_clear(name: str) -> None:
    before, after = TRANSITIONS[name]
    encrypts = isinstance(after.backend, WireguardConfig)
    refused = name.startswith("all peers")
    start = World.new()
    start.reach(before)
    assert unreached(start.kernel, before) == []
    watched = kept(after, before)

    whole = World(start.kernel.fork())
    turn = whole.reach(after)
    assert not turn.left and not turn.refused
    assert bool(unreached(whole.kernel, after)) is refused
    assert not encrypts or in_the_clear(whole.kernel, after) == []
    target, total = numberless(whole.kernel), whole.kernel.writes
    assert (total == 0) is (name == "nothing")
    for state in whole.kernel.history if not refused else ():
        assert unreached(at(whole.kernel, state), watched) == []
    again = World(whole.kernel.fork())
    again.reach(after)
    assert again.kernel.writes == 0

    for number in range(total):
        for early in (True, False):
            world = World(start.kernel.fork())
            world.kernel.die_at(number, before=early)
            with pytest.raises(Death):
                world.reach(after)
            world.kernel.die_at(None)
            assert not world.reach(after).left and numberless(world.kernel).objects == target.objects
            for state in world.kernel.history if not refused else ():
                assert unreached(at(world.kernel, state), watched) == []


@pytest.mark.parametrize("name", ["vxlan to wireguard", "host-gw to wireguard"])
def test_a_way_that_encrypts_is_never_given_up_for_one_in_the_clear(name: str) -> None:
    before, after = TRANSITIONS[name]
    world = World.new()
    world.reach(before)
    world.reach(after)
    secret: set[Network] = set()
    for state in world.kernel.history:
        found = ways(at(world.kernel, state), after)
        now = {net for net, way in found.items() if way is not None and way[0].startswith("flannel-wg")}
        assert secret <= now
        secret = now
    assert len(secret) == 2 * (MOST - 2)


def test_a_device_that_cannot_be_made_leaves_what_carries_traffic() -> None:
    world = World.new()
    world.reach(VXLAN)
    error = KernelError("add", "device flannel-wg", 12)
    for _ in range(200):
        world.kernel.fail_next(error, lambda one: isinstance(one.object, Device) and one.verb is Verb.ADD)
    turn = world.reach(wireguard())
    assert turn.refused and unreached(world.kernel, VXLAN) == []


def test_a_device_that_was_made_and_not_given_its_key_is_adopted() -> None:
    world = World.new()
    world.kernel.do(Verb.ADD, Device("flannel-wg", "wireguard", 1420, up=False))
    index = world.kernel.objects["device", "flannel-wg"]
    turn = world.reach(wireguard())
    assert not turn.left and unreached(world.kernel, wireguard()) == []
    found = world.kernel.objects["device", "flannel-wg"]
    assert isinstance(found, Device) and isinstance(index, Device) and found.index == index.index


def test_before_all_leases_are_known_no_peer_is_removed_and_what_carries_traffic_stays() -> None:
    world = World.new()
    world.reach(VXLAN)
    world.reach(wireguard(synced=False))
    assert unreached(world.kernel, VXLAN) == []
    world.reach(wireguard())
    assert in_the_clear(world.kernel, wireguard()) == []


def test_changes_of_peers_by_others_are_found_by_the_next_full_read() -> None:
    world = World.new()
    worker = Worker(world.kernel, lambda: 0.0)
    world.reach(wireguard(), worker)
    peer = world.kernel.objects["peer", "flannel-wg", key(2)]
    world.kernel.do(Verb.REMOVE, peer)
    stranger = WireguardPeer("flannel-wg", key(200), IPv4Address("203.0.113.1"), 1, frozenset())
    world.kernel.do(Verb.ADD, stranger)
    assert not worker.turn().done  # nobody says so
    assert {one.object.key for one in worker.turn(whole=True).done} == {peer.key, stranger.key}
    assert world.kernel.objects[peer.key] == peer and stranger.key not in world.kernel.objects


def test_a_deleted_device_comes_back_with_its_peers() -> None:
    world = World.new()
    worker = Worker(world.kernel, lambda: 0.0)
    world.reach(wireguard(), worker)
    world.kernel.do(Verb.REMOVE, world.kernel.objects["device", "flannel-wg"])
    assert not worker.turn().left
    assert unreached(world.kernel, wireguard()) == []


def roamed(kernel: FakeLinks, *, alive: bool) -> WireguardPeer:
    old = kernel.objects["peer", "flannel-wg", key(2)]
    assert isinstance(old, WireguardPeer)
    return replace(old, endpoint=IPv4Address("203.0.113.9"), port=40001, alive=alive)


def seen_from_elsewhere(kernel: FakeLinks, *, alive: bool) -> None:
    """Its packets come from another address: a NAT."""
    other = roamed(kernel, alive=alive)
    kernel.objects[other.key] = other


@pytest.mark.parametrize("restarted", [True, False])
def test_the_endpoint_of_a_peer_that_has_a_session_is_left_and_that_of_one_without_is_put_right(
    restarted: bool,
) -> None:
    world = World.new()
    worker = Worker(world.kernel, lambda: 0.0)
    world.reach(wireguard(), worker)
    now: Callable[[], Worker] = lambda: Worker(world.kernel, lambda: 0.0) if restarted else worker  # noqa: E731
    writes = world.kernel.writes
    seen_from_elsewhere(world.kernel, alive=True)
    fresh = now()
    fresh.desire(wireguard(), None)
    fresh.turn(whole=True)
    assert world.kernel.writes == writes
    moved = encrypted(2)
    ends = {family: replace(end, public_ip=IPv4Address("192.0.2.77")) for family, end in moved.endpoints.items()}
    moved = replace(moved, endpoints={**moved.endpoints, Family.IPV4: ends[Family.IPV4]})
    fresh.desire(with_lease(wireguard(), moved), {"node2"})
    fresh.turn()
    found = world.kernel.objects["peer", "flannel-wg", key(2)]
    assert isinstance(found, WireguardPeer) and str(found.endpoint) == "192.0.2.77"  # its lease says so now
    seen_from_elsewhere(world.kernel, alive=False)
    fresh.turn(whole=True)
    found = world.kernel.objects["peer", "flannel-wg", key(2)]
    assert isinstance(found, WireguardPeer) and str(found.endpoint) == "192.0.2.77"


def test_one_peers_change_reads_nothing_and_writes_that_peer_alone() -> None:
    world = World.new()
    worker = Worker(world.kernel, lambda: 0.0)
    world.reach(wireguard(), worker)
    looks, writes = world.kernel.looks, world.kernel.writes
    worker.desire(wireguard(encrypted(3, salt=50)), {"node3"})
    turn = worker.turn()
    assert not turn.left and world.kernel.looks == looks
    assert world.kernel.writes - writes == 4  # the new key and the old one, of both families
    assert unreached(world.kernel, wireguard(encrypted(3, salt=50))) == []


def test_which_address_and_port_one_device_for_both_families_uses() -> None:
    both = {mode: World.new() for mode in ("auto", "ipv4", "ipv6")}
    for mode, world in both.items():
        # flannel publishes the port of a second device also where there is none
        world.reach(wireguard(encrypted(2), mode=mode))
        peer = world.kernel.objects["peer", "flannel-wg", key(2)]
        assert isinstance(peer, WireguardPeer) and peer.port == 51820 and len(peer.allowed) == 2
        assert str(peer.endpoint) == ("fd00::2" if mode == "ipv6" else "192.0.2.2")
    said = offer(WireguardConfig(mode="auto"), tuple(Family), OUTER, None, LinkState(), key(1))
    assert {reach.port for reach in said.reach.values()} == {51820}
    said = offer(WireguardConfig(), tuple(Family), OUTER, None, LinkState(), key(1))
    assert [said.reach[family].port for family in Family] == [51820, 51821]
    assert said.backend is BackendType.WIREGUARD and {one.public_key for one in said.reach.values()} == {key(1)}


def test_the_whole_network_has_one_route() -> None:
    world = World.new()
    world.reach(wireguard())
    routes = [one for one in world.kernel.objects.values() if isinstance(one, Route)]
    assert [(str(one.to), one.device, one.scope) for one in routes] == [
        ("10.42.0.0/16", "flannel-wg", 253), ("fd42::/48", "flannel-wg-v6", 0),
    ]  # fmt: skip


# --- the key's file


def test_the_key_is_made_once_and_kept_for_root_alone(tmp_path: Path) -> None:
    path, said = tmp_path / "run" / "wgkey", list[str]()
    made = stored_or_made(path, lambda: b"", said.append)
    assert path.stat().st_mode & 0o777 == 0o400 and base64.b64decode(path.read_text()) == made
    assert stored_or_made(path, lambda: b"\x07" * 32, said.append) == made and said == []
    assert made[0] & 7 == 0 and made[31] & 0xC0 == 0x40
    assert stored_or_made(tmp_path / "other", lambda: b"", said.append) != made


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_without_a_file_the_devices_key_is_kept(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "wgkey"
    if content is not None:
        path.write_text(content)  # of a writer that was cut off
    assert stored_or_made(path, lambda: b"\x08" * 32, lambda _: None) == b"\x08" * 32
    assert base64.b64decode(path.read_text()) == b"\x08" * 32


@pytest.mark.parametrize("content", ["x", "A" * 44, key(1) + key(2), "A" * 9000, "\0"])
def test_a_file_without_a_valid_key_is_refused_and_left_and_not_shown(tmp_path: Path, content: str) -> None:
    path = tmp_path / "wgkey"
    path.write_text(content)
    with pytest.raises(InputError) as refused:
        stored_or_made(path, lambda: b"", lambda _: None)
    assert str(path) in str(refused.value) and "remove it" in str(refused.value)
    assert len(content) < 10 or content not in str(refused.value)
    assert path.read_text() == content


def test_a_key_that_cannot_be_kept_or_that_others_can_read_is_reported(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "file").write_text("")
    # nothing can be written below a file, by root neither
    assert kept_in(tmp_path / "file" / "wgkey", said) == b"\x08" * 32
    assert len(said) == 1 and "is not kept" in said[0] and key(8) not in said[0]
    path = tmp_path / "wgkey"
    path.write_text(key(8) + "\n")
    path.chmod(0o644)
    assert kept_in(path, said) == b"\x08" * 32
    assert len(said) == 2 and "chmod 400" in said[1] and key(8) not in said[1]


def kept_in(path: Path, said: list[str]) -> bytes:
    return stored_or_made(path, lambda: b"\x08" * 32, said.append)


def test_where_the_key_is_kept() -> None:
    assert key_file({}) == Path("/run/flannel/wgkey")
    assert key_file({"WIREGUARD_KEY_FILE": "/srv/key"}) == Path("/srv/key")


def test_a_public_key_follows_from_the_private_one() -> None:
    assert Secrets(b"\x09" + bytes(31)).public_key == "QiyOemIn17yhNQs+K7cnn3iXuHu2hUt4PGDoAxGuMHk="
