"""The overlay of one node: its backend, its outer interfaces, itself, and its peers.

Problem: links and routes must be a pure function of one value, or they drift. Promise: ``OverlaySnapshot`` is complete;
it does not depend on its source (Kubernetes, etcd, a shared directory), nor on the kernel's state. Made in
``hitless.sources``, read by ``hitless.desired.overlay``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hitless.model.families import Address, Family, Network
from hitless.model.leases import Lease, Leases

__all__ = ["Alloc", "BackendConfig", "HostGw", "Outer", "OverlaySnapshot", "VxlanConfig", "WireguardConfig"]


@dataclass(frozen=True, slots=True)
class VxlanConfig:
    """flannel's ``vxlan`` (its pkg/backend/vxlan). ``mtu`` is the underlay's, 0: the outer interface's.

    ``tx_checksum`` and ``gro`` are ours (flannel ignores fields that it does not know): ``False`` switches the device's
    transmit checksum offload, or GRO, off, where hardware or a network in between does not support it; ``None`` leaves
    it alone.
    """

    vni: int = 1
    port: int = 8472
    mtu: int = 0
    gbp: bool = False
    learning: bool = False
    direct_routing: bool = False
    tx_checksum: bool | None = None
    gro: bool | None = None


@dataclass(frozen=True, slots=True)
class HostGw:
    """flannel's ``host-gw``: routes by the nodes' own addresses."""


@dataclass(frozen=True, slots=True)
class WireguardConfig:
    """flannel's ``wireguard``. ``mode``: separate (a device for each family), auto, ipv4, ipv6 (one for both)."""

    port: int = 51820
    port_v6: int = 51821
    mode: str = "separate"
    mtu: int = 0
    preshared_key: str = field(default="", repr=False)
    keepalive: int = 0


@dataclass(frozen=True, slots=True)
class Alloc:
    """flannel's ``alloc``: a subnet is taken, no traffic is carried."""


BackendConfig = VxlanConfig | HostGw | WireguardConfig | Alloc


@dataclass(frozen=True, slots=True)
class Outer:
    """The interface by which other nodes are reached, for one family.

    ``address``: its own; ``external``: the source of the overlay's packets (flannel's ExtAddr), the same unless a flag
    or annotation differs.
    """

    name: str
    mtu: int
    address: Address
    external: Address


@dataclass(frozen=True, slots=True)
class OverlaySnapshot:
    """``own``: this node's lease; its ``mac`` and ``public_key`` may be empty (nothing is stored yet).

    ``leases``: of all nodes, with or without this one (``own.node``). ``blackhole``: --ip-blackhole-route.
    """

    backend: BackendConfig
    networks: Mapping[Family, Network]
    outer: Mapping[Family, Outer]
    own: Lease
    leases: Leases
    blackhole: bool = False
