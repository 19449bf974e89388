"""The node's own addresses, and where the routes of its main table lead.

Problem: a pod's flow to an address of its own node is delivered, not forwarded, and must not be taken for a flow that
lost its translation; and pods that still live in an old network are known by their routes. Promise: facts as the kernel
has them now. It changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.ports import only_ours
from hitless.kernel.rtnetlink.reader import RtnetlinkReader, names_of, unicast
from hitless.model.families import Address, Family, Network
from hitless.model.links import MAIN, Route

__all__ = ["NodeFacts", "Paths"]


@dataclass(frozen=True, slots=True)
class Paths:
    """The main table's routes with their interfaces' names, longest prefix first."""

    routes: tuple[tuple[Network, str], ...]
    _hosts: Mapping[Address, str] = field(init=False, repr=False, compare=False)
    _wider: tuple[tuple[Network, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # a node without a bridge has a route for each pod: those are looked up, the few others searched
        hosts: dict[Address, str] = {}
        wider: list[tuple[Network, str]] = []
        for network, name in self.routes:
            if network.prefixlen == network.max_prefixlen:
                hosts.setdefault(network.network_address, name)
            else:
                wider.append((network, name))
        object.__setattr__(self, "_hosts", hosts)
        object.__setattr__(self, "_wider", tuple(wider))

    def interface(self, address: Address) -> str:
        """The interface that leads to an address; empty where no route says."""
        if address in self._hosts:
            return self._hosts[address]
        return next(
            (name for network, name in self._wider if network.version == address.version and address in network), ""
        )

    def hosts(self, network: Network) -> Iterator[Address]:
        """Addresses inside ``network`` that have a route of their own: the pods of a node without a bridge."""
        for route, _ in self.routes:
            own = route.version == network.version and route.prefixlen == route.max_prefixlen
            if own and route.network_address in network:
                yield route.network_address


class NodeFacts:
    """Reads one namespace over one socket; use it from one thread at a time."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._reader = RtnetlinkReader(namespace)

    def close(self) -> None:
        """Close the socket."""
        self._reader.close()

    @only_ours("list", "addresses")
    def addresses(self, family: Family) -> frozenset[Address]:
        """The node's own addresses."""
        return frozenset(one.address for one in self._reader.addresses({}, family))

    @only_ours("list", "links and routes")
    def paths(self, family: Family) -> Paths:
        """The routes with their interfaces' names."""
        names = names_of(self._reader.devices())
        known = frozenset(names.values())
        found = [(one.to, one.device if one.device in known else "") for one in self._routes(family, names)]
        return Paths(tuple(sorted(found, key=lambda one: -one[0].prefixlen)))

    @only_ours("list", "routes")
    def routes(self, family: Family) -> tuple[Network, ...]:
        """Where the unicast routes of the main table lead."""
        return tuple(one.to for one in self._routes(family, {}))

    def _routes(self, family: Family, names: Mapping[int, str]) -> list[Route]:
        return self._reader.routes(names, family, lambda one: unicast(one, table=MAIN))
