"""A node's source of leases in a test, and its news so far."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

from hitless.model.families import Family
from hitless.model.leases import BackendType
from hitless.sources.cuts import Cutting, cut
from hitless.sources.lease_source import LeaseSource, News, Offer, Reach

CUTS = {Family.IPV4: cut(ip_network("10.42.0.0/16"), Cutting(), "net-conf.json")}


class Follower:
    """The news of a source, in order."""

    def __init__(self, source: LeaseSource) -> None:
        self.source = source
        self._received: queue.Queue[News] = queue.Queue()
        self.last = News()
        self.count = 0
        source.start(self._received.put)

    def until(self, right: Callable[[News], bool], patience: float = 30) -> News:
        """The first news that are right; fails after a while."""
        while not right(self.last):
            try:
                self.last = self._received.get(timeout=patience)
            except queue.Empty:
                raise AssertionError(f"never came; the last: {self.last}") from None
            self.count += 1
        return self.last

    def drain(self) -> News:
        while not self._received.empty():
            self.last = self._received.get()
            self.count += 1
        return self.last


@contextmanager
def following(source: LeaseSource, offered: Offer | None = None) -> Iterator[Follower]:
    follower = Follower(source)
    try:
        if offered is not None:
            source.publish(offered)
        yield follower
    finally:
        source.stop()


def offer(number: int, *, six: bool = False) -> Offer:
    reach = {
        Family.IPV4: Reach(
            ip_address(f"192.0.2.{number}"), mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}", vni=1
        )
    }
    if six:
        reach[Family.IPV6] = Reach(ip_address(f"2001:db8::{number:x}"), mac=f"02:06:00:00:00:{number:02x}", vni=1)
    return Offer(BackendType.VXLAN, reach)
