"""TCP keepalive: a silent connection fails within a minute after the other machine is gone.

Problem: a watch waits for minutes, and a machine that lost its power or its network sends nothing that would end it.
Promise: after ``keep_alive`` the kernel probes the other side every few seconds, also while data of ours is not
acknowledged, and ends the connection with an error when there is no answer.
"""

from __future__ import annotations

import socket

__all__ = ["keep_alive"]

_OPTIONS = (
    (socket.TCP_KEEPIDLE, 15),  # seconds without a byte before the first probe
    (socket.TCP_KEEPINTVL, 10),  # seconds between questions
    (socket.TCP_KEEPCNT, 3),
    (socket.TCP_USER_TIMEOUT, 45_000),  # milliseconds
)


def keep_alive(connection: socket.socket) -> None:
    """Set it up for a connected TCP socket."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _OPTIONS:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
