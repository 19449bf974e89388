"""Whether something changed while a dump was read, for the dumps that the kernel does not mark as interrupted.

Problem: between two datagrams of a dump the kernel remembers its position by counting. Where an entry before that
position is removed, others are skipped, hundreds of IPv6 routes in a storm of changes; only of links and addresses it
reports that (``NLM_F_DUMP_INTR``). Promise: ``end`` reports whether a change that matters was announced since
``begin``; announcements that were dropped count as one. Between these calls it receives nothing.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable

from hitless.kernel.messages import Message, messages
from hitless.kernel.namespaces import HERE, Namespace, inside
from hitless.kernel.netlink import ROUTE
from hitless.kernel.rtnetlink import formats

__all__ = ["AnnouncedChanges", "Matters", "forwarding_removed", "neighbour_removed", "route_changed"]

_SOL_NETLINK, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP = 270, 1, 2
_SIZE = 1 << 16

Matters = Callable[[Message], bool]


class AnnouncedChanges:
    """The announcements of one namespace. For one thread at a time; the socket is opened at the first use."""

    def __init__(self, namespace: Namespace = HERE) -> None:
        self._namespace = namespace
        self._socket: socket.socket | None = None

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def begin(self, group: int) -> None:
        """Receive the announcements of a multicast group from now on."""
        if self._socket is None:
            kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            self._socket = inside(self._namespace, lambda: socket.socket(socket.AF_NETLINK, kind, ROUTE))
            self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def end(self, group: int, matters: Matters) -> bool:
        """Whether one of them ``matters``; none are received any more."""
        assert self._socket is not None
        self._socket.setsockopt(_SOL_NETLINK, _DROP_MEMBERSHIP, group)
        found = False
        while True:
            try:
                data = self._socket.recv(_SIZE)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            found = found or any(matters(one) for one in messages(data))


def route_changed(_message: Message) -> bool:
    """For IPv6 routes: the walk over the tree begins again after any change, and skips a number of nodes."""
    return True


def neighbour_removed(message: Message) -> bool:
    """For neighbours: a removal moves the entries behind it."""
    return message.type == formats.DELNEIGH and message.payload[:1] != _BRIDGE


def forwarding_removed(message: Message) -> bool:
    """The same for forwarding entries."""
    return message.type == formats.DELNEIGH and message.payload[:1] == _BRIDGE


_BRIDGE = struct.pack("B", formats.AF_BRIDGE)
