"""A node at one moment: its links, routes, neighbours and addresses, and the addresses that its IPAM has assigned.

Promise: ``Viewer.look`` reads everything at once, in some milliseconds with a hundred pods, and sends nothing; what
flannel's overlay has for each other node is left out. The files of the host-local IPAM plugin are read if there are
any; what cannot be read is left out. Next stage: ``pods``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.rtnetlink.decoding import NeighbourFilter, RouteFilter
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, confirmed, names_of, unicast
from hitless.model.families import Address, Family
from hitless.model.links import Device, Neighbour, Route, is_overlay_device
from hitless.model.reading import address_of

__all__ = ["NodeView", "Viewer"]

_IPAM = "var/lib/cni/networks"
"""Where the host-local plugin has a file for each address that it assigned, in a folder for each network."""
_MOST_FILES = 4096


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node at one moment: links by name, routes, neighbours, and which link has an address. ``given``: addresses that
    the IPAM plugin has assigned to pods. A link that came while the node was read may be named but not be in
    ``links``."""

    links: Mapping[str, Device] = field(default_factory=dict)
    routes: Mapping[Family, tuple[Route, ...]] = field(default_factory=dict)
    neighbours: Mapping[Family, tuple[Neighbour, ...]] = field(default_factory=dict)
    addresses: Mapping[Family, Mapping[Address, str]] = field(default_factory=dict)
    given: frozenset[Address] = frozenset()


class Viewer:
    """Reads one namespace over one socket. For one thread at a time."""

    def __init__(self, namespace: Namespace = HERE, families: Iterable[Family] = tuple(Family)) -> None:
        self._reader = RtnetlinkReader(namespace)
        self._families = tuple(families)
        self._root = _root(namespace)

    def close(self) -> None:
        """Close the socket."""
        self._reader.close()

    def look(self) -> NodeView:
        """The node as it is now."""
        read, families = self._reader, self._families
        devices = read.devices()
        names = names_of(devices)
        # they lead to other nodes, perhaps thousands: not to pods of this one, and not out of the cluster
        overlay = frozenset(one.index for one in devices if is_overlay_device(one.name))
        wanted: RouteFilter = partial(unicast, beyond=overlay)
        alive: NeighbourFilter = partial(confirmed, beyond=overlay)
        return NodeView(
            {one.name: one for one in devices},
            {family: tuple(read.routes(names, family, wanted)) for family in families},
            {family: tuple(read.neighbours(names, family, alive, ages=True)) for family in families},
            {family: {one.address: one.device for one in read.addresses(names, family)} for family in families},
            _given(self._root) if self._root else frozenset(),
        )

    def lookup(self, view: NodeView, to: Address, source: Address | None = None, iif: str = "") -> str:
        """The interface by which the node would send a packet, forwarded for the pod ``source`` at ``iif``; empty: it
        would not send it."""
        index = view.links[iif].index if iif else 0
        route = self._reader.lookup({one.index: one.name for one in view.links.values()}, to, source, index)
        return route.device if route is not None else ""


def _root(namespace: Namespace) -> str:
    """Where the node's files are; empty when a namespace is named by a path: whose files go with it is not known."""
    if namespace.net is None:
        return "/"
    return f"/proc/{namespace.pid}/root" if namespace.pid is not None else ""


def _given(root: str) -> frozenset[Address]:
    found: set[Address] = set()
    try:
        with os.scandir(Path(root) / _IPAM) as networks:
            folders = [entry.path for entry in networks if entry.is_dir(follow_symlinks=False)]
        for folder in folders:
            with os.scandir(folder) as files:
                for entry in islice(files, _MOST_FILES):
                    address = address_of(entry.name)  # None: the plugin's lock and its last reserved address
                    if address is not None:
                        found.add(address)
    except OSError:  # there are none, or they may not be read
        pass
    return frozenset(found)
