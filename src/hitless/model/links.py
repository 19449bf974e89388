"""Links, addresses, routes, neighbours and forwarding entries as values with keys.

Problem: what carries traffic between nodes is spread over five kinds of kernel objects, written by three kinds of
messages. Promise: each object is a frozen value with a ``key``, which the kernel also uses to distinguish it from
others of its kind; desired and observed have the same type (``LinkState``), so that they can be compared. Keys are made
once and shared by all maps. Devices are named, not numbered: a device that is made again has another number. What a
foreign object has beyond the fields here is in ``other``, so that it is never taken for ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from hitless.model.families import Address, Family, Network, family_of

__all__ = [
    "BOOT",
    "MAIN",
    "Device",
    "DeviceAddress",
    "ForwardingEntry",
    "Key",
    "LinkChange",
    "LinkObject",
    "LinkState",
    "Neighbour",
    "Route",
    "Verb",
    "Vxlan",
    "Wireguard",
    "WireguardPeer",
    "default_metric",
    "is_overlay_device",
    "key_of_route",
    "network_of_one",
]

Key = tuple[object, ...]
"""What distinguishes an object from others of its kind; the kind comes first."""

MAIN = 254
"""The default routing table (RT_TABLE_MAIN)."""
BOOT = 3
"""The route protocol of flannel's routes, and of ``ip route`` where none is named (RTPROT_BOOT)."""


@dataclass(frozen=True, slots=True)
class Vxlan:
    """What makes a VXLAN device. ``link``: the outer interface; ``local``: the address that its packets come from."""

    vni: int
    port: int
    local: Address | None
    link: str
    learning: bool = False
    gbp: bool = False
    other: str = ""


@dataclass(frozen=True, slots=True)
class Wireguard:
    """What makes a WireGuard device; the private key itself stays in its file, here is the public one."""

    port: int
    public_key: str


@dataclass(frozen=True, slots=True)
class Device:
    """A network device. ``kind``: its driver (veth, bridge, vxlan, …; empty for hardware); ``up``: switched on, also
    without a carrier.

    ``tx_checksum`` and ``gro``: as ``ethtool -K DEVICE tx`` and ``gro`` set them; desired ``None``: left as it is. Only
    observed, and not compared: ``index``, the kernel's number; ``carrier``, whether it is up and its carrier too;
    ``master``, the bridge or VRF that it belongs to (empty: none); ``group``, the number of its group.
    """

    name: str
    kind: str
    mtu: int = 0
    mac: str = ""
    up: bool = True
    vxlan: Vxlan | None = None
    wireguard: Wireguard | None = None
    tx_checksum: bool | None = None
    gro: bool | None = None
    index: int = field(default=0, compare=False)
    carrier: bool = field(default=False, compare=False)
    master: str = field(default="", compare=False)
    group: int = field(default=0, compare=False)
    key: Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("device", self.name))

    def __str__(self) -> str:
        return f"device {self.name}"


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """An address of a device, with its prefix length. Only observed, and not compared: ``scope`` (0: global) and
    ``secondary`` (of IPv6: a temporary address)."""

    device: str
    address: Address
    length: int
    scope: int = field(default=0, compare=False)
    secondary: bool = field(default=False, compare=False)
    key: Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("address", self.device, self.address, self.length))

    def __str__(self) -> str:
        return f"address {self.address}/{self.length} of {self.device}"


@dataclass(frozen=True, slots=True)
class Route:
    """A route; ``kind``: unicast, blackhole, or what else was observed. ``device`` is empty where there is none, or
    several. ``hidden_gateway``: it leads, or may lead, to a gateway that is not in ``gateway``: one of another family,
    of several next hops, of a next hop object."""

    to: Network
    device: str
    gateway: Address | None = None
    onlink: bool = False
    kind: str = "unicast"
    scope: int = 0
    protocol: int = BOOT
    table: int = MAIN
    metric: int = 0
    other: str = ""
    hidden_gateway: bool = False
    key: Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("route", self.to, self.metric, self.table))

    @property
    def direct(self) -> bool:
        """Whether packets go to their destination without a gateway."""
        return self.gateway is None and not self.hidden_gateway

    def __str__(self) -> str:
        text = f"route {self.to}" if self.kind == "unicast" else f"{self.kind} route {self.to}"
        text += f" via {self.gateway}" if self.gateway is not None else ""
        return f"{text} dev {self.device}" if self.device else text


