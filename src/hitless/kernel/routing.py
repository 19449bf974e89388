"""Links, routes, neighbours and route look-ups of one network namespace, by rtnetlink.

Problem: witness packets need facts of the node: which pods there are, by which interface their packets come in, and by
which they leave. Promise: ``Routing`` reads them over one socket, now, and needs no permission; what the kernel does
not say is left out, never assumed. What it never does: write, or send a packet. Next stage: ``hitless.observe``.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import TracebackType

from hitless.errors import HitlessError
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.netlink import ROUTE, Socket, attribute, attributes, to_text, u32
from hitless.kernel.ports import only_ours
from hitless.model.families import Address, Family, Network
from hitless.model.reading import packed, packed_network

__all__ = ["Link", "Neighbour", "Route", "RouteLookup", "Routing"]

_GETLINK, _GETADDR, _GETROUTE, _GETNEIGH = 18, 22, 26, 30
_NEWLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH = 16, 20, 24, 28
_IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO, _INFO_KIND = 3, 4, 10, 18, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_SRC, _RTA_IIF, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 2, 3, 4, 5, 7
_RTA_PRIORITY, _RTA_MULTIPATH, _RTA_TABLE, _RTA_MARK, _RTA_VIA = 6, 9, 15, 16, 18
_NDA_DST, _NDA_CACHEINFO = 1, 3
_UP, _LOWER_UP = 0x1, 0x10000
_UNICAST = 1  # RTN_UNICAST
_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # NUD_REACHABLE, STALE, DELAY, PROBE, PERMANENT
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_ADDR = struct.Struct("=BBBBi")  # struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_NEIGH = struct.Struct("=BxxxiHBB")  # struct ndmsg
_CACHE = struct.Struct("=IIII")  # struct nda_cacheinfo: confirmed, used, updated, references
_INDEX = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. ``kind`` is its driver's word (veth, bridge, vxlan, dummy, …; empty for real hardware), ``carrier``
    whether it is up and what it hangs on is too, ``master`` the index of the bridge or VRF that it belongs to, ``mtu``
    its greatest packet."""

    index: int
    name: str
    up: bool
    carrier: bool
    kind: str = ""
    master: int = 0
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route; ``oif`` 0: by several interfaces. ``direct``: not by a gateway."""

    to: Network
    oif: int
    direct: bool
    table: int
    metric: int = 0


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour that is, or was, reachable; ``age`` in the kernel's ticks since that was last confirmed."""

    address: Address
    index: int
    age: int


@dataclass(frozen=True, slots=True)
class RouteLookup:
    """Where a packet would be sent: the interface's index."""

    oif: int


