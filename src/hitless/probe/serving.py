"""Connections that last: echo for streams, HTTP.

Problem: a long-lived or slow connection must not hold up the others, nor cost without bound. Promise: each is a small
state in the far end's loop; at most ``LIMIT`` at a time and one buffer each; idle HTTP connections are closed after ten
seconds, echo connections live as long as their other end. Next stage: ``farend`` hands connections over.
"""

from __future__ import annotations

import select
import socket
from collections import Counter
from typing import Any

from hitless.probe import wire
from hitless.probe.engine import Engine

__all__ = ["LIMIT", "Conversations"]

LIMIT = 8192
_HEAD_LIMIT = 8192  # bytes of an HTTP request head
_IDLE_NS = 10_000_000_000
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
        self._open: dict[int, _Conversation] = {}

    def echo(self, sock: socket.socket, sender: tuple[Any, ...]) -> None:
        """Send back whatever comes."""
        self._totals["echo"] += 1
        self._begin(sock, sender, http=False)

    def http(self, sock: socket.socket, sender: tuple[Any, ...]) -> None:
        """Answer one request."""
        self._totals["http"] += 1
        self._begin(sock, sender, http=True)

    def _begin(self, sock: socket.socket, sender: tuple[Any, ...], *, http: bool) -> None:
        if len(self._open) >= LIMIT:
            self._totals["refused_full"] += 1
            sock.close()
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = _Conversation(sock, (str(sender[0]), int(sender[1])), http=http, since=self._engine.now)
        self._open[sock.fileno()] = conversation
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
        elif conversation.http:
            self._request(conversation, data)
        else:
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
        if b"\r\n\r\n" not in conversation.heard and b"\n\n" not in conversation.heard:
            if len(conversation.heard) > _HEAD_LIMIT:
                self._end(conversation)
            return
        try:
            conversation.sock.send(wire.http_answer(*conversation.source))
        except OSError:
            self._totals["http_gone"] += 1
        self._end(conversation)

    def _end(self, conversation: _Conversation) -> None:
        fd = conversation.sock.fileno()
        self._open.pop(fd, None)
        self._engine.forget(fd)
        conversation.sock.close()

    def sweep(self, now: int) -> None:
        """Close HTTP connections that never finish their request."""
        for conversation in list(self._open.values()):
            if conversation.http and now - conversation.since > _IDLE_NS:
                self._end(conversation)

    def close(self) -> None:
        """Close all."""
        for conversation in list(self._open.values()):
            self._end(conversation)