def key_of_route(to: Network, metric: int | None = None, table: int = MAIN) -> Key:
    """The key of a route of ours: IPv6 routes have the kernel's default metric, 1024, IPv4 routes 0."""
    return ("route", to, metric if metric is not None else default_metric(to), table)


def default_metric(to: Network) -> int:
    """The metric of a route where none is named."""
    return 0 if family_of(to) is Family.IPV4 else 1024


def network_of_one(address: Address) -> Network:
    """The network that is this address alone."""
    return IPv4Network(int(address)) if isinstance(address, IPv4Address) else IPv6Network(int(address))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Which hardware address an address has behind a device. Only observed, and not compared: ``age``, the kernel's
    ticks since it was last confirmed."""

    device: str
    address: Address
    mac: str
    permanent: bool = True
    age: int = field(default=0, compare=False)
    key: Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("neighbour", self.device, self.address))

    def __str__(self) -> str:
        return f"neighbour {self.address} dev {self.device}"


@dataclass(frozen=True, slots=True)
class ForwardingEntry:
    """Where a VXLAN device sends frames for a hardware address."""

    device: str
    mac: str
    to: Address | None
    permanent: bool = True
    other: str = ""
    key: Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("forwarding", self.device, self.mac))

    def __str__(self) -> str:
        return f"forwarding entry {self.mac} dev {self.device}"


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """Another node behind a WireGuard device. ``preshared``: whether a preshared key is set (never the key itself).

    ``alive``: of what was observed, whether it has a session; then its endpoint is where its packets come from, which
    behind a NAT differs from its lease.
    """

    device: str
    public_key: str
    endpoint: Address | None
    port: int
    allowed: frozenset[Network]
    keepalive: int = 0
    preshared: bool = False
    alive: bool = field(default=False, compare=False)
    key: Key = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", ("peer", self.device, self.public_key))

    def __str__(self) -> str:
        return f"WireGuard peer {self.public_key} dev {self.device}"


@lru_cache(4096)  # called for thousands of messages, with a few names
def is_overlay_device(name: str) -> bool:
    """Whether a device bears a name of flannel's, or the one that a device of ours has while it is replaced."""
    return _OVERLAY_DEVICE.fullmatch(name) is not None


_OVERLAY_DEVICE = re.compile(r"flannel(-v6)?\.[0-9]{1,8}|flannel-wg(-v6)?|flold[0-9]{1,10}")

LinkObject = Device | DeviceAddress | Route | Neighbour | ForwardingEntry | WireguardPeer


class Verb(StrEnum):
    """What is done to an object."""

    ADD = "add"
    CHANGE = "change"
    RENAME = "rename"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class LinkChange:
    """One write. ``object``: as it should be (for REMOVE: what is removed); ``before``: as it was observed."""

    verb: Verb
    object: LinkObject
    before: LinkObject | None = None
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.object}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LinkState:
    """Objects by key: what should be there, or what is."""

    objects: Mapping[Key, LinkObject] = field(default_factory=dict)

    @classmethod
    def of(cls, objects: Iterable[LinkObject]) -> LinkState:
        """From objects; of two with one key the first counts, as it does for the kernel's routes."""
        found: dict[Key, LinkObject] = {}
        for one in objects:
            found.setdefault(one.key, one)
        return cls(found)

    def device(self, name: str) -> Device | None:
        """The device of that name."""
        found = self.objects.get(("device", name))
        return found if isinstance(found, Device) else None

    def devices(self) -> tuple[Device, ...]:
        """All devices."""
        return tuple(one for one in self.objects.values() if isinstance(one, Device))
