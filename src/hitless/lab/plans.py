"""The plan of a lab: counts, families, backend; and computed from these, every name and address in it.

Problem: tests, drills and documents must use the same addresses without asking the kernel. Promise: a ``LabPlan`` is a
frozen value that is validated as a whole when it is made; names and addresses are pure functions of it. Nothing here
touches the machine. Next stage: ``hitless.lab.building``.

Address plan (both families by one rule): pod NETWORK 10.42.0.0/16 and fd42::/48, node i's SUBNET 10.42.i.0/24 and
fd42:0:0:i::/64, Services 10.43.0.0/16 and fd43::/112, underlay 192.0.2.0/24 and 2001:db8:0:1::/64 (routed: node i in
198.18.i.0/24 and 2001:db8:1:i::/64), far end 198.51.100.1… and 2001:db8:ffff::1… (documentation and benchmark ranges,
RFC 5737, 2544 and 3849, so that nothing real is ever shadowed).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from types import MappingProxyType

from hitless.errors import InputError
from hitless.model import reading
from hitless.model.families import Address, Backend, Family, Network, family_of

__all__ = ["LIMITS", "LabPlan", "LeaseStore", "OverlayType", "Stack", "Wiring"]


class Stack(StrEnum):
    """The address families of a lab."""

    IPV4 = "ipv4"
    IPV6 = "ipv6"
    DUAL = "dual"


class OverlayType(StrEnum):
    """How agents connect pods on different nodes; flannel's names of its backends."""

    VXLAN = "vxlan"
    HOST_GW = "host-gw"
    WIREGUARD = "wireguard"


class Wiring(StrEnum):
    """The underlay: one switch for all nodes, or a router with a network for each."""

    L2 = "l2"
    ROUTED = "routed"


class LeaseStore(StrEnum):
    """Where agents publish their leases: a directory that all nodes share, or etcd."""

    DIRECTORY = "directory"
    ETCD = "etcd"


def _both(ipv4: str, ipv6: str) -> Mapping[Family, Network]:
    networks = (reading.network(text, where="the lab's plan") for text in (ipv4, ipv6))
    return MappingProxyType({family_of(network): network for network in networks})


def _part(network: Network, number: int) -> Network:
    """The /24 or /64 of that number."""
    if isinstance(network, IPv4Network):
        return IPv4Network((int(network.network_address) + (number << 8), 24))
    return IPv6Network((int(network.network_address) + (number << 64), 64))


_NETWORK = _both("10.42.0.0/16", "fd42::/48")
_SERVICES = _both("10.43.0.0/16", "fd43::/112")
_UNDERLAY = _both("192.0.2.0/24", "2001:db8:0:1::/64")
_ROUTED = _both("198.18.0.0/16", "2001:db8:1::/48")
_TRANSIT = _both("203.0.113.0/30", "2001:db8:0:2::/64")
_FAR = _both("198.51.100.0/24", "2001:db8:ffff::/64")

LIMITS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "nodes": (1, 100),  # 192.0.2.10 … 192.0.2.109
        "pods_per_node": (0, 200),  # .2 … .201 of a /24
        "services": (0, 5000),
        "far_addresses": (1, 200),
    }
)
"""The smallest and the largest value of each number of a ``LabPlan``."""

_FLAGS = {"pods_per_node": "--pods", "far_addresses": "--far-addresses"}


