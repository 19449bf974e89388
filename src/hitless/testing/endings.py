"""The end of an asyncio server in a test.

Problem: a connection that was accepted becomes a transport some turns of the loop later. ``Server.close`` in between
makes that fail inside asyncio, and a loop that is closed in between forgets it: either way an open socket is left to
the garbage collector, whose warning fails another test. Promise: ``stop_listening`` ends a server only when each
accepted connection has a transport that its owner knows; ``finish_turns`` waits for what has begun, such as the closing
of an aborted connection.
"""

from __future__ import annotations

import asyncio

__all__ = ["finish_turns", "stop_listening"]

_TURNS = 8  # accept, make the transport, notify the protocol, begin to read, abort, close


async def finish_turns() -> None:
    """Let the loop do what it began. Waits for nothing else, so its length does not depend on the machine."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


async def stop_listening(server: asyncio.Server) -> None:
    """Accept no more, and close the listening sockets. Open connections stay open."""
    for listening in server.sockets:
        asyncio.get_running_loop().remove_reader(listening)
    await finish_turns()
    server.close()
