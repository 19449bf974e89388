"""Ports for servers that a test starts.

Problem: a port that was found free and let go again may be somebody else's when the server begins to listen: of a
neighbour test, or of any connection that the kernel gives a port to. Promise: nobody else gets a reserved port, neither
by asking for any nor by connecting, before the server listens, while it is away, and until the end of the block. The
server may take it because it sets ``SO_REUSEADDR``, as all do that are to be started again (Go's, asyncio's, ours).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["reserved_ports"]


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """So many TCP ports of 127.0.0.1; whoever connects while no server listens is refused."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        yield [int(one.getsockname()[1]) for one in sockets]
