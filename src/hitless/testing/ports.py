"""Ports for servers that a test starts.

Problem: a port that was found free and closed again may be taken when the server begins to listen: by another test, or
by any connection to which the kernel gives a port. Promise: until the end of the block no other program gets a reserved
port, neither by binding to port 0 nor by connecting. The server can bind to it because it sets ``SO_REUSEADDR``, as all
servers do that can be restarted (Go's, asyncio's, ours).
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["reserved_ports"]


@contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """So many TCP ports of 127.0.0.1; a connection is refused while no server listens."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", 0))
        yield [int(one.getsockname()[1]) for one in sockets]