@dataclass(frozen=True, slots=True)
class LabPlan:
    """A lab: ``nodes`` with ``pods_per_node`` each, ``family`` ipv4, ipv6 or dual.

    ``backend`` loads the node's own rules (kube-proxy, Calico), and is the one that an agent is configured with; with
    native nftables the node's own rules are iptables-nft, as kube-proxy's are. ``services`` (0 to 5,000) is the number
    of Services in kube-proxy's rules. ``far_addresses`` is how many addresses the far end has in each family.
    ``forward_policy`` "drop" gives the node FORWARD policy DROP and Felix's "Return" mode, so that pod traffic is
    accepted by FLANNEL-FWD only. ``kubernetes`` false leaves the nodes without any rule. With an ``overlay``, agents
    connect pods on different nodes and publish ``leases``; without one the lab itself routes.
    """

    nodes: int = 1
    pods_per_node: int = 1
    family: Stack | Family | str = Stack.IPV4
    backend: Backend = Backend.NFT
    services: int = 0
    far_addresses: int = 4
    forward_policy: str = "accept"
    kubernetes: bool = True
    overlay: OverlayType | str = ""
    wiring: Wiring | str = Wiring.L2
    leases: LeaseStore | str = LeaseStore.DIRECTORY

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                flag = _FLAGS.get(name, f"--{name}")
                raise InputError(f"{value} is out of range", where=flag, expected=f"{least} to {most}")
        if self.family not in set(Stack):
            raise InputError(f"{self.family!r} is not a family", where="--family", expected="ipv4, ipv6 or dual")
        if self.forward_policy not in ("accept", "drop"):
            raise InputError(
                f"{self.forward_policy!r} is not a policy", where="--forward-policy", expected="accept or drop"
            )
        for text, known, flag in (
            (self.overlay, ("", *OverlayType), "--overlay"),
            (self.wiring, tuple(Wiring), "--underlay"),
            (self.leases, tuple(LeaseStore), "the lab's lease source"),
        ):
            if text not in known:
                raise InputError(f"{text!r} is unknown", where=flag, expected=" or ".join(filter(None, known)))
        if self.overlay == OverlayType.HOST_GW and self.wiring == Wiring.ROUTED:
            raise InputError(
                "host-gw needs nodes that reach each other without a router",
                where="--overlay",
                expected="--underlay l2, or vxlan or wireguard",
            )

    @property
    def families(self) -> tuple[Family, ...]:
        """The families in use, IPv4 first."""
        return tuple(Family) if self.family == Stack.DUAL else (Family(str(self.family)),)

    @property
    def rules_backend(self) -> Backend:
        """How the node's own rules are loaded: iptables-nft or iptables-legacy."""
        return self.backend.iptables

    # --- networks -------------------------------------------------------------------------------------------------

    def network(self, family: Family) -> Network:
        """The pod network of the whole cluster (flannel's NETWORK)."""
        return _NETWORK[family]

    def subnet(self, family: Family, node: int) -> Network:
        """The pod subnet of node ``node`` (flannel's SUBNET)."""
        return _part(_NETWORK[family], node)

    def services_network(self, family: Family) -> Network:
        """The range of Service addresses."""
        return _SERVICES[family]

    def underlay(self, family: Family) -> Network:
        """The network of the nodes; with a router, the network that contains those of all nodes."""
        return _ROUTED[family] if self.wiring == Wiring.ROUTED else _UNDERLAY[family]

    def uplink_network(self, family: Family, node: int) -> Network:
        """The network of the node's own link."""
        return _part(_ROUTED[family], node) if self.wiring == Wiring.ROUTED else _UNDERLAY[family]

    def transit(self, family: Family) -> Network:
        """The link between the underlay's router and the far end."""
        return _TRANSIT[family]

    def far_network(self, family: Family) -> Network:
        """The network of the far end's own addresses."""
        return _FAR[family]

    # --- addresses ------------------------------------------------------------------------------------------------

    def gateway(self, family: Family, node: int = 0) -> Address:
        """The underlay's router as the node sees it: its default gateway."""
        return self.uplink_network(family, node)[1]

    def node_address(self, family: Family, node: int) -> Address:
        """The node's address in the underlay."""
        return self.uplink_network(family, node)[10 if self.wiring == Wiring.ROUTED else 10 + node]

    def pod_address(self, family: Family, node: int, pod: int) -> Address:
        """The pod's address: host-local gives .2 first, as .1 is the subnet's gateway address."""
        return self.subnet(family, node)[2 + pod]

    def far(self, family: Family) -> tuple[Address, ...]:
        """The far end's own addresses."""
        return tuple(_FAR[family][1 + i] for i in range(self.far_addresses))

    # --- names ----------------------------------------------------------------------------------------------------

    def node_name(self, node: int) -> str:
        """The node's name: node0, node1, …"""
        return f"node{node}"

    def pod_name(self, node: int, pod: int) -> str:
        """The pod's name: node0-pod0, …"""
        return f"node{node}-pod{pod}"

    def pod_interface(self, node: int, pod: int) -> str:
        """The host side of the pod's link, as Calico names it: cali and eleven hexadecimal digits."""
        return "cali" + hashlib.sha1(self.pod_name(node, pod).encode(), usedforsecurity=False).hexdigest()[:11]

    def pod_mac(self, node: int, pod: int) -> str:
        """The pod's own link address."""
        return f"02:42:{node >> 8:02x}:{node & 255:02x}:{pod >> 8:02x}:{pod & 255:02x}"


def check_name(name: str) -> str:
    """The name of a lab, or ``InputError``."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
        raise InputError(f"{name!r} is not a valid lab name", expected="1 to 32 of a-z, 0-9 and -, not - at the ends")
    return name
