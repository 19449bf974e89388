"""How a far end answers each kind, and the connections that it keeps open: echo for streams, HTTP.

Problem: a long-lived or slow connection must not delay the others, take unbounded memory, or keep others out. Promise:
each connection is a small state in the far end's loop; at most ``LIMIT`` are open, ``LIMIT_EACH`` from one source, with
one buffer each. For a new connection beyond that, the one of the busiest source that was silent for longest is closed
and counted in ``full``. An HTTP connection is closed after ten seconds, an echo connection after a minute without data
(a prober's stream sends 20 times a second). ``tcp``, ``udp``, ``http`` and ``stream`` are the services that ``kinds``
names. Next stage: ``farend``, the ``FarEndServer``.
"""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from hitless.kernel.visitors import Visitors, source_of
from hitless.model.families import Address
from hitless.probe import wire
from hitless.probe.engine import Engine

__all__ = ["LIMIT", "LIMIT_EACH", "FarEndServer", "OpenConnections", "Responder", "http", "stream", "tcp", "udp"]

LIMIT = 8192
LIMIT_EACH = 2048
"""Twice the streams of one prober; all pods of a node may have the node's address."""
_HEAD_LIMIT = 8192  # bytes of an HTTP request head
_HTTP_NS = 10_000_000_000
_IDLE_NS = 60_000_000_000
_CHUNK = 65536


class _Connection:
    __slots__ = ("http", "received", "since", "sock", "source", "unsent")

    def __init__(self, sock: socket.socket, source: tuple[str, int], *, http: bool, since: int) -> None:
        self.sock = sock
        self.source = source
        self.http = http
        self.since = since
        self.received = b""
        self.unsent = b""  # echoed bytes that the socket has not accepted yet


class OpenConnections:
    """All connections that stay open."""

    def __init__(self, engine: Engine, totals: Counter[str]) -> None:
        self._engine = engine
        self._totals = totals
        self._open: Visitors[_Connection] = Visitors(LIMIT, LIMIT_EACH)
        self.full = 0
        """Connections that were closed to make room, since the caller last set this to 0."""
        self.closed_source = ""
        """The source of the last one that was closed to make room."""

    def limit(self, descriptors: int) -> None:
        """Allow at most so many connections; call it before the first one."""
        most = max(1, min(LIMIT, descriptors))
        self._open = Visitors(most, max(1, min(LIMIT_EACH, most // 2)))

    def echo(self, sock: socket.socket, sender: tuple[Any, ...]) -> None:
        """Send back all data."""
        self._totals["echo"] += 1
        self._begin(sock, sender, http=False)

    def http(self, sock: socket.socket, sender: tuple[Any, ...]) -> None:
        """Answer one HTTP request."""
        self._totals["http"] += 1
        self._begin(sock, sender, http=True)

    def _begin(self, sock: socket.socket, sender: tuple[Any, ...], *, http: bool) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(sock, (str(sender[0]), int(sender[1])), http=http, since=self._engine.now)
        leaving = self._open.admit(source_of(sender), connection)
        if leaving is not None:
            self._totals["closed_for_others"] += 1
            self.full += 1
            self.closed_source = leaving.source[0]
            self._end(leaving)
        self._engine.watch(sock.fileno(), select.EPOLLIN, lambda mask: self._ready(connection, mask))

    def _ready(self, connection: _Connection, mask: int) -> None:
        try:
            if mask & select.EPOLLOUT and connection.unsent:
                sent = connection.sock.send(connection.unsent)
                connection.unsent = connection.unsent[sent:]
                if not connection.unsent:
                    self._engine.rewatch(connection.sock.fileno(), select.EPOLLIN)
                return
            data = connection.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(connection)
            return
        self._open.heard(connection)
        if connection.http:
            self._request(connection, data)
        else:
            connection.since = self._engine.now
            self._echo(connection, data)

    def _echo(self, connection: _Connection, data: bytes) -> None:
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end(connection)
            return
        if sent < len(data):  # read no more until this is sent: the sender waits, and memory stays bounded
            connection.unsent = data[sent:]
            self._engine.rewatch(connection.sock.fileno(), select.EPOLLOUT)

    def _request(self, connection: _Connection, data: bytes) -> None:
        connection.received += data
        valid = wire.is_http_request(connection.received)
        if valid is None and len(connection.received) <= _HEAD_LIMIT:
            return
        if valid:
            try:
                connection.sock.send(wire.http_answer(*connection.source))
            except OSError:
                self._totals["http_gone"] += 1
        else:
            self._totals["http_ignored"] += 1
        self._end(connection)

    def _end(self, connection: _Connection) -> None:
        fd = connection.sock.fileno()
        self._open.forget(connection)
        self._engine.forget(fd)
        connection.sock.close()

    def sweep(self, now: int) -> None:
        """Close slow and idle connections."""
        for connection in self._open:
            if now - connection.since > (_HTTP_NS if connection.http else _IDLE_NS):
                self._totals["closed_idle"] += 1
                self._end(connection)

    def close(self) -> None:
        """Close all."""
        for connection in self._open:
            self._end(connection)


Responder = Callable[[str, int, bytes], bytes | None]
"""The answer to a request from an address and port; ``None``: no answer."""


class FarEndServer(Protocol):
    """What a far end offers to the services of the kinds."""

    totals: Counter[str]
    open_connections: OpenConnections

    def listen_tcp(
        self, address: Address, port: int, on_connection: Callable[[socket.socket, tuple[Any, ...]], None]
    ) -> None:
        """Listen, and give every connection with its sender to ``on_connection``."""

    def listen_udp(self, address: Address, port: int, kind: str, answer: Responder) -> None:
        """Listen, and send what ``answer`` returns; counted as ``kind``."""


def tcp(server: FarEndServer, address: Address, port: int) -> None:
    """Send the banner and close; the prober answers with a reset, so that neither end keeps a TIME_WAIT."""
    totals = server.totals

    def on_connection(connection: socket.socket, sender: tuple[Any, ...]) -> None:
        totals["tcp"] += 1
        with connection:
            try:
                connection.send(wire.banner(sender[0], sender[1]))
            except OSError:  # the prober has closed already
                totals["tcp_gone"] += 1

    server.listen_tcp(address, port, on_connection)


def udp(server: FarEndServer, address: Address, port: int) -> None:
    """Answer each request with its source."""
    server.listen_udp(address, port, "udp", wire.udp_answer)


def http(server: FarEndServer, address: Address, port: int) -> None:
    """Answer HTTP requests."""
    server.listen_tcp(address, port, server.open_connections.http)


def stream(server: FarEndServer, address: Address, port: int) -> None:
    """Send back all data."""
    server.listen_tcp(address, port, server.open_connections.echo)
