"""The pods that are on a node, from its routes, neighbours and IPAM files. Pure.

Problem: a rule that matches one pod's address does not affect the others. Promise: ``pods`` gives addresses that are on
this node certainly or very likely, each with the interface by which its packets arrive, at most ``MOST`` of them: a
host route by a pod's link is a pod; on a bridge, neighbours of the node and addresses that the IPAM plugin has
assigned. The kernel remembers a neighbour long after it is gone, so that a bridge never has more pods than ports, the
last confirmed first. ``unused`` gives addresses that none of them has, and the next pod may get.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from hitless.model.families import Address, Family, Network, family_of, within
from hitless.model.reading import packed_network
from hitless.observe.nodes import NodeView
from hitless.semantics import unused_addresses as made_up

__all__ = ["MOST", "LocalPod", "part", "pods", "unused"]

MOST = 256
"""Pods of a network that are evaluated: twice what the kubelet allows on a node by default."""

_BLOCK_BITS = 6
_ELSEWHERE = frozenset({"vxlan", "geneve", "ipip", "ip6tnl", "sit", "gre", "gretap", "wireguard", "tun", "xfrm"})
"""Kinds of links that lead to other nodes' pods."""


class LocalPod(NamedTuple):
    """A pod's address and the interface that its packets come in by (empty: not known)."""

    address: Address
    interface: str = ""


def pods(view: NodeView, network: Network, own: Network | None = None) -> tuple[LocalPod, ...]:
    """The pods of ``network`` on this node; ``own`` is the node's part of it, where that is known."""
    family, where = family_of(network), own or network
    mine = view.addresses.get(family, {})
    found: dict[Address, str] = {}
    bridged: dict[str, dict[Address, tuple[bool, int]]] = {}
    for route in view.routes.get(family, ()):
        if route.to.prefixlen == route.to.max_prefixlen and route.direct:
            address = route.to.network_address
            # a pod may have an address outside of the node's part: its host route shows that it is here
            if address in network and address not in mine and _leads_to_pods(view, route.device):
                found.setdefault(address, route.device)
    for name, address, age in _likely(view, family, where):
        if address not in found and address not in mine and _leads_to_pods(view, name):
            bridged.setdefault(name, {}).setdefault(address, (address not in view.given, age))
    for name, candidates in bridged.items():
        for address in sorted(candidates, key=candidates.__getitem__)[: _room(view, name)]:
            found.setdefault(address, name)
    ordered = sorted(found.items(), key=lambda one: int(one[0]))
    return tuple(LocalPod(*one) for one in ordered[:MOST])


def _likely(view: NodeView, family: Family, where: Network) -> Iterator[tuple[str, Address, int]]:
    """Addresses on the node's links, each with the link and how long ago it was confirmed."""
    uplinks = {route.device for route in view.routes.get(family, ()) if not route.direct and not route.to.prefixlen}
    for neighbour in view.neighbours.get(family, ()):  # where pods live in the nodes' network, nodes are neighbours too
        if neighbour.address in where and neighbour.device not in uplinks:
            yield neighbour.device, neighbour.address, neighbour.age
    links = [
        (route.to, route.device) for route in view.routes.get(family, ()) if route.direct and _holds(where, route.to)
    ]
    for address in view.given:
        name = next((name for to, name in links if address in to), "")
        if name and name not in uplinks and address in where:
            yield name, address, 1 << 32  # after every neighbour


def _holds(where: Network, to: Network) -> bool:
    return to.overlaps(where) and 0 < to.prefixlen < to.max_prefixlen


def _leads_to_pods(view: NodeView, name: str) -> bool:
    link = view.links.get(name)
    return link is not None and link.up and link.kind not in _ELSEWHERE and link.name != "lo"


def _room(view: NodeView, name: str) -> int:
    """How many pods a link can have: a bridge as many as ports."""
    if view.links[name].kind != "bridge":
        return MOST
    return sum(link.master == name and link.up for link in view.links.values())


def part(view: NodeView, network: Network, interfaces: Iterable[str]) -> Network | None:
    """The part of ``network`` that a route leads to by a pods' interface: a bridge full of them."""
    names = set(interfaces)
    for route in view.routes.get(family_of(network), ()):
        to = route.to
        smaller = network.prefixlen < to.prefixlen < to.max_prefixlen
        if smaller and within(to, network) and route.device in names:
            return to
    return None


def _block(network: Network, known: Sequence[LocalPod]) -> Network:
    """Where a pod's neighbours are: Calico gives a node blocks of 64 addresses."""
    if not known:
        return network
    around = packed_network(known[0].address.packed, known[0].address.max_prefixlen - _BLOCK_BITS)
    return around if around.prefixlen > network.prefixlen else network


def unused(view: NodeView, network: Network, own: Network | None, known: Sequence[LocalPod]) -> tuple[LocalPod, ...]:
    """Addresses that no pod has, each with the interface that a route names for it. Where the node's part is not known,
    they are neighbours of a pod that is here."""
    family = family_of(network)
    taken = {pod.address for pod in known} | set(view.addresses.get(family, ())) | view.given
    routes = sorted(view.routes.get(family, ()), key=lambda route: -route.to.prefixlen)
    found = []
    for address in made_up(own or _block(network, known), taken):
        name = next((route.device for route in routes if route.to.prefixlen and address in route.to), "")
        found.append(LocalPod(address, name if _leads_to_pods(view, name) else ""))
    return tuple(found)
