"""One HTTP request with the standard library, with a bound on its whole time and on the answer's size.

Problem: the library's timeout is one for each read: a server that sends a byte every few seconds is listened to for
ever, and what it says of a header that it refuses to send quotes the header, token and all. Promise: an answer, or
``OSError`` in words without a secret, within ``within`` seconds. Next stages: ``kubernetes``, the guard's Events.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from http.client import HTTPConnection

__all__ = ["ask", "bearer", "trusting"]


def trusting(authority: bytes | None) -> ssl.SSLContext:
    """A context that trusts this authority (PEM), or this machine's own where there is none. Raises ``ValueError``.

    Of the file's bytes and not its name: OpenSSL would wait for a FIFO.
    """
    import ssl  # 6 MB: not before there is something to ask

    if authority is None:
        return ssl.create_default_context()
    if b"-----BEGIN" not in authority:  # of nothing Python would make the machine's own authorities
        raise ValueError("the certificate authority is no PEM")
    return ssl.create_default_context(cadata=authority.decode("ascii", "replace"))


def bearer(token: str) -> dict[str, str]:
    """The header that shows ``token``; raises ``OSError`` when it cannot be one."""
    if not token:
        return {}
    if not token.isascii() or not token.isprintable():
        raise OSError("the token holds characters that no token has (is it a token?)")
    return {"Authorization": f"Bearer {token}"}


def ask(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: bytes | None,
    headers: Mapping[str, str],
    *,
    within: float,
    most: int,
) -> tuple[int, bytes]:
    """Status and body; the connection is closed. Raises ``OSError`` for whatever went wrong."""
    from http.client import HTTPException  # with TLS 6 MB: not before there is something to ask

    over = threading.Event()

    def end() -> None:
        over.set()
        with suppress(OSError, AttributeError):  # not connected (yet)
            connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(within, end)
    timer.daemon = True
    timer.start()
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        data = answer.read(most + 1)
    except (OSError, HTTPException, ValueError) as error:
        if over.is_set():
            raise OSError(f"the answer was not whole within {within:g} s") from error
        words = "" if isinstance(error, ValueError) and not isinstance(error, OSError) else f" {error}"
        raise OSError(f"{type(error).__name__}{words}".rstrip()) from error
    finally:
        timer.cancel()
        connection.close()
    if over.is_set():
        raise OSError(f"the answer was not whole within {within:g} s")
    if len(data) > most:
        raise OSError(f"the answer is longer than {most} bytes")
    return answer.status, data
