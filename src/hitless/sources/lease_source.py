"""The port to a source of leases, the same for Kubernetes, etcd and a directory.

Problem: the overlay must not know where leases are kept, and each source has its own order: Kubernetes gives the subnet
first, etcd gives it in exchange for what a node publishes. Promise: one order for all of them. A ``LeaseSource`` is
started with a function that it calls, from a thread of its own, with the whole ``News`` each time something changed;
the overlay publishes an ``Offer`` (its MAC or key comes from the kernel, or from ``News.own``, before there is a
subnet), and the source writes it again when others remove or change it. While the source cannot be reached
(``trouble``), its last report stays valid. Next stage: ``hitless.agent.overlay``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hitless.model.families import Address, Family, Network
from hitless.model.leases import BackendType, Endpoint, Lease, Leases

__all__ = ["LeaseSource", "News", "NewsNotifier", "Offer", "Reach"]


@dataclass(frozen=True, slots=True)
class Reach:
    """How peers reach this node's pods of one family: an ``Endpoint`` whose subnet the source knows."""

    public_ip: Address
    mac: str = ""
    vni: int = 0
    public_key: str = ""
    port: int = 0

    def endpoint(self, subnet: Network) -> Endpoint:
        """The endpoint for a subnet."""
        return Endpoint(subnet, self.public_ip, self.mac, self.vni, self.public_key, self.port)


@dataclass(frozen=True, slots=True)
class Offer:
    """What this node publishes: its backend, and how it is reached."""

    backend: BackendType
    reach: Mapping[Family, Reach]

    def lease(self, node: str, subnets: Mapping[Family, Network]) -> Lease:
        """The lease that is published for these subnets."""
        endpoints = {
            family: reach.endpoint(subnets[family]) for family, reach in self.reach.items() if family in subnets
        }
        return Lease(node, self.backend, endpoints)


@dataclass(frozen=True, slots=True)
class News:
    """All that a source knows. ``changed``: nodes whose lease differs from the news before; ``None``: any may.
    ``node``: this node's name at the source. ``subnets``: this node's, empty until they are known. ``own``: this node's
    lease as stored at the source (before the first offer that of an earlier start, whose MAC is kept). ``addresses``:
    the annotations node-public-ip and node-public-ipv6, which override --public-ip. ``published``: the offer is stored
    at the source. ``trouble``: why the source cannot be reached, or refuses the offer; empty: there is none.
    """

    leases: Leases = field(default_factory=Leases)
    changed: frozenset[str] | None = None
    node: str = ""
    subnets: Mapping[Family, Network] = field(default_factory=dict)
    own: Lease | None = None
    addresses: Mapping[Family, Address] = field(default_factory=dict)
    published: bool = False
    trouble: str = ""


class LeaseSource(Protocol):
    """Where nodes publish their leases: Kubernetes, etcd or a directory."""

    def start(self, receive: Callable[[News], None]) -> None:
        """Begin; ``receive`` is called by the source's thread, in order, never twice with the same news."""

    def publish(self, offer: Offer) -> None:
        """Publish this for this node, and keep it published; returns at once."""

    def stop(self) -> None:
        """End the thread; what is published stays."""


class NewsNotifier:
    """Passes news on unless they are the same as the last ones. For one thread."""

    def __init__(self) -> None:
        self._receive: Callable[[News], None] | None = None
        self._last: News | None = None
        self._lock = threading.Lock()

    def connect(self, receive: Callable[[News], None]) -> None:
        """Set the function that gets the news."""
        self._receive = receive

    def send(self, news: News) -> None:
        """Pass these on, unless the last ones were the same."""
        with self._lock:
            last = self._last
            if last is not None and not news.changed and _same(last, news):
                return
            self._last = news
        if self._receive is not None:
            self._receive(news)


def _same(one: News, other: News) -> bool:
    """Whether nothing but ``changed`` differs; the leases are known to be the same."""
    mine = (one.leases.synced, one.leases.refused, one.node, one.subnets, one.own, one.addresses, one.published)
    theirs = (other.leases.synced, other.leases.refused, other.node, other.subnets, other.own, other.addresses)
    return (*mine, one.trouble) == (*theirs, other.published, other.trouble)
