"""Links and routes of one network namespace: read whole, written in batches.

Problem: 5,000 peers are 15,000 objects for each family; a program or a message for each of them takes seconds, and an
error in the middle must not hide the rest. Promise: ``observe`` reads what the scope asks for, whole; ``apply`` writes
changes in their order, many in one message, and reports why one was refused; nothing else is touched. Devices' numbers
are looked up as late as possible, because a device that is made again has another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, TracebackType

from hitless.errors import HitlessError, NotFound
from hitless.kernel.links import encoding, features
from hitless.kernel.links.events import LinkEvent, LinkEvents
from hitless.kernel.links.scope import Scope, may_be_in_scope, of_overlay_devices
from hitless.kernel.links.wireguard import Secrets, WireguardDevices
from hitless.kernel.messages import text
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.netlink import ROUTE, Socket
from hitless.kernel.ports import only_ours
from hitless.kernel.rtnetlink import formats
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, names_of
from hitless.model.families import Address, Family
from hitless.model.links import (
    Device,
    Key,
    LinkChange,
    LinkObject,
    LinkState,
    Route,
    Verb,
    Wireguard,
    WireguardPeer,
    is_overlay_device,
)

__all__ = ["Links", "Scope"]

_BATCH = 500  # requests in one message: about 30 KB


class Links:
    """A context manager; one thread at a time. ``secrets``: for WireGuard devices, where there are any."""

    def __init__(self, namespace: Namespace = HERE, secrets: Secrets | None = None) -> None:
        self._namespace = namespace
        self._wireguard = WireguardDevices(namespace, secrets)
        self._socket = Socket(ROUTE, namespace)
        self._reader = RtnetlinkReader(namespace)
        self._indexes: dict[str, int] = {}
        self._events: LinkEvents | None = None

    def __enter__(self) -> Links:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; the kernel keeps everything."""
        self._socket.close()
        self._reader.close()
        self._wireguard.close()
        if self._events is not None:
            self._events.close()

    @property
    def listening(self) -> int | None:
        """The file descriptor on which changes come, once ``events`` was called."""
        return None if self._events is None else self._events.fileno()

    def events(self, scope: Scope) -> Iterator[LinkEvent]:
        """What has changed since the last call; raises ``EventsLostError``. The first call subscribes."""
        if self._events is None:
            self._events = LinkEvents(self._namespace)
        return self._events.ready(scope)

    @property
    def names(self) -> dict[int, str]:
        """The devices' names by their numbers, as they were last read."""
        return {index: name for name, index in self._indexes.items()}

    # --- reading

    @only_ours("list", "links and routes")
    def observe(self, scope: Scope, known: Mapping[Key, LinkObject] = MappingProxyType({})) -> LinkState:
        """All devices (those of flannel's names with all attributes), and what is in the scope. What equals something
        ``known`` is that object."""
        devices = self._devices()
        names = names_of(devices)
        self._indexes = {one.name: one.index for one in devices}
        if self._events is not None:
            self._events.know(names)
        objects: list[LinkObject] = list(devices)
        overlay = [one for one in devices if is_overlay_device(one.name)]
        for family in {Family.IPV4 if one.version == 4 else Family.IPV6 for one in scope.networks}:
            objects += self._routes(family, names, scope, known)
        if overlay:
            objects += [one for one in self._reader.addresses(names) if is_overlay_device(one.device)]
        for one in overlay:
            objects += self._neighbours(one, names, known)
            if one.kind == "wireguard":
                objects = [other for other in objects if other is not one]
                objects += self._with_peers(one)
        return LinkState.of(objects)

    def _with_peers(self, device: Device) -> list[LinkObject]:
        try:
            found = self._wireguard.read(device.name)
        except NotFound:  # it was removed meanwhile
            return []
        return [replace(device, wireguard=Wireguard(found.port, found.public_key)), *found.peers]

    def _devices(self) -> list[Device]:
        return [
            features.observed(one, self._namespace) if is_overlay_device(one.name) else one
            for one in self._reader.devices()
        ]

    def _routes(
        self, family: Family, names: Mapping[int, str], scope: Scope, known: Mapping[Key, LinkObject]
    ) -> list[Route]:
        found = self._reader.routes(names, family, lambda one: may_be_in_scope(one, names), known)
        return [one for one in found if scope.has(one.to)]

    def _neighbours(
        self, device: Device, names: Mapping[int, str], known: Mapping[Key, LinkObject]
    ) -> Iterator[LinkObject]:
        wanted = of_overlay_devices(names)
        for family in Family:
            yield from self._reader.neighbours(names, family, wanted, known, device.index)
        if device.vxlan is not None:
            yield from self._reader.forwarding(names, device.index, wanted, known)

    @only_ours("look up", "routes to nodes")
    def direct(self, addresses: Iterable[Address]) -> dict[Address, str]:
        """The addresses that the node reaches without a gateway, each with the interface; not its own."""
        names = self.names
        found = ((to, self._reader.lookup(names, to)) for to in addresses)
        return {to: route.device for to, route in found if route is not None and route.direct}

    # --- writing

    @only_ours("write", "links and routes")
    def apply(self, changes: Sequence[LinkChange]) -> dict[int, HitlessError]:
        """Write them in order; why some were refused, by their place in ``changes``."""
        refused: dict[int, HitlessError] = {}
        waiting: list[tuple[int, encoding.Request]] = []
        peers: list[tuple[int, LinkChange]] = []
        for at, change in enumerate(changes):
            if isinstance(change.object, WireguardPeer):
                self._send(waiting, refused)
                peers.append((at, change))
                if len(peers) >= _BATCH:
                    self._send_peers(peers, refused)
                continue
            self._send_peers(peers, refused)
            try:
                if isinstance(change.object, Device):
                    self._send(waiting, refused)
                    self._device(change)
                elif change.verb is Verb.REMOVE:
                    waiting.append((at, encoding.remove(change.object, self._index)))
                else:
                    waiting.append((at, encoding.add(change.object, self._index)))
            except HitlessError as error:
                refused[at] = error
            if len(waiting) >= _BATCH:
                self._send(waiting, refused)
        self._send(waiting, refused)
        self._send_peers(peers, refused)
        return {
            at: error
            for at, error in refused.items()
            if not (changes[at].verb is Verb.REMOVE and isinstance(error, NotFound))  # another process was quicker
        }

    def _send(self, waiting: list[tuple[int, encoding.Request]], refused: dict[int, HitlessError]) -> None:
        """Send what waits; a refused request does not stop the others."""
        parts = [request for _, request in waiting]
        errors = self._socket.requests(parts, operation="write", subject="links and routes")
        for (at, _), error in zip(waiting, errors, strict=True):
            if error is not None:
                refused[at] = error
        waiting.clear()

    def _send_peers(self, peers: list[tuple[int, LinkChange]], refused: dict[int, HitlessError]) -> None:
        """The same for peers of WireGuard devices."""
        if not peers:
            return
        try:
            errors: Sequence[HitlessError | None] = self._wireguard.write([change for _, change in peers])
        except HitlessError as error:
            errors = [error] * len(peers)
        for (at, _), why in zip(peers, errors, strict=True):
            if why is not None:
                refused[at] = why
        peers.clear()

    def _device(self, change: LinkChange) -> None:
        device, before = change.object, change.before
        assert isinstance(device, Device)
        if change.verb is Verb.ADD and device.wireguard is not None:
            self._add_wireguard(device)
            return
        if change.verb is Verb.ADD:
            request = encoding.add(device, self._index)
        elif change.verb is Verb.REMOVE:
            request = encoding.remove(device, self._index)
        elif change.verb is Verb.RENAME and isinstance(before, Device):
            request = encoding.rename(before, device, self._index)
        else:
            assert isinstance(before, Device)
            if device.wireguard is not None and device.wireguard != before.wireguard:
                self._wireguard.configure(device)
            request = encoding.change_device(before, device, self._index)
        kind, flags, payload = request
        self._socket.request(kind, flags, payload, operation=change.verb.value, subject=str(device))
        self._indexes.pop(
            before.name if change.verb is Verb.RENAME and isinstance(before, Device) else device.name, None
        )
        if change.verb is Verb.REMOVE:
            return
        if change.verb is Verb.ADD or not isinstance(before, Device):
            features.accept_no_advertisements(device.name, self._namespace)
        features.switch(device, before if isinstance(before, Device) else None, self._namespace)

    def _add_wireguard(self, device: Device) -> None:
        """It is switched on when it has its key and port: else the kernel takes some port for it meanwhile."""
        off = replace(device, up=False, wireguard=None)
        self._device(LinkChange(Verb.ADD, off))
        self._device(LinkChange(Verb.CHANGE, device, off))

    def _index(self, name: str) -> int:
        """The device's number; raises ``NotFound``."""
        if name not in self._indexes:
            request = formats.IFINFO.pack(0, 0, 0, 0, 0) + text(formats.IFLA_IFNAME, name)
            subject = f"the interface {name}"
            for reply in self._socket.request(formats.GETLINK, 0, request, operation="look up", subject=subject):
                if len(reply.payload) >= formats.IFINFO.size:
                    self._indexes[name] = formats.IFINFO.unpack_from(reply.payload)[2]
        if name not in self._indexes:
            raise NotFound("look up", f"the interface {name}")
        return self._indexes[name]
