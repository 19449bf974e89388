"""One look at a node: its links, routes, neighbours and addresses, and the addresses that its IPAM has given out.

Promise: ``Viewer.look`` reads everything at once, in some milliseconds with a hundred pods, and sends nothing; what
flannel's overlay has for each other node is left out. Files of the host-local IPAM plugin are read where there are
some; what cannot be read is left out. Next stage: ``pods``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.routing import Link, Neighbour, Route, Routing
from hitless.model.families import Address, Family
from hitless.model.links import is_overlay_device
from hitless.model.reading import address_of

__all__ = ["NodeView", "Viewer"]

_IPAM = "var/lib/cni/networks"
"""Where the host-local plugin keeps a file for each address that it gave out, in a folder for each network."""
_MOST_FILES = 4096


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node at one moment. ``given``: addresses that the IPAM plugin has given to pods."""

    links: Mapping[int, Link] = field(default_factory=dict)
    routes: Mapping[Family, tuple[Route, ...]] = field(default_factory=dict)
    neighbours: Mapping[Family, tuple[Neighbour, ...]] = field(default_factory=dict)
    addresses: Mapping[Family, Mapping[Address, int]] = field(default_factory=dict)
    given: frozenset[Address] = frozenset()

    def name(self, index: int) -> str:
        """An interface's name; empty when there is no such interface."""
        link = self.links.get(index)
        return link.name if link is not None else ""


class Viewer:
    """Looks at one namespace, over one socket. For one thread at a time."""

    def __init__(self, namespace: Namespace = HERE, families: Iterable[Family] = tuple(Family)) -> None:
        self.routing = Routing(namespace)
        self._families = tuple(families)
        self._root = _root(namespace)

    def close(self) -> None:
        """Close the socket."""
        self.routing.close()

    def look(self) -> NodeView:
        """How the node is now."""
        read = self.routing
        links = read.links()
        # behind them are other nodes, thousands perhaps: no pod of this one, and no way out of the cluster
        overlay = frozenset(index for index, link in links.items() if is_overlay_device(link.name))
        return NodeView(
            links,
            {family: read.routes(family, beyond=overlay) for family in self._families},
            {family: read.neighbours(family, beyond=overlay) for family in self._families},
            {family: read.addresses(family) for family in self._families},
            _given(self._root) if self._root else frozenset(),
        )


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
