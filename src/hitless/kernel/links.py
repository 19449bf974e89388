"""Interfaces and routes, as far as a witness packet needs them: which there are, and where a packet would leave.

Problem: rules ask for interface names, so a packet whose fate is asked for must come from an interface that exists.
Promise: one read by rtnetlink, no program; needs no permission. What it never does: write. Next stage: ``watch``.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Network, IPv6Network

from hitless.errors import HitlessError
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.netlink import ROUTE, Socket, attribute, attributes, to_text
from hitless.model.families import Address, Family, Network

__all__ = ["interfaces", "routes", "uplink"]

_GETLINK, _NEWLINK, _GETROUTE, _NEWROUTE = 18, 16, 26, 24
_IFLA_IFNAME, _RTA_DST, _RTA_OIF = 3, 1, 4
_UP = 1  # IFF_UP
_MAIN, _UNICAST = 254, 1  # RT_TABLE_MAIN, RTN_UNICAST
_LINK = struct.Struct("=BxHiII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_INDEX = struct.Struct("=i")


def interfaces(namespace: Namespace = HERE) -> dict[int, str]:
    """The names of the interfaces that are up, by index, in the kernel's order."""
    with Socket(ROUTE, namespace) as route:
        replies = route.dump(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), operation="list", subject="the interfaces")
    found = {}
    for reply in replies:
        if reply.type == _NEWLINK and len(reply.payload) >= _LINK.size:
            _, _, index, flags, _ = _LINK.unpack_from(reply.payload)
            if flags & _UP:
                found[index] = to_text(attributes(reply.payload, _LINK.size).get(_IFLA_IFNAME, b""))
    return found


def uplink(destination: Address, namespace: Namespace = HERE) -> str:
    """The interface by which the node would send to ``destination``; empty when it has no route there."""
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    request = _ROUTE.pack(family, destination.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    request += attribute(_RTA_DST, destination.packed)
    with Socket(ROUTE, namespace) as route:
        try:
            replies = route.request(_GETROUTE, 0, request, operation="look up", subject=f"the route to {destination}")
        except HitlessError:  # unreachable: no route
            return ""
    for reply in replies:
        if reply.type == _NEWROUTE and len(reply.payload) >= _ROUTE.size:
            index = attributes(reply.payload, _ROUTE.size).get(_RTA_OIF)
            if index is not None:
                return interfaces(namespace).get(_INDEX.unpack(index)[0], "")
    return ""


def routes(family: Family, namespace: Namespace = HERE) -> list[tuple[Network, str]]:
    """The unicast routes of the main table that name one interface: destination and interface."""
    number = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    kind_of = IPv4Network if family is Family.IPV4 else IPv6Network
    names = interfaces(namespace)
    with Socket(ROUTE, namespace) as route:
        request = _ROUTE.pack(number, 0, 0, 0, 0, 0, 0, 0, 0)
        replies = route.dump(_GETROUTE, request, operation="list", subject="the routes")
    found: list[tuple[Network, str]] = []
    for reply in replies:
        if reply.type != _NEWROUTE or len(reply.payload) < _ROUTE.size:
            continue
        _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(reply.payload)
        told = attributes(reply.payload, _ROUTE.size)
        destination, index = told.get(_RTA_DST), told.get(_RTA_OIF)
        if (table, kind) == (_MAIN, _UNICAST) and destination is not None and index is not None:
            name = names.get(_INDEX.unpack(index)[0])
            if name is not None:
                found.append((kind_of((int.from_bytes(destination), length), strict=False), name))
    return found
