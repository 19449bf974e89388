"""Links, addresses, routes, neighbours and route look-ups of one network namespace, read by rtnetlink.

Promise: everything is read now, and needs no permission; what the kernel does not report is left out, never assumed. A
dump during which something changed is repeated, so that it does not lack what was there all the time. What a kernel
does not filter is filtered here: nothing depends on ``NETLINK_GET_STRICT_CHK``. What it never does: write, or send a
packet. Next stages: ``hitless.observe``, ``hitless.kernel.links``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType, TracebackType
from typing import TypeVar

from hitless.errors import HitlessError
from hitless.kernel.messages import attribute, u32
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.netlink import ROUTE, Message, Socket
from hitless.kernel.ports import only_ours
from hitless.kernel.rtnetlink import decoding, formats
from hitless.kernel.rtnetlink.changes import (
    AnnouncedChanges,
    Matters,
    forwarding_removed,
    neighbour_removed,
    route_changed,
)
from hitless.kernel.rtnetlink.decoding import NeighbourFilter, RouteFilter, RouteMessage
from hitless.model.families import Address, Family
from hitless.model.links import Device, DeviceAddress, ForwardingEntry, Key, LinkObject, Neighbour, Route

__all__ = ["RtnetlinkReader", "confirmed", "names_of", "unicast"]

_CONFIRMED = (
    formats.NUD_REACHABLE | formats.NUD_STALE | formats.NUD_DELAY | formats.NUD_PROBE | formats.NUD_PERMANENT
)  # fmt: skip
_UNICAST, _CACHED = formats.UNICAST, formats.CLONED
_DISTURBED_DUMPS = 4
_NONE_KNOWN: Mapping[Key, LinkObject] = MappingProxyType({})

_T = TypeVar("_T")
_Object = TypeVar("_Object", Route, Neighbour, ForwardingEntry, Neighbour | ForwardingEntry)


class RtnetlinkReader:
    """A context manager; for one thread at a time.

    Messages name links by numbers: ``names`` are the links' names, as ``names_of(devices())`` gives them. ``known``:
    objects that were read before; what equals one of them is that object, which saves memory.
    """

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._socket = Socket(ROUTE, namespace)
        self._changes = AnnouncedChanges(namespace)

    def __enter__(self) -> RtnetlinkReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets."""
        self._socket.close()
        self._changes.close()

    @only_ours("list", "links")
    def devices(self) -> list[Device]:
        """All links, in the kernel's order."""
        request = formats.IFINFO.pack(0, 0, 0, 0, 0) + u32(formats.IFLA_EXT_MASK, formats.SKIP_STATS)

        def payload_of(one: Message) -> bytes | None:
            return one.payload if one.type == formats.NEWLINK else None

        # a link may refer to one that comes later in the dump
        payloads = self._dump(formats.GETLINK, request, "the interfaces", payload_of)
        names = dict(decoding.link_name(payload) for payload in payloads)
        found = (decoding.device(payload, names) for payload in payloads)
        return [one for one in found if one is not None]

    @only_ours("list", "addresses")
    def addresses(self, names: Mapping[int, str], family: Family | None = None) -> list[DeviceAddress]:
        """The addresses of all links; ``family`` ``None``: of both families."""
        number = formats.family_number(family) if family is not None else 0
        request = formats.IFADDR.pack(number, 0, 0, 0, 0)

        def decode(one: Message) -> DeviceAddress | None:
            return decoding.address(one.payload, names) if one.type == formats.NEWADDR else None

        return self._dump(formats.GETADDR, request, "addresses", decode)

    @only_ours("list", "routes")
    def routes(
        self,
        names: Mapping[int, str],
        family: Family,
        wanted: RouteFilter,
        known: Mapping[Key, LinkObject] = _NONE_KNOWN,
    ) -> list[Route]:
        """The routes of all tables that are ``wanted``."""

        def decode(one: Message) -> Route | None:
            message = decoding.route_message(one.payload) if one.type == formats.NEWROUTE else None
            if message is None or not wanted(message):
                return None
            value = decoding.route(message, names)
            return _shared(value, known) if known else value

        request = formats.RTMSG.pack(formats.family_number(family), 0, 0, 0, 0, 0, 0, 0, 0)
        if family is Family.IPV4:  # the kernel remembers its position by the destination
            return self._dump(formats.GETROUTE, request, "routes", decode)
        return self._undisturbed(
            formats.GROUP_IPV6_ROUTE,
            route_changed,
            lambda: self._dump(formats.GETROUTE, request, "routes", decode),
        )

    @only_ours("list", "neighbours")
    def neighbours(
        self,
        names: Mapping[int, str],
        family: Family,
        wanted: NeighbourFilter,
        known: Mapping[Key, LinkObject] = _NONE_KNOWN,
        device: int = 0,
        *,
        ages: bool = False,
    ) -> list[Neighbour]:
        """The neighbours that are ``wanted``; ``device``: of this link only, as far as the kernel filters; ``ages``:
        with their ages."""
        request = formats.NDMSG.pack(formats.family_number(family), 0, 0, 0, 0)
        if device:
            request += u32(formats.NDA_IFINDEX, device)
        subject = f"neighbours{_of(names, device)}"
        found = self._entries(request, subject, neighbour_removed, names, wanted, known, ages=ages)
        return [one for one in found if isinstance(one, Neighbour)]

    @only_ours("list", "forwarding entries")
    def forwarding(
        self,
        names: Mapping[int, str],
        device: int,
        wanted: NeighbourFilter,
        known: Mapping[Key, LinkObject] = _NONE_KNOWN,
    ) -> list[ForwardingEntry]:
        """The forwarding entries of a VXLAN device."""
        # rtnl_fdb_dump takes the link message with which bridges are listed
        request = formats.IFINFO.pack(formats.AF_BRIDGE, 0, device, 0, 0)
        subject = f"forwarding entries{_of(names, device)}"
        found = self._entries(request, subject, forwarding_removed, names, wanted, known)
        return [one for one in found if isinstance(one, ForwardingEntry)]

    def _entries(
        self, request: bytes, subject: str, matters: Matters, names: Mapping[int, str], wanted: NeighbourFilter,
        known: Mapping[Key, LinkObject], *, ages: bool = False,
    ) -> list[Neighbour | ForwardingEntry]:  # fmt: skip
        def decode(one: Message) -> Neighbour | ForwardingEntry | None:
            if one.type != formats.NEWNEIGH:
                return None
            value = decoding.neighbour(one.payload, names, wanted, ages=ages)
            return _shared(value, known) if known and value is not None else value

        return self._undisturbed(
            formats.GROUP_NEIGH, matters, lambda: self._dump(formats.GETNEIGH, request, subject, decode)
        )

    def _undisturbed(self, group: int, matters: Matters, dump: Callable[[], list[_Object]]) -> list[_Object]:
        """A dump during which nothing changed that ``matters``; while it changes all the time, what several dumps have
        found together, the newest first: what one of them skipped another one has."""
        together: dict[_Object, None] = {}  # of equal values one: four dumps must not take the memory of four
        for _ in range(_DISTURBED_DUMPS):
            self._changes.begin(group)
            try:
                found = dump()
            finally:
                changed = self._changes.end(group, matters)
            if not changed:
                return found
            together = dict.fromkeys(found) | together
        return list(together)

    @only_ours("look up", "a route")
    def lookup(
        self, names: Mapping[int, str], to: Address, source: Address | None = None, iif: int = 0, mark: int = 0
    ) -> Route | None:
        """The route that the node would send a packet by, after all its routing rules; ``None``: it would not send it.

        With ``source`` and ``iif``: a packet that it forwards for that pod.
        """
        length = to.max_prefixlen
        source_length = length if source is not None else 0
        request = formats.RTMSG.pack(formats.address_family(to), length, source_length, 0, 0, 0, 0, 0, 0)
        request += attribute(formats.RTA_DST, to.packed)
        if source is not None:
            request += attribute(formats.RTA_SRC, source.packed)
        if iif:
            request += u32(formats.RTA_IIF, iif)
        if mark:
            request += u32(formats.RTA_MARK, mark)
        try:
            replies = self._socket.request(
                formats.GETROUTE, 0, request, operation="look up", subject=f"the route to {to}"
            )
        except HitlessError:  # unreachable, prohibited, or not to be forwarded
            return None
        for reply in replies:
            message = decoding.route_message(reply.payload) if reply.type == formats.NEWROUTE else None
            if message is not None and message.kind == formats.UNICAST and message.oif:
                return decoding.route(message, names)
        return None

    def _dump(self, kind: int, request: bytes, subject: str, decode: Callable[[Message], _T | None]) -> list[_T]:
        """The values of a whole dump. Each message is decoded as it comes: thousands of them together are megabytes."""
        return self._socket.collect(kind, request, decode, operation="list", subject=subject)


def _shared(value: _Object, known: Mapping[Key, LinkObject]) -> _Object:
    same = known.get(value.key)
    return same if same is not None and same == value else value  # equal: of one class


def _of(names: Mapping[int, str], device: int) -> str:
    return f" of {names.get(device, device)}" if device else ""


def names_of(devices: Collection[Device]) -> dict[int, str]:
    """The links' names by their numbers."""
    return {one.index: one.name for one in devices}


def unicast(message: RouteMessage, *, beyond: Collection[int] = (), table: int = 0) -> bool:
    """A filter: unicast entries of a table (0: of all), without those by a gateway behind the links ``beyond``: an
    overlay has one for each node of the cluster."""
    if message.kind != _UNICAST or message.flags & _CACHED or (table and message.table != table):
        return False
    return not (beyond and message.by_gateway and message.oif in beyond)


def confirmed(index: int, state: int, *, beyond: Collection[int] = ()) -> bool:
    """A filter: neighbours whose address on the link is known, without those behind the links ``beyond``."""
    return index not in beyond and bool(state & _CONFIRMED)
