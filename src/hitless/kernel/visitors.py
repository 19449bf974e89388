"""A bound on a server's connections: how many clients may have, and which connection is closed for a new one.

Problem: a client that opens connections and keeps them shuts all others out, and a server that refuses the newest
connection refuses the kubelet's probe. Promise: at most ``most`` connections, at most ``most_each`` of one source; a
new one is always accepted, and the one that is closed for it belongs to the source with the most, and was silent for
longest. So a source can only push out its own connections, however many it opens. Every step takes the same time,
however many there are. Nothing here touches a socket. Used by ``hitless.daemon.server`` and
``hitless.probe.far_end_services``.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

__all__ = ["OUT_OF_ROOM", "Visitors", "raise_descriptor_limit", "source_of"]

OUT_OF_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accept(2) when a connection waits but this process or machine cannot take it: a retry at once would only
burn a core."""

Visitor = TypeVar("Visitor", bound=Hashable)


def source_of(sender: tuple[Any, ...]) -> str:
    """Whose connection it is: the IPv4 address, or the /64 of an IPv6 address (a host has all of it to itself)."""
    address = str(sender[0]).partition("%")[0]
    if ":" not in address:
        return address
    packed = socket.inet_pton(socket.AF_INET6, address)
    if packed.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return f"{socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8))}/64"


def raise_descriptor_limit(most: int = 65536) -> int:
    """Raise this process's soft limit of descriptors to its hard one, ``most`` where there is none; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return wanted if soft == resource.RLIM_INFINITY else soft


class Visitors(Generic[Visitor]):
    """Who is here, by source; iterating gives all of them."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._of: dict[str, dict[Visitor, None]] = {}  # the one that was silent for longest is first
        self._with: dict[int, dict[str, None]] = {}  # sources by how many visitors they have
        self._busiest = 0
        self._sources: dict[Visitor, str] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[Visitor]:
        return iter(list(self._sources))

    def admit(self, source: str, visitor: Visitor) -> Visitor | None:
        """Accept a connection; returns the one that must be closed for it (and is no longer counted)."""
        leaving: Visitor | None = None
        if len(self._of.get(source, ())) >= self._most_each:
            leaving = next(iter(self._of[source]))
        elif len(self._sources) >= self._most:
            leaving = next(iter(self._of[next(iter(self._with[self._busiest]))]))
        if leaving is not None:
            self.forget(leaving)
        self._sources[visitor] = source
        mine = self._of.setdefault(source, {})
        mine[visitor] = None
        self._moved(source, len(mine) - 1, len(mine))
        return leaving

    def heard(self, visitor: Visitor) -> None:
        """The visitor did something: others of its source go first."""
        mine = self._of[self._sources[visitor]]
        mine[visitor] = mine.pop(visitor)

    def forget(self, visitor: Visitor) -> None:
        """The connection was closed."""
        source = self._sources.pop(visitor, None)
        if source is None:
            return
        mine = self._of[source]
        del mine[visitor]
        if not mine:
            del self._of[source]
        self._moved(source, len(mine) + 1, len(mine))

    def _moved(self, source: str, before: int, after: int) -> None:
        if before:
            del self._with[before][source]
            if not self._with[before]:
                del self._with[before]
        if after:
            self._with.setdefault(after, {})[source] = None
        if after > self._busiest or (before == self._busiest and before not in self._with):
            self._busiest = after
