"""A kernel's links, routes, neighbours and forwarding entries in memory, refusing and forgetting as the real one does.

Problem: death before and after each of some hundred writes, random orders of events and failures, and 5,000 peers in a
unit test need a kernel that is quick. Promise: ``FakeLinks`` is a ``LinksPort``; what goes with a device, with its
being switched off or with its hardware address goes here too, IPv4 routes without an event; a device is refused where
the kernel refuses one. ``history`` has the state after each write, ``die_at`` stops the caller before or after one,
``fail_next`` makes writes fail. It is trusted because one suite (tests/contract) runs on it and on a real kernel.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from hitless.errors import AlreadyExists, EventsLostError, HitlessError, KernelError, NotFound
from hitless.kernel.links.events import LinkEvent
from hitless.kernel.links.scope import Scope
from hitless.model.families import Address, Network
from hitless.model.links import (
    Device,
    DeviceAddress,
    ForwardingEntry,
    Key,
    LinkChange,
    LinkObject,
    LinkState,
    Neighbour,
    Route,
    Verb,
    WireguardPeer,
    is_overlay_device,
)
from hitless.testing.fake_forwarding import path_to
from hitless.testing.fake_kernel import Death

__all__ = ["FakeLinks"]

_OWN_PORT = 1


class FakeLinks:
    """``connected``: networks that are reached without a gateway, each with the interface, whose MTU is 1500."""

    def __init__(self, connected: Mapping[Network, str]) -> None:
        self._connected = dict(connected)
        self.objects: dict[Key, LinkObject] = {}
        self._index = 0
        self._events: deque[LinkEvent] = deque()
        self._lost = False
        self._failures: list[tuple[Callable[[LinkChange], bool], HitlessError]] = []
        self._die: tuple[int, bool] | None = None
        self.writes = 0
        self.looks = 0
        self.history: list[LinkState] = []
        for name in dict.fromkeys(self._connected.values()):
            self._put(Device(name, "veth", 1500, "02:00:00:00:ff:01", True, index=self._next()))
        self._events.clear()

    # --- LinksPort

    def observe(self, scope: Scope, known: Mapping[Key, LinkObject] = MappingProxyType({})) -> LinkState:
        """What is there."""
        self.looks += 1
        return LinkState(dict(self.objects))

    def apply(self, changes: Sequence[LinkChange]) -> Mapping[int, HitlessError]:
        """One after the other."""
        refused: dict[int, HitlessError] = {}
        for at, change in enumerate(changes):
            if self._die == (self.writes, True):
                raise Death(f"before write {self.writes}")
            try:
                self._refuse(change)
                self._write(change)
            except NotFound as error:
                if change.verb is not Verb.REMOVE:
                    refused[at] = error
            except HitlessError as error:
                refused[at] = error
            number, self.writes = self.writes, self.writes + 1
            self.history.append(LinkState(dict(self.objects)))
            if self._die == (number, False):
                raise Death(f"after write {number}")
        return refused

    def direct(self, addresses: Iterable[Address]) -> Mapping[Address, str]:
        """Which are on a connected network."""
        found: dict[Address, str] = {}
        for one in addresses:
            for network, name in self._connected.items():
                if one in network:
                    found[one] = name
        return found

    def events(self, scope: Scope) -> Iterator[LinkEvent]:
        """What has happened since."""
        if self._lost:
            self._lost = False
            self._events.clear()
            raise EventsLostError("receive from", "netlink socket", errno.ENOBUFS)
        found: list[LinkEvent] = []
        while self._events:  # a test does something in another thread meanwhile: nothing may be lost
            found.append(self._events.popleft())
        return iter(found)

    # --- for tests

    def fork(self) -> FakeLinks:
        """Another kernel in the same state; nothing has happened in it yet."""
        made = FakeLinks(self._connected)
        made.objects, made._index, made.writes = dict(self.objects), self._index, 0
        return made

    def fail_next(self, error: HitlessError, concerns: Callable[[LinkChange], bool] = lambda _: True) -> None:
        """Make the next write that ``concerns`` says fail."""
        self._failures.append((concerns, error))

    def die_at(self, write: int | None, *, before: bool = True) -> None:
        """Raise ``Death`` before or after the write of that number; ``None``: live on."""
        self._die = None if write is None else (write, before)

    def lose_events(self) -> None:
        """As when the socket's buffer was full."""
        self._lost = True

    def do(self, verb: Verb, value: LinkObject, before: LinkObject | None = None) -> None:
        """A change by another program; raises as the kernel refuses."""
        self._write(LinkChange(verb, value, before or self.objects.get(value.key)), port=0)

    def way(self, to: Network) -> tuple[str, ...] | None:
        """How a packet to these pods goes: by which device, to which node; ``None``: nowhere."""
        return path_to(self.objects, to)

    # --- execution

    def _next(self) -> int:
        self._index += 1
        return self._index

    def _refuse(self, change: LinkChange) -> None:
        for number, (concerns, error) in enumerate(self._failures):
            if concerns(change):
                del self._failures[number]
                raise error

    def _announce(self, event: LinkEvent) -> None:
        value = event.value
        if isinstance(value, WireguardPeer):
            return  # the kernel sends no event
        if isinstance(value, Device) and value.wireguard is not None:
            event = replace(event, value=replace(value, wireguard=None))
        if isinstance(value, Route) or value is None or is_overlay_device(_device(value)):
            self._events.append(event)
        else:
            self._events.append(replace(event, value=None))

    def _put(self, value: LinkObject, port: int = _OWN_PORT, *, whole: bool = False) -> None:
        self.objects[value.key] = value
        self._announce(LinkEvent(value, False, port, whole=whole))

    def _drop(self, value: LinkObject, port: int = _OWN_PORT, *, whole: bool = False, silent: bool = False) -> None:
        del self.objects[value.key]
        if not silent:
            self._announce(LinkEvent(value, True, port, whole=whole))

    def _write(self, change: LinkChange, port: int = _OWN_PORT) -> None:
        value = change.object
        if isinstance(value, Device):
            self._write_device(change, value, port)
        elif change.verb is Verb.REMOVE:
            if value.key not in self.objects:
                raise NotFound("remove", str(value), errno.ESRCH)
            if isinstance(value, Route) and self.objects[value.key] != value:
                raise NotFound("remove", str(value), errno.ESRCH)
            self._drop(value, port, whole=isinstance(value, DeviceAddress))
        else:
            self._check(value)
            if isinstance(value, WireguardPeer):
                self._take(value)
            if self.objects.get(value.key) != value or not isinstance(value, DeviceAddress):
                self._put(value, port)

    def _check(self, value: LinkObject) -> None:
        if isinstance(value, Route) and value.kind != "unicast":
            return
        device = self.objects.get(("device", _device(value)))
        if not isinstance(device, Device):
            raise NotFound("look up", f"the interface {_device(value)}", errno.ENODEV)
        if isinstance(value, Route):
            if not device.up:
                raise KernelError("write", str(value), errno.ENETDOWN)
            if value.gateway is not None and not value.onlink and not self.direct((value.gateway,)):
                raise KernelError("write", str(value), errno.ENETUNREACH)
            if value.onlink and value.to.version == 6 and self._elsewhere(value):
                raise KernelError("write", str(value), errno.EINVAL, "Nexthop has invalid gateway or device mismatch")
        if isinstance(value, ForwardingEntry) and device.vxlan is None:
            raise KernelError("write", str(value), errno.EOPNOTSUPP)
        if isinstance(value, WireguardPeer) and device.kind != "wireguard":
            raise KernelError("write", str(value), errno.EOPNOTSUPP)

    def _take(self, value: WireguardPeer) -> None:
        """An allowed IP belongs to one peer only (drivers/net/wireguard/allowedips.c)."""
        for one in list(self.objects.values()):
            other = isinstance(one, WireguardPeer) and one.device == value.device and one.key != value.key
            if other and isinstance(one, WireguardPeer):
                self.objects[one.key] = replace(one, allowed=one.allowed - value.allowed)

    def _elsewhere(self, value: Route) -> bool:
        """Whether the gateway of an IPv6 route is behind another device."""
        covering = [
            one
            for one in self.objects.values()
            if isinstance(one, Route) and one.to.version == 6 and value.gateway in one.to
        ]
        nearest = max(covering, key=lambda one: one.to.prefixlen, default=value)
        return nearest.device != value.device

    def _write_device(self, change: LinkChange, value: Device, port: int) -> None:
        old = self.objects.get(("device", change.before.name if isinstance(change.before, Device) else value.name))
        if change.verb is Verb.ADD:
            self._add_device(value, port)
            return
        if not isinstance(old, Device):
            raise NotFound(change.verb.value, str(value), errno.ENODEV)
        if change.verb is Verb.REMOVE:
            self._lose(old, port, lambda one: True)
            self._drop(old, port, whole=True)
        elif change.verb is Verb.RENAME:
            if value.key in self.objects:
                raise AlreadyExists("rename", str(value), errno.EEXIST)
            for one in [one for one in self.objects.values() if _device(one) == old.name]:
                del self.objects[one.key]
                moved = replace(one, name=value.name) if isinstance(one, Device) else replace(one, device=value.name)
                self.objects[moved.key] = moved
            self._announce(LinkEvent(self.objects[value.key], False, port, whole=True))
        else:
            self._change_device(old, value, port)

    def _add_device(self, value: Device, port: int) -> None:
        if value.key in self.objects:
            raise AlreadyExists("add", str(value), errno.EEXIST)
        vxlan = value.vxlan
        if vxlan is not None:
            if vxlan.link and ("device", vxlan.link) not in self.objects:
                raise NotFound("look up", f"the interface {vxlan.link}", errno.ENODEV)
            for other in self.objects.values():
                if isinstance(other, Device) and _listens(other) == _listens(value):
                    raise AlreadyExists("add", str(value), errno.EEXIST)
        index = self._next()
        mac = "" if value.kind == "wireguard" else f"02:00:00:00:00:{index & 255:02x}"
        made = replace(
            value, index=index, mtu=value.mtu or 1450, mac=value.mac or mac,
            tx_checksum=value.tx_checksum is not False, gro=value.gro is not False,
        )  # fmt: skip
        self._put(made, port, whole=True)

    def _change_device(self, old: Device, value: Device, port: int) -> None:
        was, now = old.vxlan, value.vxlan
        if was is not None and now is not None and (was.vni, was.port, was.gbp) != (now.vni, now.port, now.gbp):
            raise KernelError("change", str(value), errno.EOPNOTSUPP, "Cannot change port.")
        made = replace(value, index=old.index, mac=value.mac or old.mac)
        if old.up and not made.up:
            self._lose(old, port, lambda one: isinstance(one, Route | Neighbour) or _is_ipv6_address(one))
        elif made.mac != old.mac:
            self._lose(old, port, lambda one: isinstance(one, Neighbour))
        self._put(made, port, whole=not made.up)

    def _lose(self, device: Device, port: int, kinds: Callable[[LinkObject], bool]) -> None:
        """Remove what depends on a device; the kernel sends no event for IPv4 routes."""
        for one in [one for one in self.objects.values() if _device(one) == device.name]:
            if not isinstance(one, Device) and kinds(one):
                self._drop(one, port, silent=isinstance(one, Route) and one.to.version == 4)


def _is_ipv6_address(value: LinkObject) -> bool:
    return isinstance(value, DeviceAddress) and value.address.version == 6


def _device(value: LinkObject) -> str:
    return value.name if isinstance(value, Device) else value.device


def _listens(device: Device) -> tuple[int, int, int] | None:
    """What two VXLAN devices may not share."""
    vxlan = device.vxlan
    return None if vxlan is None else (vxlan.vni, vxlan.port, vxlan.local.version if vxlan.local is not None else 4)
