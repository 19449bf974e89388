"""The pods of the networks that the guard protects, and the interface by which their packets leave.

Promise: ``Places.witnesses`` is what the watch would use (``hitless.observe``), from one reading of the node;
``changed`` reads the node again when it is due. Next stage: ``side``.
"""

from __future__ import annotations

from typing import Protocol

from hitless.guard.standby_rules import DESTINATIONS, WitnessPlace
from hitless.kernel.namespaces import Namespace
from hitless.model.families import Family, family_of
from hitless.observe import Asking, LiveNode, NodeView, Witnesses, find

__all__ = ["NOWHERE", "Around", "Places"]


class Around(Protocol):
    """What a side needs of the node."""

    def witnesses(self, place: WitnessPlace) -> Witnesses:
        """The pods of a place, and their uplink."""

    def uplink(self, family: Family) -> str:
        """The uplink, where it is known."""


class Places:
    """The places of one node. Close it."""

    def __init__(self, namespace: Namespace, families: tuple[Family, ...], uplink: str = "") -> None:
        self._node = LiveNode(namespace, families, uplink=uplink)
        self._known: dict[WitnessPlace, Witnesses] = {}
        self._uplinks: dict[Family, str] = {}

    def close(self) -> None:
        """Close the node."""
        self._node.close()

    def witnesses(self, place: WitnessPlace) -> Witnesses:
        """The pods of a place, and their uplink, as of the last reading."""
        if place not in self._known:
            self._known[place] = self._node.witnesses(_asking(place))
        return self._known[place]

    def uplink(self, family: Family) -> str:
        """The uplink of a family, where it is known; that of its pods, once there are some."""
        found = (each.uplink.name for place, each in self._known.items() if family_of(place.network) is family)
        self._uplinks[family] = next((name for name in found if name), "") or self._node.uplink(family)
        return self._uplinks[family]

    def changed(self, now: float) -> frozenset[Family]:
        """Read the node again, when it is time: the families with other pods, or another uplink, than before."""
        if not self._node.look(now):
            return frozenset()
        uplinks = dict(self._uplinks)
        before, self._known = self._known, {}
        other = {family_of(place.network) for place, witnesses in before.items() if self.witnesses(place) != witnesses}
        return frozenset(other | {family for family, name in uplinks.items() if name != self.uplink(family)})


class _Nowhere:
    """A node of which nothing is known."""

    def witnesses(self, place: WitnessPlace) -> Witnesses:
        """Unused addresses, and no uplink."""
        return find(_asking(place), NodeView(), lambda *_: "")

    def uplink(self, family: Family) -> str:
        """No uplink."""
        return ""


NOWHERE: Around = _Nowhere()


def _asking(place: WitnessPlace) -> Asking:
    return Asking(place.network, place.subnet, destinations=DESTINATIONS)
