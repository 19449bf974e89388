"""HTTP connections of the standard library that another thread can end at any time.

Problem: the library has no socket before it is connected, and forgets it when the server announces that it will close
the connection after this response (``Connection: close``, as many proxies do), while the response is still being read:
closing the connection then has no effect. Promise: a ``Line`` keeps its socket as long as anything is read from it;
``cut`` shuts it down, and ``bounded`` does so after a time, however slowly the server sends.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

__all__ = ["Line", "SecureLine", "bounded", "cut"]

_AGAIN = 0.05  # seconds until a connection that is being made is looked at again


class Line(HTTPConnection):
    """``line``: its socket, as soon as it is connected. ``end`` closes it in any case."""

    line: socket.socket | None = None
    _answer: HTTPResponse | None = None

    def connect(self) -> None:
        super().connect()
        self.line = self.sock

    def getresponse(self) -> HTTPResponse:
        self._answer = super().getresponse()
        return self._answer

    def end(self) -> None:
        """Close the response and the connection."""
        if self._answer is not None:
            self._answer.close()
        self.close()


class SecureLine(Line):
    """TLS under the server's name ``name`` (empty: the host)."""

    def __init__(self, host: str, port: int, timeout: float, context: ssl.SSLContext, name: str = "") -> None:
        super().__init__(host, port, timeout=timeout)
        self._secure, self._name = context, name or host

    def connect(self) -> None:
        super().connect()
        self.secure()

    def secure(self) -> None:
        """Start TLS on the connected socket."""
        self.sock = self.line = self._secure.wrap_socket(
            self.sock, server_hostname=self._name, do_handshake_on_connect=False
        )
        self.sock.do_handshake()


def cut(connection: Line) -> bool:
    """Shut the socket down; false when it is not connected (yet)."""
    if connection.line is None:
        return False
    try:
        connection.line.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


@contextmanager
def bounded(connection: Line, within: float) -> Iterator[None]:
    """End the connection after ``within`` seconds: then the block raises ``OSError`` that says so."""
    over, done = threading.Event(), threading.Event()

    def end() -> None:
        over.set()
        while not cut(connection) and not done.wait(_AGAIN):
            continue

    timer = threading.Timer(within, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        if over.is_set():
            raise OSError(f"the answer was not whole within {within:g} s") from error
        raise
    finally:
        done.set()
        timer.cancel()
    if over.is_set():
        raise OSError(f"the answer was not whole within {within:g} s")
