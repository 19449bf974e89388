"""Clusters as values, and a worker that brings a fake kernel to what they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hitless.agent.overlay.worker import Turn, Worker
from hitless.model.families import Family, Network
from hitless.model.leases import BackendType, Endpoint, Lease, Leases
from hitless.model.links import LinkState
from hitless.model.overlay import BackendConfig, HostGw, Outer, OverlaySnapshot, VxlanConfig
from hitless.testing.fake_links import FakeLinks

NETWORKS: Mapping[Family, Network] = {
    Family.IPV4: IPv4Network("10.42.0.0/16"),
    Family.IPV6: IPv6Network("fd42::/48"),
}
UNDERLAY: Mapping[Network, str] = {IPv4Network("192.0.2.0/24"): "eth0", IPv6Network("fd00::/64"): "eth0"}
OUTER = {
    Family.IPV4: Outer("eth0", 1500, IPv4Address("192.0.2.1"), IPv4Address("192.0.2.1")),
    Family.IPV6: Outer("eth0", 1500, IPv6Address("fd00::1"), IPv6Address("fd00::1")),
}
MOST = 5


def subnet(family: Family, number: int) -> Network:
    if family is Family.IPV4:
        return IPv4Network((0x0A2A0000 + (number << 8), 24))
    return IPv6Network((int(IPv6Address("fd42::")) + (number << 64), 64))


def public(family: Family, number: int) -> IPv4Address | IPv6Address:
    return (
        IPv4Address(0xC0000200 + number) if family is Family.IPV4 else IPv6Address(int(IPv6Address("fd00::")) + number)
    )


def mac(family: Family, number: int, *, salt: int = 0) -> str:
    return f"02:00:00:{salt:02x}:0{family.value[-1]}:{number:02x}"


def lease(number: int, kind: BackendType = BackendType.VXLAN, *, vni: int = 1, salt: int = 0, node: str = "") -> Lease:
    endpoints = {
        family: Endpoint(subnet(family, number), public(family, number), mac(family, number, salt=salt), vni)
        if kind is BackendType.VXLAN
        else Endpoint(subnet(family, number), public(family, number))
        for family in Family
    }
    return Lease(node or f"node{number}", kind, endpoints)


def cluster(
    backend: BackendConfig | None = None,
    peers: Mapping[str, Lease] | None = None,
    *,
    kind: BackendType | None = None,
    vni: int | None = None,
    synced: bool = True,
) -> OverlaySnapshot:
    """Node 1 and its peers, which are all of one kind unless they are given."""
    backend = backend or VxlanConfig()
    own_kind = BackendType.HOST_GW if isinstance(backend, HostGw) else BackendType.VXLAN
    own_vni = backend.vni if isinstance(backend, VxlanConfig) else 1
    if peers is None:
        made = [lease(number, kind or own_kind, vni=vni or own_vni) for number in range(2, MOST)]
        peers = {one.node: one for one in made}
    return OverlaySnapshot(backend, NETWORKS, OUTER, lease(1, own_kind, vni=own_vni), Leases(peers, {}, synced))


@dataclass
class World:
    """A kernel and what was asked of it last."""

    kernel: FakeLinks

    @classmethod
    def new(cls) -> World:
        return cls(FakeLinks(UNDERLAY))

    def reach(self, snapshot: OverlaySnapshot, worker: Worker | None = None, turns: int = 4) -> Turn:
        """A start of the agent: it turns until nothing is left."""
        worker = worker or Worker(self.kernel, clock())
        worker.desire(snapshot, None)
        turn = worker.turn()
        for _ in range(turns):
            if not turn.left and not turn.done:
                break
            turn = worker.turn()
        return turn


def clock() -> Callable[[], float]:
    """A time that goes on by itself."""
    now = [0.0]

    def tell() -> float:
        now[0] += 0.001
        return now[0]

    return tell


def ways(kernel: FakeLinks, snapshot: OverlaySnapshot) -> dict[Network, tuple[str, ...] | None]:
    """How each peer's pods are reached."""
    endpoints = [end for one in snapshot.leases.by_node.values() for end in one.endpoints.values()]
    return {end.subnet: kernel.way(end.subnet) for end in endpoints}


def unreached(kernel: FakeLinks, snapshot: OverlaySnapshot) -> list[str]:
    """Peers whose pods' packets do not go to their node."""
    found = ways(kernel, snapshot)
    return [
        f"{end.subnet}: {found[end.subnet]}"
        for one in snapshot.leases.by_node.values()
        for end in one.endpoints.values()
        if (found[end.subnet] or ("", ""))[-1] != str(end.public_ip)
    ]


def at(kernel: FakeLinks, state: LinkState) -> FakeLinks:
    """The kernel as it was then, for asking about ways."""
    other = FakeLinks(UNDERLAY)
    other.objects = dict(state.objects)
    return other


def without(snapshot: OverlaySnapshot, node: str) -> OverlaySnapshot:
    kept = {name: one for name, one in snapshot.leases.by_node.items() if name != node}
    return replace(snapshot, leases=replace(snapshot.leases, by_node=kept))


def with_lease(snapshot: OverlaySnapshot, value: Lease) -> OverlaySnapshot:
    return replace(snapshot, leases=replace(snapshot.leases, by_node={**snapshot.leases.by_node, value.node: value}))
