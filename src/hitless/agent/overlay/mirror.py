"""The kernel's links, routes and neighbours, kept current by events, so that one change costs the same among 5,000
peers as among five.

Promise: after ``update`` the mirror equals the kernel's state when its queue was empty, or ``whole`` requires a full
read: events were lost, a device was removed (its routes go without an event), or a key has several objects. Events only
update the mirror; what to do is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from hitless.kernel.links.events import LinkEvent
from hitless.model.links import (
    Device,
    DeviceAddress,
    Key,
    LinkChange,
    LinkObject,
    LinkState,
    Neighbour,
    Route,
    Verb,
    WireguardPeer,
)
from hitless.plan.links import is_wide

__all__ = ["LinkMirror"]


class LinkMirror:
    """``objects``: what is there. ``touched``: keys that changed since ``take``. ``underlay``: routes or addresses
    outside the overlay have changed. ``wide``: the routes for which ``is_wide`` holds. ``writers``: netlink ports of
    the processes that made the changes."""

    def __init__(self) -> None:
        self.objects: dict[Key, LinkObject] = {}
        self.wide: dict[Key, Route] = {}
        self.touched: set[Key] = set()
        self.writers: set[int] = set()
        self.whole = True
        self.underlay = True
        self._names: dict[int, str] = {}

    def take(self) -> set[Key]:
        """The touched keys; they are forgotten."""
        found, self.touched = self.touched, set()
        return found

    def replace(self, state: LinkState, desired: Mapping[Key, LinkObject] = MappingProxyType({})) -> None:
        """Take a full read; an object that equals a desired one is replaced by it, so that it is in memory once."""
        self.objects = _shared(state.objects, desired)
        self.wide = {one.key: one for one in self.objects.values() if isinstance(one, Route) and is_wide(one)}
        self._names = {one.index: one.name for one in state.devices()}
        self.touched.clear()
        self.whole = False

    def wrote(self, change: LinkChange) -> None:
        """A write succeeded whose event comes later (IPv6 addresses) or never (WireGuard)."""
        value = change.object
        if isinstance(value, WireguardPeer) and change.verb is Verb.REMOVE:
            self.objects.pop(value.key, None)
        elif isinstance(value, DeviceAddress | WireguardPeer) and change.verb is not Verb.REMOVE:
            self.objects[value.key] = value
        elif isinstance(value, Device) and value.kind == "wireguard":
            self.whole = True

    def settle(self, desired: Mapping[Key, LinkObject]) -> None:
        """After the first full read, when the desired objects are known: peers with a session keep their endpoint."""
        self.objects = _shared(self.objects, desired)

    def update(self, events: Iterable[LinkEvent], desired: Mapping[Key, LinkObject] = MappingProxyType({})) -> None:
        """Apply the events since the last call."""
        for event in events:
            self.whole = self.whole or event.whole or event.doubtful
            value = event.value
            if value is None:
                self.underlay = True
                continue
            if isinstance(value, Device):  # with another name, everything on it has another name
                self.whole = self.whole or self._names.get(value.index, value.name) != value.name
                self._names[value.index] = value.name
            key = value.key
            old = self.objects.get(key)
            if event.gone:
                if old is not None:
                    self._gone(key, old, value)
                    self.writers.add(event.port)
                continue
            if isinstance(value, Device) and isinstance(old, Device):
                # events do not carry these; a full read finds changes of them
                value = replace(value, wireguard=old.wireguard, tx_checksum=old.tx_checksum, gro=old.gro)
                self.whole = self.whole or value.index != old.index or value == old or (old.up and not value.up)
            if isinstance(value, Device) and value.kind == "wireguard" and value.wireguard is None:
                self.whole = True  # events do not carry keys and peers
            if old == value:
                continue
            same = desired.get(key)
            chosen = same if same is not None and same == value and not isinstance(same, Device) else value
            self.objects[chosen.key] = chosen
            if isinstance(chosen, Route) and is_wide(chosen):
                self.wide[chosen.key] = chosen
            self.touched.add(chosen.key)
            self.writers.add(event.port)

    def _gone(self, key: Key, old: LinkObject, value: LinkObject) -> None:
        self.touched.add(old.key)
        del self.objects[key]
        self.wide.pop(key, None)
        # of two objects with one key the other one may have gone, or be left
        self.whole = self.whole or (old != value and not isinstance(old, Device | Neighbour))


def _shared(objects: Mapping[Key, LinkObject], desired: Mapping[Key, LinkObject]) -> dict[Key, LinkObject]:
    """Replace objects that equal desired ones by these: of thousands, none is in memory twice."""
    found: dict[Key, LinkObject] = {}
    for key, value in objects.items():
        same = desired.get(key)
        if same is None or isinstance(same, Device) or not _is(same, value):
            same = value
        found[same.key] = same
    return found


def _is(desired: LinkObject, value: LinkObject) -> bool:
    """Whether the object that was read is as desired. A peer with a session may have another endpoint (NAT): resetting
    it to that of its lease would cut the peer off until it sends again."""
    if isinstance(value, WireguardPeer) and value.alive and isinstance(desired, WireguardPeer):
        value = replace(value, endpoint=desired.endpoint, port=desired.port)
    return desired == value
