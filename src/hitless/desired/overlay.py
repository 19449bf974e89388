"""flannel's overlay as values: devices, addresses, routes, neighbours and forwarding entries of one node.

Problem: flannel replays events of peers into the kernel, each family by its own code, and drops a change that concerns
one family only. Promise: one function of the whole snapshot, with the family as a parameter, each peer's families
apart. A peer with an invalid lease is left out with the reason, and the others are served. A peer is reached by the
backend of *its* lease, so that all nodes stay connected while they change their backend one after another; but a node
that encrypts (WireGuard) sends nothing unencrypted. Nothing is read from the kernel: what depends on it is in
``Ground``. Next stage: ``hitless.plan.links``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from hitless.model.families import Address, Family, overlap, within
from hitless.model.leases import BackendType, Endpoint, Lease
from hitless.model.links import (
    Device,
    DeviceAddress,
    ForwardingEntry,
    Key,
    LinkObject,
    LinkState,
    Neighbour,
    Route,
    Vxlan,
    Wireguard,
    WireguardPeer,
    default_metric,
)
from hitless.model.overlay import Alloc, HostGw, OverlaySnapshot, VxlanConfig, WireguardConfig

__all__ = [
    "DesiredOverlay",
    "Ground",
    "Local",
    "base_objects",
    "desired_overlay",
    "device_names",
    "overlay_mtu",
    "peer_objects",
]

_VXLAN_OVERHEAD = {Family.IPV4: 50, Family.IPV6: 70}  # outer IP, UDP, VXLAN, inner Ethernet; flannel: 50 for both
_WIREGUARD_OVERHEAD = 80
_LINK_SCOPE = 253  # RT_SCOPE_LINK


@dataclass(frozen=True, slots=True)
class Ground:
    """The state of the node's own network that the overlay depends on.

    ``direct``: addresses of peers that are reached without a gateway, each with the interface. ``kept``: VXLAN devices
    of an earlier configuration, by family and VNI, with their addresses: peers that still use them are served by them.
    """

    direct: Mapping[Address, str] = field(default_factory=dict)
    kept: Mapping[tuple[Family, int], tuple[Device, tuple[DeviceAddress, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DesiredOverlay:
    """``by_node``: the keys of each peer's objects; ``refused``: peers (or one family of them) that are left out, and
    why; ``collided``: those of them whose objects collide with another peer's."""

    state: LinkState
    by_node: Mapping[str, tuple[Key, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    collided: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Local:
    """What is needed for each of thousands of peers, computed once: this node's devices and addresses."""

    snapshot: OverlaySnapshot
    ground: Ground
    devices: Mapping[Family, str]
    mine: frozenset[Address]

    @classmethod
    def of(cls, snapshot: OverlaySnapshot, ground: Ground) -> Local:
        """Of a snapshot."""
        mine = {one for outer in snapshot.outer.values() for one in (outer.address, outer.external)}
        mine |= {one.public_ip for one in snapshot.own.endpoints.values()}
        return cls(snapshot, ground, device_names(snapshot), frozenset(mine))


class _Refused(Exception):
    """A peer's lease is invalid for one family."""


def device_names(snapshot: OverlaySnapshot) -> Mapping[Family, str]:
    """The overlay device of each family, by flannel's names."""
    match snapshot.backend:
        case VxlanConfig(vni=vni):
            names = {Family.IPV4: f"flannel.{vni}", Family.IPV6: f"flannel-v6.{vni}"}
        case WireguardConfig(mode="separate"):
            names = {Family.IPV4: "flannel-wg", Family.IPV6: "flannel-wg-v6"}
        case WireguardConfig():
            names = {Family.IPV4: "flannel-wg", Family.IPV6: "flannel-wg"}
        case _:
            names = {}
    return {family: name for family, name in names.items() if family in snapshot.own.endpoints}


def overlay_mtu(snapshot: OverlaySnapshot) -> int:
    """The MTU of pods' interfaces (FLANNEL_MTU): the smallest of the families'."""
    return min(_mtu(snapshot, family) for family in snapshot.own.endpoints)


def _mtu(snapshot: OverlaySnapshot, family: Family) -> int:
    outer, backend = snapshot.outer[family].mtu, snapshot.backend
    match backend:
        case VxlanConfig():
            # the kernel reduces a larger MTU than the outer interface's, again and again
            return min(backend.mtu or outer, outer) - _VXLAN_OVERHEAD[family]
        case WireguardConfig():
            return (backend.mtu or outer) - _WIREGUARD_OVERHEAD
        case _:
            return outer


def desired_overlay(snapshot: OverlaySnapshot, ground: Ground) -> DesiredOverlay:
    """Everything that this node should have for its overlay."""
    objects: dict[Key, LinkObject] = {one.key: one for one in base_objects(snapshot)}
    refused: dict[str, str] = {}
    by_node: dict[str, tuple[Key, ...]] = {}
    collided: set[str] = set()
    place = Local.of(snapshot, ground)
    for node, lease in sorted(snapshot.leases.by_node.items()):
        if node == snapshot.own.node:
            continue
        found, reasons = peer_objects(place, lease)
        refused.update(reasons)
        keyed = {one.key: one for one in found}
        taken = keyed.keys() & objects.keys()
        if taken:
            refused[node] = f"collides with another node's: {keyed[taken.pop()]}"
            collided.add(node)
            continue
        objects.update(keyed)
        by_node[node] = tuple(keyed)
    for device, addresses in ground.kept.values():
        used = any(isinstance(one, Neighbour) and one.device == device.name for one in objects.values())
        if used:
            objects[device.key] = device
            objects.update((one.key, one) for one in addresses)
    return DesiredOverlay(LinkState(objects), by_node, refused, frozenset(collided))


def base_objects(snapshot: OverlaySnapshot) -> Iterator[LinkObject]:
    """The objects that exist without any peer."""
    names = device_names(snapshot)
    for family, endpoint in snapshot.own.endpoints.items():
        if snapshot.blackhole:
            yield Route(endpoint.subnet, "", kind="blackhole", metric=default_metric(endpoint.subnet))
        if family not in names:
            continue
        outer, name, subnet = snapshot.outer[family], names[family], endpoint.subnet
        match snapshot.backend:
            case VxlanConfig() as backend:
                vxlan = Vxlan(
                    backend.vni, backend.port, outer.external, outer.name, backend.learning, backend.gbp
                )  # fmt: skip
                yield Device(
                    name, "vxlan", _mtu(snapshot, family), endpoint.mac, True, vxlan,
                    tx_checksum=backend.tx_checksum, gro=backend.gro,
                )  # fmt: skip
            case WireguardConfig() as backend:
                v6 = family is Family.IPV6 and backend.mode == "separate"
                wireguard = Wireguard(backend.port_v6 if v6 else backend.port, endpoint.public_key)
                yield Device(name, "wireguard", overlay_mtu(snapshot), wireguard=wireguard)
                network = snapshot.networks[family]
                scope = _LINK_SCOPE if family is Family.IPV4 else 0
                yield Route(network, name, scope=scope, metric=default_metric(network))
        yield DeviceAddress(name, subnet.network_address, subnet.max_prefixlen)


def peer_objects(place: Local, lease: Lease) -> tuple[list[LinkObject], dict[str, str]]:
    """The objects for one peer, and its families that are left out, with the reason."""
    found: list[LinkObject] = []
    refused: dict[str, str] = {}
    for family, endpoint in lease.endpoints.items():
        if family not in place.snapshot.own.endpoints:
            continue  # this node has no pods of that family
        try:
            _check(place, family, endpoint)
            found += _peer_route(place, lease.backend, family, endpoint)
        except _Refused as reason:
            refused[lease.node if len(lease.endpoints) == 1 else f"{lease.node} ({family})"] = str(reason)
    return (_joined(place, found) if lease.backend is BackendType.WIREGUARD else found), refused


def _check(place: Local, family: Family, endpoint: Endpoint) -> None:
    snapshot = place.snapshot
    own, network, subnet = snapshot.own.endpoints[family], snapshot.networks[family], endpoint.subnet
    if overlap(subnet, own.subnet):
        raise _Refused(f"its subnet {subnet} overlaps this node's, {own.subnet}")
    if not within(subnet, network):
        raise _Refused(f"its subnet {subnet} is outside of the network {network}")
    if endpoint.public_ip in place.mine:
        raise _Refused(f"its address {endpoint.public_ip} is this node's own")


def _peer_route(place: Local, kind: BackendType, family: Family, endpoint: Endpoint) -> Iterable[LinkObject]:
    """How the peer is reached: by the backend of its own lease."""
    snapshot, ground = place.snapshot, place.ground
    backend, address = snapshot.backend, endpoint.public_ip
    if isinstance(backend, Alloc):
        return ()
    if isinstance(backend, WireguardConfig):
        if kind is not BackendType.WIREGUARD:
            raise _Refused(f"its backend is {kind}: nothing is sent in the clear from a node that encrypts")
        return _by_wireguard(place, backend, family, endpoint)
    if kind is BackendType.VXLAN:
        own = isinstance(backend, VxlanConfig)
        if isinstance(backend, VxlanConfig) and backend.direct_routing and address in ground.direct:
            return (_plain(ground, endpoint),)
        kept = ground.kept.get((family, endpoint.vni))
        if kept is not None and not (isinstance(backend, VxlanConfig) and endpoint.vni == backend.vni):
            return _by_vxlan(snapshot, kept[0].name, family, endpoint)
        # also to a node that has changed its VNI before us: as flannel does, and it keeps its old device for us
        if own:
            return _by_vxlan(snapshot, place.devices[family], family, endpoint)
    elif kind is not BackendType.HOST_GW:
        raise _Refused(f"its backend is {kind}, this node's is {_backend_name(backend)}")
    if address not in ground.direct:
        raise _Refused(f"its address {address} is not on a network that this node is on")
    return (_plain(ground, endpoint),)


def _backend_name(backend: VxlanConfig | HostGw) -> str:
    return (BackendType.VXLAN if isinstance(backend, VxlanConfig) else BackendType.HOST_GW).value


def _plain(ground: Ground, endpoint: Endpoint) -> Route:
    metric, address = default_metric(endpoint.subnet), endpoint.public_ip
    return Route(endpoint.subnet, ground.direct[address], address, metric=metric)


def _by_vxlan(snapshot: OverlaySnapshot, name: str, family: Family, endpoint: Endpoint) -> Iterable[LinkObject]:
    mac, subnet = endpoint.mac, endpoint.subnet
    if len(mac) != 17 or int(mac[:2], 16) & 1 or not any(character not in "0:" for character in mac):
        raise _Refused(f"its hardware address {mac!r} is none of a single device")
    if mac == snapshot.own.endpoints[family].mac:
        raise _Refused(f"its hardware address {mac} is this node's own")
    if endpoint.public_ip.version != snapshot.outer[family].external.version:
        raise _Refused(f"its address {endpoint.public_ip} is not of the family {family}")
    return (
        ForwardingEntry(name, mac, endpoint.public_ip),
        Neighbour(name, subnet.network_address, mac),
        Route(subnet, name, subnet.network_address, onlink=True, metric=default_metric(subnet)),
    )


def _by_wireguard(place: Local, backend: WireguardConfig, family: Family, endpoint: Endpoint) -> Iterable[LinkObject]:
    if not endpoint.public_key:
        raise _Refused("its lease has no public key")
    own = place.snapshot.own.endpoints[family]
    if endpoint.public_key == own.public_key:
        raise _Refused("its public key is this node's own")
    return (
        WireguardPeer(
            place.devices[family],
            endpoint.public_key,
            endpoint.public_ip,
            _port_of(backend, family, endpoint),
            frozenset((endpoint.subnet,)),
            backend.keepalive,
            bool(backend.preshared_key),
        ),
    )


def _port_of(backend: WireguardConfig, family: Family, endpoint: Endpoint) -> int:
    """flannel publishes the port of a second device even where there is none."""
    if backend.mode == "separate":
        return endpoint.port or (backend.port if family is Family.IPV4 else backend.port_v6)
    one_too_many = family is Family.IPV6 and endpoint.port == backend.port_v6
    return backend.port if one_too_many or not endpoint.port else endpoint.port


def _joined(place: Local, found: list[LinkObject]) -> list[LinkObject]:
    """One device for both families has one peer with the subnets of both, reached by the address of one: that which
    the mode names, IPv4 for ``auto``."""
    backend = place.snapshot.backend
    version = 6 if isinstance(backend, WireguardConfig) and backend.mode == "ipv6" else 4
    found = sorted(found, key=lambda one: not (isinstance(one, WireguardPeer) and _version(one) == version))
    peers: dict[Key, WireguardPeer] = {}
    rest: list[LinkObject] = []
    for one in found:
        if isinstance(one, WireguardPeer):
            other = peers.get(one.key)
            both = one.allowed | other.allowed if other is not None else one.allowed
            first = other if other is not None else one
            peers[one.key] = WireguardPeer(
                first.device, first.public_key, first.endpoint, first.port, both, first.keepalive, first.preshared
            )
        else:
            rest.append(one)
    return [*rest, *peers.values()]


def _version(peer: WireguardPeer) -> int:
    return peer.endpoint.version if peer.endpoint is not None else 0
