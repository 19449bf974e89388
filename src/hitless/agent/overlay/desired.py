"""The overlay's desired objects, kept up to date peer by peer.

Problem: the desired state is a function of the whole snapshot; with 5,000 peers, computing it takes longer than the
change of one peer may take. Promise: ``update`` does for the changed peers what ``desired_overlay`` does for all, and
returns the keys that changed. Where a peer's change could concern another's objects (a collision, a device of an
earlier configuration) it returns ``None``, and everything is computed again. A test compares the two.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from hitless.desired.overlay import Ground, Local, desired_overlay, peer_objects
from hitless.model.leases import Leases
from hitless.model.links import Key, LinkObject, LinkState, Route
from hitless.model.overlay import OverlaySnapshot

__all__ = ["DesiredObjects"]


class DesiredObjects:
    """``objects`` by key; ``by_node``: each peer's keys; ``refused``: peers that are left out, and why; ``former``:
    plain routes that were desired earlier in this run: nothing else distinguishes them from other programs' routes."""

    def __init__(self) -> None:
        self.objects: dict[Key, LinkObject] = {}
        self.by_node: dict[str, tuple[Key, ...]] = {}
        self.refused: dict[str, str] = {}
        self.former: set[Route] = set()
        self._snapshot: OverlaySnapshot | None = None
        self._collided = False

    @property
    def state(self) -> LinkState:
        """All of it; no copy."""
        return LinkState(self.objects)

    def whole(self, snapshot: OverlaySnapshot, ground: Ground) -> None:
        """Compute everything."""
        found = desired_overlay(snapshot, ground)
        self._leave(one for key, one in self.objects.items() if key not in found.state.objects)
        self.objects, self.by_node = dict(found.state.objects), dict(found.by_node)
        self.refused, self._collided = dict(found.refused), bool(found.collided)
        self._snapshot = snapshot

    def update(self, snapshot: OverlaySnapshot, ground: Ground, changed: Collection[str]) -> set[Key] | None:
        """After a change of these peers' leases; the keys that it concerns, or ``None``: use ``whole``."""
        before = self._snapshot
        if before is None or ground.kept or self._collided or _without_leases(before) != _without_leases(snapshot):
            return None
        keys: set[Key] = set()
        place = Local.of(snapshot, ground)
        for node in changed:
            if node == snapshot.own.node:
                continue
            old = self.by_node.pop(node, ())
            self._leave(self.objects.pop(key) for key in old if key in self.objects)
            keys.update(old)
            for name in (node, *(f"{node} ({family})" for family in snapshot.own.endpoints)):
                self.refused.pop(name, None)
            lease = snapshot.leases.by_node.get(node)
            if lease is None:
                continue
            found, refused = peer_objects(place, lease)
            if any(one.key in self.objects for one in found):  # a collision, perhaps with one that changes too
                self._snapshot = None
                return None
            self.objects.update((one.key, one) for one in found)
            self.refused.update(refused)
            self.by_node[node] = tuple(one.key for one in found)
            keys.update(self.by_node[node])
        self._snapshot = snapshot
        return keys

    def _leave(self, gone: Iterable[LinkObject]) -> None:
        self.former.update(one for one in gone if isinstance(one, Route) and one.gateway is not None and not one.onlink)

    def forget(self, observed: Mapping[Key, LinkObject]) -> None:
        """Drop former routes that are gone, after everything was read."""
        self.former = {one for one in self.former if observed.get(one.key) == one}


def _without_leases(snapshot: OverlaySnapshot) -> OverlaySnapshot:
    return replace(snapshot, leases=Leases())
