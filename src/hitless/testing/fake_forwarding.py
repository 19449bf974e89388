"""The path of a packet through a fake kernel's routes, neighbours, forwarding entries and WireGuard peers.

Problem: a test of the overlay asserts which node a packet reaches, not which objects are there. Promise: the choice is
the kernel's: the longest prefix, then the lowest metric. Next stage: ``fake_links``.
"""

from __future__ import annotations

from collections.abc import Mapping

from hitless.model.families import Network, within
from hitless.model.links import Device, ForwardingEntry, Key, LinkObject, Neighbour, Route, WireguardPeer

__all__ = ["path_to"]


def path_to(objects: Mapping[Key, LinkObject], to: Network) -> tuple[str, ...] | None:
    """How a packet to these pods goes: by which device, to which node; ``None``: nowhere."""
    fitting = [one for one in objects.values() if isinstance(one, Route) and within(to, one.to)]
    if not fitting:
        return None
    route = max(fitting, key=lambda one: (one.to.prefixlen, -one.metric))
    device = objects.get(("device", route.device))
    if isinstance(device, Device) and device.kind == "wireguard":
        return _by_peer(objects, route.device, to)
    if not route.onlink:
        return (route.device, str(route.gateway)) if route.kind == "unicast" else None
    neighbour = objects.get(("neighbour", route.device, route.gateway))
    if not isinstance(neighbour, Neighbour) or not neighbour.mac:
        return None
    entry = objects.get(("forwarding", route.device, neighbour.mac))
    return (route.device, str(entry.to)) if isinstance(entry, ForwardingEntry) else None


def _by_peer(objects: Mapping[Key, LinkObject], name: str, to: Network) -> tuple[str, ...] | None:
    for one in objects.values():
        if not isinstance(one, WireguardPeer) or one.device != name or one.endpoint is None:
            continue
        if any(within(to, network) for network in one.allowed):
            return name, str(one.endpoint)
    return None
