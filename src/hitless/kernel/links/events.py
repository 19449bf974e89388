"""Changes of links, addresses, routes, neighbours and forwarding entries as they happen.

Promise: ``ready`` gives each change as the value that exists now, or the one that was removed, with the netlink port of
the process that requested it (mostly its process id; 0: the kernel itself). ``doubtful``: the key has several objects
now, and only a full read shows which. ``EventsLostError``: a full read is due. IPv4 routes that are removed with a
device or an address are removed without an event: after such a change a full read is due as well (``whole``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hitless.kernel.links.scope import Scope, is_underlay, of_overlay_devices, route_in_scope
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.netlink import APPEND, ROUTE, Message, Socket, messages
from hitless.kernel.ports import only_ours
from hitless.kernel.rtnetlink import decoding, formats
from hitless.model.links import LinkObject, is_overlay_device

__all__ = ["LinkEvent", "LinkEvents"]

_BUFFER = 16 << 20  # events of 5,000 peers at once are about 4 MB in the kernel's accounting
_GROUPS = (
    formats.GROUP_LINK, formats.GROUP_NEIGH, formats.GROUP_IPV4_ADDR, formats.GROUP_IPV4_ROUTE, formats.GROUP_IPV6_ADDR,
    formats.GROUP_IPV6_ROUTE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LinkEvent:
    """``value``: the object as it is now, or (``gone``) as it was; ``None``: something outside of the scope, but of the
    underlay. ``whole``: more may have changed than was reported."""

    value: LinkObject | None
    gone: bool = False
    port: int = 0
    doubtful: bool = False
    whole: bool = False


class LinkEvents:
    """A subscription in a namespace; ``fileno`` is for selectors."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._socket = Socket(
            ROUTE, namespace, groups=_GROUPS, receive_buffer=_BUFFER, timeout=0, subject="changes of links and routes"
        )
        self._names: dict[int, str] = {}

    def fileno(self) -> int:
        """The file descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def know(self, names: dict[int, str]) -> None:
        """The devices' names by their numbers, as a full read has seen them."""
        self._names = names

    def ready(self, scope: Scope) -> Iterator[LinkEvent]:
        """Changes that are there now, without waiting. Raises ``EventsLostError`` where the kernel dropped some."""
        with only_ours("follow", "the changes of links and routes"):
            while (data := self._socket.receive(wait=False)) is not None:
                for message in messages(data):
                    event = self._event(message, scope)
                    if event is not None:
                        yield event

    def _event(self, message: Message, scope: Scope) -> LinkEvent | None:
        kind, payload, port = message.type, message.payload, message.port
        if kind in (formats.NEWNEIGH, formats.DELNEIGH):
            entry = decoding.neighbour(payload, self._names, of_overlay_devices(self._names))
            return None if entry is None else LinkEvent(entry, kind == formats.DELNEIGH, port)
        if kind in (formats.NEWROUTE, formats.DELROUTE):
            read = decoding.route_message(payload)
            if read is None:
                return None
            route = route_in_scope(read, self._names, scope)
            if route is None:
                return LinkEvent(None, port=port) if is_underlay(read) else None
            return LinkEvent(route, kind == formats.DELROUTE, port, doubtful=bool(message.flags & APPEND))
        if kind in (formats.NEWLINK, formats.DELLINK):
            return self._link(payload, port, gone=kind == formats.DELLINK)
        if kind in (formats.NEWADDR, formats.DELADDR):
            address = decoding.address(payload, self._names)
            if address is None:
                return None
            overlay = is_overlay_device(address.device)
            return LinkEvent(address if overlay else None, kind == formats.DELADDR, port, whole=kind == formats.DELADDR)
        return None

    def _link(self, payload: bytes, port: int, *, gone: bool) -> LinkEvent | None:
        device = decoding.device(payload, self._names)
        if device is None:
            return None
        known = self._names.get(device.index)
        if gone:
            self._names.pop(device.index, None)
        else:
            self._names[device.index] = device.name
        if is_overlay_device(device.name) or (known is not None and is_overlay_device(known)):
            return LinkEvent(device, gone, port, whole=gone)
        return LinkEvent(None, gone, port, whole=gone or not device.up)
