"""How a far end answers each kind; connections that last: echo for streams, HTTP.

Problem: a long-lived or slow connection must not hold up the others, nor cost without bound, nor keep others out.
Promise: each is a small state in the far end's loop; at most ``LIMIT`` at a time, ``LIMIT_EACH`` of one source, and one
buffer each; for a new one the busiest source's connection that was silent for longest is closed, and counted in
``full``. An HTTP connection has ten seconds in all; an echo connection is closed when nothing came for a minute (a
prober's stream says something 20 times a second, and is given up long before). ``tcp``, ``udp``, ``http`` and
``stream`` are the answering sides that ``kinds`` names. Next stage: ``farend``, the ``FarEndServer``.
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

__all__ = ["LIMIT", "LIMIT_EACH", "Conversations", "FarEndServer", "Responder", "http", "stream", "tcp", "udp"]

LIMIT = 8192
LIMIT_EACH = 2048
"""Twice the streams that one prober may have; all pods of a node may come with its address."""
_HEAD_LIMIT = 8192  # bytes of an HTTP request head
_PATIENCE_NS = 10_000_000_000
_IDLE_NS = 60_000_000_000
_CHUNK = 65536


class _Conversation:
    __slots__ = ("heard", "http", "since", "sock", "source", "waiting")

    def __init__(self, sock: socket.socket, source: tuple[str, int], *, http: bool, since: int) -> None:
        self.sock = sock
        self.source = source
        self.http = http
        self.since = since
        self.heard = b""
        self.waiting = b""  # echoed bytes that the socket did not take yet


class Conversations:
    """All connections that are open for longer than one answer."""

    def __init__(self, engine: Engine, totals: Counter[str]) -> None:
        self._engine = engine
        self._totals = totals
        self._open: Visitors[_Conversation] = Visitors(LIMIT, LIMIT_EACH)
        self.full = 0
        """Connections that had to be closed for others, since whoever reads it set it to 0."""
        self.crowd = "nobody"
        """Whose connection went last."""

    def limit(self, descriptors: int) -> None:
        """At most so many connections; before the first one."""
        most = max(1, min(LIMIT, descriptors))
        self._open = Visitors(most, max(1, min(LIMIT_EACH, most // 2)))

    def echo(self, sock: socket.socket, sender: tuple[Any, ...]) -> None:
        """Send back whatever comes."""
        self._totals["echo"] += 1
        self._begin(sock, sender, http=False)

    def http(self, sock: socket.socket, sender: tuple[Any, ...]) -> None:
        """Answer one request."""
        self._totals["http"] += 1
        self._begin(sock, sender, http=True)

    def _begin(self, sock: socket.socket, sender: tuple[Any, ...], *, http: bool) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = _Conversation(sock, (str(sender[0]), int(sender[1])), http=http, since=self._engine.now)
        leaving = self._open.admit(source_of(sender), conversation)
        if leaving is not None:
            self._totals["closed_for_others"] += 1
            self.full += 1
            self.crowd = leaving.source[0]
            self._end(leaving)
        self._engine.watch(sock.fileno(), select.EPOLLIN, lambda mask: self._ready(conversation, mask))

    def _ready(self, conversation: _Conversation, mask: int) -> None:
        try:
            if mask & select.EPOLLOUT and conversation.waiting:
                sent = conversation.sock.send(conversation.waiting)
                conversation.waiting = conversation.waiting[sent:]
                if not conversation.waiting:
                    self._engine.rewatch(conversation.sock.fileno(), select.EPOLLIN)
                return
            data = conversation.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end(conversation)
            return
        self._open.heard(conversation)
        if conversation.http:
            self._request(conversation, data)
        else:
            conversation.since = self._engine.now
            self._echo(conversation, data)

    def _echo(self, conversation: _Conversation, data: bytes) -> None:
        try:
            sent = conversation.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end(conversation)
            return
        if sent < len(data):  # read no more until this is gone: the sender waits, not our memory
            conversation.waiting = data[sent:]
            self._engine.rewatch(conversation.sock.fileno(), select.EPOLLOUT)

    def _request(self, conversation: _Conversation, data: bytes) -> None:
        conversation.heard += data
        question = wire.http_question(conversation.heard)
        if question is None and len(conversation.heard) <= _HEAD_LIMIT:
            return
        if question:
            try:
                conversation.sock.send(wire.http_answer(*conversation.source))
            except OSError:
                self._totals["http_gone"] += 1
        else:
            self._totals["http_ignored"] += 1
        self._end(conversation)

    def _end(self, conversation: _Conversation) -> None:
        fd = conversation.sock.fileno()
        self._open.forget(conversation)
        self._engine.forget(fd)
        conversation.sock.close()

    def sweep(self, now: int) -> None:
        """Close what is slow or idle."""
        for conversation in self._open:
            if now - conversation.since > (_PATIENCE_NS if conversation.http else _IDLE_NS):
                self._totals["closed_idle"] += 1
                self._end(conversation)

    def close(self) -> None:
        """Close all."""
        for conversation in self._open:
            self._end(conversation)


Responder = Callable[[str, int, bytes], bytes | None]
"""What is sent back to an address and port that asked; ``None``: nothing."""


class FarEndServer(Protocol):
    """What a far end offers to the answering side of a kind."""

    totals: Counter[str]
    conversations: Conversations

    def connections(self, address: Address, port: int, greet: Callable[[socket.socket, tuple[Any, ...]], None]) -> None:
        """Listen, and give every connection with its sender to ``greet``."""

    def datagrams(self, address: Address, port: int, kind: str, answer: Responder) -> None:
        """Listen, and send what ``answer`` gives; counted as ``kind``."""


def tcp(ground: FarEndServer, address: Address, port: int) -> None:
    """Say the banner and close: the prober answers with a reset, so neither end keeps a TIME_WAIT."""
    totals = ground.totals

    def greet(connection: socket.socket, sender: tuple[Any, ...]) -> None:
        totals["tcp"] += 1
        with connection:
            try:
                connection.send(wire.banner(sender[0], sender[1]))
            except OSError:  # it is gone already
                totals["tcp_gone"] += 1

    ground.connections(address, port, greet)


def udp(ground: FarEndServer, address: Address, port: int) -> None:
    """Answer each question with the source."""
    ground.datagrams(address, port, "udp", wire.udp_answer)


def http(ground: FarEndServer, address: Address, port: int) -> None:
    """Answer requests."""
    ground.connections(address, port, ground.conversations.http)


def stream(ground: FarEndServer, address: Address, port: int) -> None:
    """Send back whatever comes."""
    ground.connections(address, port, ground.conversations.echo)
