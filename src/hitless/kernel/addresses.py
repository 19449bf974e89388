"""What this node itself is: its addresses, its host routes, its way out.

Problem: a pod's flow to an address of its own node is delivered, not forwarded, and must not be taken for a flow that
lost its translation; and pods that still live in an old network are seen by their routes. Promise: three facts, read by
netlink, now. It changes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hitless.kernel import netlink
from hitless.kernel.namespaces import HERE, Namespace
from hitless.model.families import Address, Family, Network

__all__ = ["NodeFacts", "Paths"]

_GETLINK, _GETADDR, _GETROUTE = 18, 22, 26  # RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE
_IFLA_IFNAME = 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15
_MAIN, _UNICAST = 254, 1
_NUMBERS = {Family.IPV4: 2, Family.IPV6: 10}
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags


@dataclass(frozen=True, slots=True)
class Paths:
    """The main table's routes with their interfaces' names, longest prefix first."""

    routes: tuple[tuple[Network, str], ...]
    _hosts: Mapping[Address, str] = field(init=False, repr=False, compare=False)
    _wider: tuple[tuple[Network, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # a node without a bridge has a route for each pod: those are looked up, the few others searched
        hosts: dict[Address, str] = {}
        wider: list[tuple[Network, str]] = []
        for network, name in self.routes:
            if network.prefixlen == network.max_prefixlen:
                hosts.setdefault(network.network_address, name)
            else:
                wider.append((network, name))
        object.__setattr__(self, "_hosts", hosts)
        object.__setattr__(self, "_wider", tuple(wider))

    def interface(self, address: Address) -> str:
        """The interface that leads to an address; empty where no route says."""
        if address in self._hosts:
            return self._hosts[address]
        return next(
            (name for network, name in self._wider if network.version == address.version and address in network), ""
        )

    def hosts(self, network: Network) -> Iterator[Address]:
        """Addresses inside ``network`` that have a route of their own: the pods of a node without a bridge."""
        for route, _ in self.routes:
            own = route.version == network.version and route.prefixlen == route.max_prefixlen
            if own and route.network_address in network:
                yield route.network_address


class NodeFacts:
    """Reads one namespace over one socket; use it from one thread at a time."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._socket = netlink.Socket(netlink.ROUTE, namespace)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def addresses(self, family: Family) -> frozenset[Address]:
        """The node's own addresses."""
        replies = self._socket.dump(
            _GETADDR, bytes((_NUMBERS[family], 0, 0, 0, 0, 0, 0, 0)), operation="list", subject="addresses"
        )
        found: set[Address] = set()
        for reply in replies:
            attributes = netlink.attributes(reply.payload, 8)
            value = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if value:
                found.add(_address(value))
        return frozenset(found)

    def paths(self, family: Family) -> Paths:
        """The routes with their interfaces' names."""
        replies = self._socket.dump(_GETLINK, bytes(16), operation="list", subject="links")
        names: dict[int, str] = {}
        for reply in replies:
            (index,) = struct.unpack_from("=i", reply.payload, 4)
            names[index] = netlink.to_text(netlink.attributes(reply.payload, 16).get(_IFLA_IFNAME, b""))
        found = [(network, names.get(oif, "")) for network, oif in self.routes(family)]
        return Paths(tuple(sorted(found, key=lambda one: -one[0].prefixlen)))

    def routes(self, family: Family) -> Iterator[tuple[Network, int]]:
        """Unicast routes of the main table: where to, and the number of the interface (0: several, or none)."""
        replies = self._socket.dump(
            _GETROUTE, _ROUTE.pack(_NUMBERS[family], 0, 0, 0, 0, 0, 0, 0, 0), operation="list", subject="routes"
        )
        for reply in replies:
            _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(reply.payload)
            attributes = netlink.attributes(reply.payload, _ROUTE.size)
            if _RTA_TABLE in attributes:
                table = struct.unpack("=I", attributes[_RTA_TABLE])[0]
            if table != _MAIN or kind != _UNICAST:
                continue
            width = 4 if family is Family.IPV4 else 16
            value = attributes.get(_RTA_DST, bytes(width))
            oif = struct.unpack("=I", attributes[_RTA_OIF])[0] if _RTA_OIF in attributes else 0
            network: Network = (
                IPv4Network((IPv4Address(value), length)) if width == 4 else IPv6Network((IPv6Address(value), length))
            )
            yield network, oif


def _address(value: bytes) -> Address:
    return IPv4Address(value) if len(value) == 4 else IPv6Address(value)
