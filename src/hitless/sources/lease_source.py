"""The port to a source of leases, the same for Kubernetes, etcd and a directory.

Problem: the overlay must not know where leases are kept, and each source has its own order: Kubernetes gives the
subnet first, etcd gives it in exchange for what a node publishes. Promise: one order for all of them. A
``LeaseSource`` is started with a function that it calls, from a thread of its own, with the whole ``News`` each time
something changed; the overlay answers with an ``Offer`` (the MAC or key is decided from the kernel, or from
``News.own``, before there is a subnet), and the source keeps it published, whoever removes or changes it. While the
source cannot be reached (``trouble``), its last report stays valid. Next stage: ``hitless.agent.overlay``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from hitless.model.families import Address, Family, Network
from hitless.model.leases import BackendType, Endpoint, Lease, Leases

__all__ = ["LeaseSource", "News", "Offer", "Reach", "Teller"]


@dataclass(frozen=True, slots=True)
class Reach:
    """How peers reach this node's pods of one family: an ``Endpoint`` whose subnet the source knows."""

    public_ip: Address
    mac: str = ""
    vni: int = 0
    public_key: str = ""
    port: int = 0

    def endpoint(self, subnet: Network) -> Endpoint:
        """The endpoint that this is for a subnet."""
        return Endpoint(subnet, self.public_ip, self.mac, self.vni, self.public_key, self.port)


@dataclass(frozen=True, slots=True)
class Offer:
    """What this node says of itself."""

    backend: BackendType
    reach: Mapping[Family, Reach]

    def lease(self, node: str, subnets: Mapping[Family, Network]) -> Lease:
        """The lease that it is, for these subnets."""
        endpoints = {
            family: reach.endpoint(subnets[family]) for family, reach in self.reach.items() if family in subnets
        }
        return Lease(node, self.backend, endpoints)


@dataclass(frozen=True, slots=True)
class News:
    """All that a source knows. ``changed``: names whose lease is another one than in the news before, ``None``: look at
    all. ``node``: this node's name there. ``subnets``: this node's, empty until they are known. ``own``: this node's
    lease as the source holds it (of an earlier start, before the first offer): its MAC is to be kept. ``addresses``:
    what the annotations node-public-ip and node-public-ipv6 say, which come before --public-ip. ``published``: the
    offer stands at the source. ``trouble``: why the source cannot be asked, or does not take the offer; empty: well.
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
    """A place where nodes tell each other of themselves."""

    def start(self, tell: Callable[[News], None]) -> None:
        """Begin; ``tell`` is called from the source's thread, in order, never twice with the same."""

    def publish(self, offer: Offer) -> None:
        """Keep this published as this node's word from now on; returns at once."""

    def stop(self) -> None:
        """End the thread; what is published stays."""


class Teller:
    """Tells news when there are any. One thread."""

    def __init__(self) -> None:
        self._tell: Callable[[News], None] | None = None
        self._last: News | None = None
        self._lock = threading.Lock()

    def to(self, tell: Callable[[News], None]) -> None:
        """Whom to tell."""
        self._tell = tell

    def say(self, news: News) -> None:
        """Tell, unless it is what was told last."""
        with self._lock:
            last = self._last
            if last is not None and not news.changed and _same(last, news):
                return
            self._last = news
        if self._tell is not None:
            self._tell(news)


def _same(one: News, other: News) -> bool:
    """Whether nothing but ``changed`` differs, where the leases themselves are known to be the same."""
    mine = (one.leases.synced, one.leases.refused, one.node, one.subnets, one.own, one.addresses, one.published)
    theirs = (other.leases.synced, other.leases.refused, other.node, other.subnets, other.own, other.addresses)
    return (*mine, one.trouble) == (*theirs, other.published, other.trouble)