class Routing:
    """A context manager; for one thread at a time."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._socket = Socket(ROUTE, namespace)

    def __enter__(self) -> Routing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    @only_ours("list", "links")
    def links(self) -> Mapping[int, Link]:
        """All interfaces by index, in the kernel's order."""
        request = _LINK.pack(0, 0, 0, 0, 0)
        found: dict[int, Link] = {}
        for reply in self._socket.dump(_GETLINK, request, operation="list", subject="the interfaces"):
            if reply.type != _NEWLINK or len(reply.payload) < _LINK.size:
                continue
            _, _, index, flags, _ = _LINK.unpack_from(reply.payload)
            told = attributes(reply.payload, _LINK.size)
            kind = attributes(told[_IFLA_LINKINFO]).get(_INFO_KIND, b"") if _IFLA_LINKINFO in told else b""
            name = to_text(told.get(_IFLA_IFNAME, b""))
            up = bool(flags & _UP)
            found[index] = Link(
                index, name, up, up and bool(flags & _LOWER_UP), to_text(kind), _index(told.get(_IFLA_MASTER)),
                _index(told.get(_IFLA_MTU)),
            )  # fmt: skip
        return found

    @only_ours("list", "addresses")
    def addresses(self, family: Family) -> Mapping[Address, int]:
        """The node's own addresses, each with its interface's index."""
        request = _ADDR.pack(_number(family), 0, 0, 0, 0)
        found: dict[Address, int] = {}
        for reply in self._socket.dump(_GETADDR, request, operation="list", subject="addresses"):
            if reply.type == _NEWADDR and len(reply.payload) >= _ADDR.size:
                told = attributes(reply.payload, _ADDR.size)
                value = told.get(_IFA_LOCAL) or told.get(_IFA_ADDRESS)
                if value:
                    found[packed(value)] = _ADDR.unpack_from(reply.payload)[4]
        return found

    @only_ours("list", "routes")
    def routes(self, family: Family, *, beyond: Collection[int] = ()) -> tuple[Route, ...]:
        """The unicast routes of all tables, without those by a gateway behind the interfaces ``beyond``: an overlay
        has one for each node of the cluster."""
        request = _ROUTE.pack(_number(family), 0, 0, 0, 0, 0, 0, 0, 0)
        found: list[Route] = []
        for reply in self._socket.dump(_GETROUTE, request, operation="list", subject="routes"):
            if reply.type != _NEWROUTE or len(reply.payload) < _ROUTE.size:
                continue
            _, length, _, _, table, _, _, kind, _ = _ROUTE.unpack_from(reply.payload)
            if kind != _UNICAST:
                continue
            told = attributes(reply.payload, _ROUTE.size)
            gateway = _RTA_GATEWAY in told or _RTA_MULTIPATH in told or _RTA_VIA in told
            oif = _index(told.get(_RTA_OIF))
            if gateway and oif in beyond:
                continue
            value = told.get(_RTA_DST, bytes(4 if family is Family.IPV4 else 16))
            found.append(
                Route(
                    packed_network(value, length),
                    oif,
                    not gateway,
                    _index(told.get(_RTA_TABLE)) or table,
                    _index(told.get(_RTA_PRIORITY)),
                )
            )
        return tuple(found)

    @only_ours("list", "neighbours")
    def neighbours(self, family: Family, *, beyond: Collection[int] = ()) -> tuple[Neighbour, ...]:
        """Neighbours whose address on the link is known, without those behind the interfaces ``beyond``."""
        request = _NEIGH.pack(_number(family), 0, 0, 0, 0)
        found: list[Neighbour] = []
        for reply in self._socket.dump(_GETNEIGH, request, operation="list", subject="neighbours"):
            if reply.type != _NEWNEIGH or len(reply.payload) < _NEIGH.size:
                continue
            _, index, state, _, _ = _NEIGH.unpack_from(reply.payload)
            if index in beyond:
                continue
            told = attributes(reply.payload, _NEIGH.size)
            if state & _USABLE and _NDA_DST in told:
                cache = told.get(_NDA_CACHEINFO, b"")
                age = _CACHE.unpack_from(cache)[0] if len(cache) >= _CACHE.size else 0
                found.append(Neighbour(packed(told[_NDA_DST]), index, age))
        return tuple(found)

    @only_ours("list", "the way of a packet")
    def way(
        self, destination: Address, source: Address | None = None, iif: int = 0, mark: int = 0
    ) -> RouteLookup | None:
        """How the node would send a packet to ``destination``, by all its routing rules; ``None``: it would not.

        With ``source`` and ``iif``: one that it forwards for that pod.
        """
        family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
        length = destination.max_prefixlen
        request = _ROUTE.pack(family, length, length if source is not None else 0, 0, 0, 0, 0, 0, 0)
        request += attribute(_RTA_DST, destination.packed)
        if source is not None:
            request += attribute(_RTA_SRC, source.packed)
        if iif:
            request += u32(_RTA_IIF, iif)
        if mark:
            request += u32(_RTA_MARK, mark)
        subject = f"the route to {destination}"
        try:
            replies = self._socket.request(_GETROUTE, 0, request, operation="look up", subject=subject)
        except HitlessError:  # unreachable, prohibited, or not to be forwarded
            return None
        for reply in replies:
            if reply.type == _NEWROUTE and len(reply.payload) >= _ROUTE.size:
                told = attributes(reply.payload, _ROUTE.size)
                if _ROUTE.unpack_from(reply.payload)[7] == _UNICAST and _RTA_OIF in told:
                    return RouteLookup(_index(told[_RTA_OIF]))
        return None


def _number(family: Family) -> int:
    return socket.AF_INET if family is Family.IPV4 else socket.AF_INET6


def _index(value: bytes | None) -> int:
    return _INDEX.unpack(value)[0] if value is not None and len(value) == _INDEX.size else 0
