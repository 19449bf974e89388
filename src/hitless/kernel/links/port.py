"""Links and routes of one network namespace: read whole, written in batches.

Problem: 5,000 peers are 15,000 objects for each family; a program or a message for each of them takes seconds, and an
error in the middle must not hide the rest. Promise: ``observe`` reads what the scope asks for, whole; ``apply`` writes
changes in their order, many in one message, and says of each that was refused why; nothing else is touched. Devices'
numbers are looked up as late as possible, because they change with the device.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, TracebackType

from hitless.errors import HitlessError, KernelError, NotFound
from hitless.kernel.links import decoding, encoding, features, wire
from hitless.kernel.links.decoding import Scope
from hitless.kernel.links.events import LinkEvent, LinkEvents
from hitless.kernel.links.wireguard import Secrets, WireguardDevices
from hitless.kernel.messages import attributes, text, u32
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.netlink import ROUTE, TRIES, Message, Socket, TornError
from hitless.kernel.ports import only_ours
from hitless.model.families import Address, Family
from hitless.model.links import (
    Device,
    DeviceAddress,
    Key,
    LinkChange,
    LinkObject,
    LinkState,
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
        self._wireguard.close()
        if self._events is not None:
            self._events.close()

    @property
    def listening(self) -> int | None:
        """The file descriptor on which changes come, once ``events`` was called."""
        return None if self._events is None else self._events.fileno()

    def events(self, scope: Scope) -> Iterator[LinkEvent]:
        """What has changed since the last call; raises ``EventsLostError``. The first call begins to listen."""
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
        """All devices (those of flannel's names in full), and what the scope asks for. What equals something ``known``
        is that object."""
        devices = self._devices()
        names = {one.index: one.name for one in devices}
        self._indexes = {one.name: one.index for one in devices}
        if self._events is not None:
            self._events.know(names)
        objects: list[LinkObject] = list(devices)
        overlay = [one for one in devices if is_overlay_device(one.name)]
        for family in {Family.IPV4 if one.version == 4 else Family.IPV6 for one in scope.networks}:
            objects += self._routes(family, names, scope, known)
        if overlay:
            objects += self._addresses(names)
        for one in overlay:
            objects += self._neighbours(one, names, known)
            if one.kind == "wireguard":
                objects = [other for other in objects if other is not one]
                objects += self._with_peers(one)
        return LinkState.of(objects)

    def _with_peers(self, device: Device) -> list[LinkObject]:
        try:
            told = self._wireguard.read(device.name)
        except NotFound:  # it went meanwhile
            return []
        return [replace(device, wireguard=Wireguard(told.port, told.public_key)), *told.peers]

    def _devices(self) -> list[Device]:
        request = wire.IFINFO.pack(0, 0, 0, 0, 0) + u32(wire.IFLA_EXT_MASK, wire.SKIP_STATS)
        told = self._socket.dump(wire.GETLINK, request, operation="list", subject="the interfaces")
        names: dict[int, str] = {}
        for one in told:
            if one.type == wire.NEWLINK and len(one.payload) >= wire.IFINFO.size:
                name = attributes(one.payload, wire.IFINFO.size).get(wire.IFLA_IFNAME, b"")
                names[wire.IFINFO.unpack_from(one.payload)[2]] = name.split(b"\0", 1)[0].decode("utf-8", "replace")
        found = [decoding.device(one.payload, names) for one in told if one.type == wire.NEWLINK]
        return [self._with_features(one) for one in found if one is not None]

    def _with_features(self, device: Device) -> Device:
        return features.observed(device, self._namespace) if is_overlay_device(device.name) else device

    def _addresses(self, names: Mapping[int, str]) -> Iterable[DeviceAddress]:
        request = wire.IFADDR.pack(0, 0, 0, 0, 0)
        for one in self._socket.dump(wire.GETADDR, request, operation="list", subject="addresses"):
            found = decoding.address(one.payload, names) if one.type == wire.NEWADDR else None
            if found is not None and is_overlay_device(found.device):
                yield found

    def _routes(
        self, family: Family, names: Mapping[int, str], scope: Scope, known: Mapping[Key, LinkObject]
    ) -> list[LinkObject]:
        def decode(one: Message) -> LinkObject | None:
            return decoding.route(one.payload, names, scope) if one.type == wire.NEWROUTE else None

        request = wire.RTMSG.pack(wire.family_number(family), 0, 0, 0, 0, 0, 0, 0, 0)
        return self._read(wire.GETROUTE, request, "routes", decode, known)

    def _neighbours(
        self, device: Device, names: Mapping[int, str], known: Mapping[Key, LinkObject]
    ) -> Iterator[LinkObject]:
        def decode(one: Message) -> LinkObject | None:
            return decoding.neighbour(one.payload, names) if one.type == wire.NEWNEIGH else None

        only = u32(wire.NDA_IFINDEX, device.index)
        requests = [wire.NDMSG.pack(wire.family_number(family), 0, 0, 0, 0) + only for family in Family]
        # of one device only (rtnl_fdb_dump takes the link message that bridges are asked by)
        requests.append(wire.IFINFO.pack(wire.AF_BRIDGE, 0, device.index, 0, 0))
        for request in requests[: 3 if device.vxlan is not None else 2]:
            yield from self._read(wire.GETNEIGH, request, f"neighbours of {device.name}", decode, known)

    def _read(
        self, kind: int, request: bytes, subject: str, decode: Callable[[Message], LinkObject | None],
        known: Mapping[Key, LinkObject],
    ) -> list[LinkObject]:  # fmt: skip
        """A whole dump as values, one message after the other: thousands of messages at once would be megabytes."""
        for _ in range(TRIES):
            found: list[LinkObject] = []
            try:
                for one in self._socket.stream(kind, request, operation="list", subject=subject):
                    value = decode(one)
                    if value is not None:
                        same = known.get(value.key)
                        found.append(same if same is not None and same == value else value)
                return found
            except TornError:
                continue
        raise KernelError("list", subject, errno.EINTR, f"changed during each of {TRIES} reads")

    @only_ours("look up", "routes to nodes")
    def direct(self, addresses: Iterable[Address]) -> dict[Address, str]:
        """Those to which the node has a route without a gateway, each with the interface; its own are none of them."""
        found: dict[Address, str] = {}
        names = self.names
        for to in addresses:
            with contextlib.suppress(HitlessError):  # unreachable
                replies = self._socket.request(
                    wire.GETROUTE,
                    0,
                    encoding.route_lookup(to.packed),
                    operation="look up",
                    subject=f"the route to {to}",
                )
                for reply in replies:
                    told = attributes(reply.payload, wire.RTMSG.size)
                    plain = wire.RTMSG.unpack_from(reply.payload)[7] == wire.UNICAST
                    if plain and wire.RTA_OIF in told and wire.RTA_GATEWAY not in told and wire.RTA_VIA not in told:
                        index = int.from_bytes(told[wire.RTA_OIF], "little")
                        found[to] = names.get(index, f"#{index}")
        return found

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
            if not (changes[at].verb is Verb.REMOVE and isinstance(error, NotFound))  # somebody else was quicker
        }

    def _send(self, waiting: list[tuple[int, encoding.Request]], refused: dict[int, HitlessError]) -> None:
        """Send what waits; where one request is refused the others are carried out all the same."""
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
            request = wire.IFINFO.pack(0, 0, 0, 0, 0) + text(wire.IFLA_IFNAME, name)
            subject = f"the interface {name}"
            for reply in self._socket.request(wire.GETLINK, 0, request, operation="look up", subject=subject):
                if len(reply.payload) >= wire.IFINFO.size:
                    self._indexes[name] = wire.IFINFO.unpack_from(reply.payload)[2]
        if name not in self._indexes:
            raise NotFound("look up", f"the interface {name}")
        return self._indexes[name]
