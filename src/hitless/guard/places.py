"""Where this node's pods are and which way they go out: facts of routing, for witness packets.

Promise: ``uplink`` is the interface of the default route; ``samples`` are a few real pods (address and the host's side
of their link), found by the routes into the pod networks. A rule that asks for an interface can then be answered.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from pathlib import Path

from hitless.kernel.addresses import NodeFacts
from hitless.kernel.namespaces import HERE, Namespace, inside
from hitless.model.families import Address, Family, Network

__all__ = ["Sample", "samples", "uplink", "uplink_of"]

Sample = tuple[Address, str]
"""A pod's address and the interface that its packets come in by."""

_SAMPLES = 3  # one pod's own network policy must not look like an outage of the node
_POD = 10  # of a subnet behind a bridge: an address that is neither the network's nor the gateway's

_FALLBACK = "eth0"
_FILES = {Family.IPV4: "/proc/thread-self/net/route", Family.IPV6: "/proc/thread-self/net/ipv6_route"}


def uplink(family: Family, namespace: Namespace = HERE) -> str:
    """The interface that new flows to the outside leave by; ``eth0`` where there is no default route."""
    try:
        text = inside(namespace, Path(_FILES[family]).read_text)
    except OSError:
        return _FALLBACK
    return uplink_of(family, text)


def uplink_of(family: Family, text: str) -> str:
    """The same, from the file's text."""
    for line in text.splitlines():
        words = line.split()
        if family is Family.IPV4 and len(words) > 7 and words[1] == words[7] == "00000000":
            return words[0]
        default = len(words) == 10 and not words[0].strip("0") and words[1] == "00"
        if family is Family.IPV6 and default and words[9] != "lo":
            return words[9]
    return _FALLBACK


def samples(facts: NodeFacts, family: Family, networks: Iterable[Network], namespace: Namespace = HERE) -> list[Sample]:
    """A few pods of this node: host routes into the pod networks, else a subnet behind a bridge."""
    mine = tuple(networks)
    hosts: list[tuple[Address, int]] = []
    bridges: list[tuple[Address, int]] = []
    for route, index in facts.routes(family):
        if not index or not any(_inside(route, network) for network in mine):
            continue
        if route.prefixlen == route.max_prefixlen:
            hosts.append((route.network_address, index))
        elif route.num_addresses > _POD:
            bridges.append((route[_POD], index))
    chosen = hosts[:_SAMPLES]

    def name(index: int) -> str:
        try:
            return socket.if_indextoname(index)
        except OSError:
            return ""

    named = inside(namespace, lambda: [(address, name(index)) for address, index in chosen or bridges])
    # a route over a tunnel leads to other nodes' pods; a bridge's subnet is told by its name
    return [(address, word) for address, word in named if word and (chosen or word.startswith(("cni", "cbr", "br")))]


def _inside(part: Network, whole: Network) -> bool:
    return part.version == whole.version and part.prefixlen >= whole.prefixlen and part.network_address in whole
