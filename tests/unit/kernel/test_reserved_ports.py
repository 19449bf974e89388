"""A port that a test reserves is free for its server, and for no other process."""

from __future__ import annotations

import errno
import socket

import pytest

from hitless.testing.ports import reserved_ports


def test_a_server_gets_its_port_again_and_again_and_nobody_else_does() -> None:
    with reserved_ports(2) as (port, other):
        assert port != other
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 10)
            with socket.socket() as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind(("127.0.0.1", port))
                server.listen()
                with socket.create_connection(("127.0.0.1", port), 10), server.accept()[0]:
                    pass
        with socket.socket() as stranger, pytest.raises(OSError) as refused:
            stranger.bind(("127.0.0.1", port))
        assert refused.value.errno == errno.EADDRINUSE
