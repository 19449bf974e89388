"""What the kernel has, kept up to date by its own events, so that one change costs the same among 5,000 peers as
among five.

Promise: after ``update`` the mirror is what the kernel had when its queue was empty, or ``whole`` says that only a full
read can tell: events were lost, a device went (its routes go without an event), or a key has several objects. Events
never decide anything: they only say what is there.
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
    """``objects``: what is there. ``touched``: keys that changed since ``take``. ``underlay``: routes or addresses that
    are not the overlay's changed. ``wide``: the routes that are (``is_wide``). ``writers``: netlink ports that asked
    for the changes."""

    def __init__(self) -> None:
        self.objects: dict[Key, LinkObject] = {}
        self.wide: dict[Key, Route] = {}
        self.touched: set[Key] = set()
        self.writers: set[int] = set()
        self.whole = True
        self.underlay = True
        self._names: dict[int, str] = {}

    def take(self) -> set[Key]:
        """The touched keys, for the last time."""
        found, self.touched = self.touched, set()
        return found

    def replace(self, state: LinkState, desired: Mapping[Key, LinkObject] = MappingProxyType({})) -> None:
        """A full read; what equals something desired is that object, so that it is in memory once."""
        self.objects = _shared(state.objects, desired)
        self.wide = {one.key: one for one in self.objects.values() if isinstance(one, Route) and is_wide(one)}
        self._names = {one.index: one.name for one in state.devices()}
        self.touched.clear()
        self.whole = False

    def wrote(self, change: LinkChange) -> None:
        """The kernel took an address, whose event comes later for IPv6, from a queue; or something of WireGuard, of
        which there are no events."""
        value = change.object
        if isinstance(value, WireguardPeer) and change.verb is Verb.REMOVE:
            self.objects.pop(value.key, None)
        elif isinstance(value, DeviceAddress | WireguardPeer) and change.verb is not Verb.REMOVE:
            self.objects[value.key] = value
        elif isinstance(value, Device) and value.kind == "wireguard":
            self.whole = True

    def settle(self, desired: Mapping[Key, LinkObject]) -> None:
        """After the first full read, when it is known what is desired: peers that have a session are where they are."""
        self.objects = _shared(self.objects, desired)

    def update(self, events: Iterable[LinkEvent], desired: Mapping[Key, LinkObject] = MappingProxyType({})) -> None:
        """What has happened since."""
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
                # events do not carry them; whether they changed is for a full read
                value = replace(value, wireguard=old.wireguard, tx_checksum=old.tx_checksum, gro=old.gro)
                self.whole = self.whole or value.index != old.index or value == old or (old.up and not value.up)
            if isinstance(value, Device) and value.kind == "wireguard" and value.wireguard is None:
                self.whole = True  # events say nothing of keys and peers
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
    """What is what was desired is that object, with its key: of thousands nothing is in memory twice."""
    found: dict[Key, LinkObject] = {}
    for key, value in objects.items():
        same = desired.get(key)
        if same is None or isinstance(same, Device) or not _is(same, value):
            same = value
        found[same.key] = same
    return found


def _is(desired: LinkObject, value: LinkObject) -> bool:
    """Whether what was read is what is desired. A peer with a session may have another endpoint (a NAT): setting it
    back to what its lease says would cut it off until it sends again."""
    if isinstance(value, WireguardPeer) and value.alive and isinstance(desired, WireguardPeer):
        value = replace(value, endpoint=desired.endpoint, port=desired.port)
    return desired == value
