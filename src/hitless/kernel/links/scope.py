"""Which objects of the kernel the overlay reads: devices of flannel's names and what belongs to them, and the routes of
the main table that lead into its networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hitless.kernel.rtnetlink.decoding import NeighbourFilter, RouteMessage, route
from hitless.model.families import Network, within
from hitless.model.links import MAIN, Route, is_overlay_device

__all__ = ["Scope", "is_underlay", "may_be_in_scope", "of_overlay_devices", "route_in_scope"]


@dataclass(frozen=True, slots=True)
class Scope:
    """The networks whose routes are read; host routes of pods are not."""

    networks: tuple[Network, ...] = ()

    def has(self, to: Network) -> bool:
        """Whether a route leads into one of the networks."""
        return any(within(to, one) for one in self.networks)


def may_be_in_scope(message: RouteMessage, names: Mapping[int, str]) -> bool:
    """Whether it is in scope if its destination is: an entry of the main table, but not a pod's host route."""
    if message.table != MAIN or message.cached:
        return False
    return not message.host or is_overlay_device(names.get(message.oif, ""))


def route_in_scope(message: RouteMessage, names: Mapping[int, str], scope: Scope) -> Route | None:
    """The route; ``None``: outside of the scope."""
    if not may_be_in_scope(message, names):
        return None
    found = route(message, names)
    return found if scope.has(found.to) else None


def is_underlay(message: RouteMessage) -> bool:
    """Whether other nodes may be behind a route: an entry of the main table that leads to more than one address."""
    return message.table == MAIN and not message.cached and not message.host


def of_overlay_devices(names: Mapping[int, str]) -> NeighbourFilter:
    """Neighbours and forwarding entries of devices of flannel's names."""

    def wanted(index: int, _state: int) -> bool:
        return is_overlay_device(names.get(index, ""))

    return wanted
