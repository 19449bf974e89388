"""WireGuard on a real kernel, where there is one that has it; where not, it is refused before anything is touched."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path

import pytest
from tests.kernel.nftables.nodes import Node, node, programs
from tests.kernel.overlay.ground import HANG, HITLESS, Ground, conf, ground

from hitless.errors import MissingError, NotFound
from hitless.kernel import netlink, processes
from hitless.kernel.links import Links, generic
from hitless.kernel.links.scope import Scope
from hitless.kernel.links.wireguard import Secrets, WireguardDevices, require
from hitless.model.curve25519 import clamped
from hitless.model.links import Device, LinkChange, LinkState, Verb, Wireguard, WireguardPeer
from hitless.model.reading import network

pytestmark = pytest.mark.kernel

SCOPE = Scope((network("10.42.0.0/16", where="test"), network("fd42::/48", where="test")))
BACKEND: dict[str, object] = {"Type": "wireguard"}


def lacks(place: Node) -> str:
    """Why the kernel cannot do it; empty: it can."""
    try:
        require(place.namespace)
    except MissingError as error:
        return str(error)
    return ""


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path / "leases") as made:
        why = lacks(made.members[0].node)
        if why:  # a kernel may be without it, so that REQUIRE_KERNEL does not ask for it either
            pytest.skip(why)
        yield made


def observed(place: Node) -> LinkState:
    with Links(place.namespace) as links:
        return links.observe(SCOPE)


def peers(place: Node) -> dict[str, WireguardPeer]:
    return {one.device: one for one in observed(place).objects.values() if isinstance(one, WireguardPeer)}


def test_a_family_of_the_kernel_is_found_by_its_name() -> None:
    """The one that knows the others, which every kernel has; and one that none has."""
    programs("ip")
    with node() as place, netlink.Socket(16, place.namespace) as door:
        asked = generic.ask_family("nlctrl")
        replies = door.request(generic.CONTROL, 0, asked, operation="look up", subject="nlctrl")
        assert generic.family(replies) == generic.CONTROL
        with pytest.raises(NotFound):
            door.request(generic.CONTROL, 0, generic.ask_family("hitless-none"), operation="look up", subject="none")


def test_a_kernel_without_it_is_named_before_anything_is_touched(tmp_path: Path) -> None:
    programs("ip")
    with node() as place:
        why = lacks(place)
        if not why:
            pytest.skip("this kernel has WireGuard")
        before = place.run("ip", "-o", "link"), place.run("ip", "route"), place.run("ls", "-R", "/run")
        command = [
            *HITLESS, f"--net-config={conf(BACKEND)}", f"--lease-dir={tmp_path / 'leases'}", "--node-name=node1",
            "--node-subnet=10.42.1.0/24,fd42:0:0:1::/64", "--subnet-file=/run/subnet.env", "--ip-masq",
        ]  # fmt: skip
        ended = processes.run(command, namespace=place.namespace, check=False, timeout=HANG)
        assert ended.returncode == 3
        assert "modprobe wireguard" in ended.stderr and "vxlan" in ended.stderr
        assert before == (place.run("ip", "-o", "link"), place.run("ip", "route"), place.run("ls", "-R", "/run"))
        assert not (tmp_path / "leases").exists()


@pytest.fixture
def place() -> Iterator[Node]:
    programs("ip")
    with node() as made:
        why = lacks(made)
        if why:
            pytest.skip(why)
        yield made


def made_peer(number: int) -> WireguardPeer:
    four = IPv4Network(((10 << 24) + (42 << 16) + (number << 4), 28))
    six = IPv6Network(((0xFD42 << 112) + (number << 64), 64))
    address, key = IPv4Address("192.0.2.1") + number, base64.b64encode(os.urandom(32)).decode()
    return WireguardPeer("flannel-wg", key, address, 51820, frozenset({four, six}), 25, True)


def test_what_is_written_is_what_is_read_also_where_the_kernel_needs_many_messages(place: Node) -> None:
    secrets = Secrets(os.urandom(32), os.urandom(32))
    device = Device("flannel-wg", "wireguard", 1420, wireguard=Wireguard(51820, secrets.public_key))
    peers = [made_peer(number) for number in range(300)]
    with Links(place.namespace, secrets) as links:

        def there() -> dict[object, object]:
            found = links.observe(SCOPE).objects.values()
            return {one.key: one for one in found if isinstance(one, WireguardPeer)}

        assert links.apply([LinkChange(Verb.ADD, device), *(LinkChange(Verb.ADD, one) for one in peers)]) == {}
        found = links.observe(SCOPE).device("flannel-wg")
        assert found is not None and found == replace(device, tx_checksum=found.tx_checksum, gro=found.gro)
        assert there() == {one.key: one for one in peers}
        # more allowed IPs than one message holds; and what is allowed to one peer is no other's
        many = frozenset(IPv4Network(((11 << 24) + (number << 8), 24)) for number in range(1500))
        first, second = replace(peers[0], allowed=many), replace(peers[1], allowed=peers[2].allowed, preshared=False)
        assert links.apply([LinkChange(Verb.CHANGE, first), LinkChange(Verb.CHANGE, second)]) == {}
        now = there()
        assert now[first.key] == first and now[second.key] == second
        assert now[peers[2].key] == replace(peers[2], allowed=frozenset())
        gone = [LinkChange(Verb.REMOVE, one) for one in (*peers[3:], peers[3])]
        assert links.apply(gone) == {} and len(there()) == 3
        other = replace(found, mtu=1300, wireguard=Wireguard(7, secrets.public_key))
        assert links.apply([LinkChange(Verb.CHANGE, other, found)]) == {}
        assert links.observe(SCOPE).device("flannel-wg") == other and len(there()) == 3
        elsewhere = LinkChange(Verb.ADD, replace(peers[0], device="flannel-wg-v6"))
        assert isinstance(links.apply([elsewhere])[0], NotFound)
    with WireguardDevices(place.namespace) as devices:  # a restart without the key's file finds it here
        assert devices.read("flannel-wg").private_key == clamped(secrets.private_key)


def test_pods_reach_each_other_and_a_restart_keeps_keys_devices_and_sessions(two: Ground) -> None:
    one, other = two.members
    first = two.start(one, backend=BACKEND)
    two.start(other, backend=BACKEND).wait_ready(peers=1)
    first.wait_ready(peers=1)
    two.all_reach()
    held, file = peers(one.node), one.node.run("cat", "/run/flannel/wgkey")
    assert held.keys() == {"flannel-wg", "flannel-wg-v6"} and all(peer.alive for peer in held.values())
    devices = observed(one.node).devices()
    for number in (signal.SIGTERM, signal.SIGKILL):
        one.agents[-1].end(number)
        one.node.run("rm", "-f", "/run/flannel/wgkey")  # as with a container that has its own /run: the device has it
        assert two.reached(one, other, 4)
        two.start(one, backend=BACKEND).wait_ready(peers=1)
        assert one.node.run("cat", "/run/flannel/wgkey") == file
        assert peers(one.node) == held and observed(one.node).devices() == devices
        written = one.agents[-1].series("hitless_overlay_writes_total")  # one a kind, with labels
        assert [series for series in written if "{" in series] == []
    two.all_reach()


def test_after_a_change_to_it_nothing_goes_in_the_clear(two: Ground) -> None:
    members = two.members
    for member in members:
        two.start(member).wait_ready(peers=members.index(member))
    two.all_reach()
    for member in members:
        member.agents[-1].end()
        two.start(member, backend=BACKEND)
    for member in members:
        member.agents[-1].wait_ready(peers=1)
        member.agents[-1].wait(lambda: "flannel.1" not in member.ip("route"), "the routes in the clear to go")  # noqa: B023
    two.all_reach()
