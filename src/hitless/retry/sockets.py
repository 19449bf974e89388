"""Plain sockets, asyncio streams and names: every attempt is a new connection from a new source port.

Problem: a connection that began while the node translated nothing is dead for as long as its flow is remembered, and
a retry from the same port meets the same flow. Promise: a repeated attempt binds a port that this call has
not used before; a fixed source port is refused; a name is asked for anew, with a time limit of its own (the resolver
repeats a lost question from the port that it lost it on). Errors are the last attempt's own (``OSError``).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl as tls
import threading
from collections.abc import Iterable
from typing import Any

from hitless.retry.gaps import while_connecting
from hitless.retry.policy import DEFAULT, Policy, refuse_fixed_port, run, run_async

__all__ = ["create_connection", "getaddrinfo", "open_connection"]

_Info = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
_DRAWS = 64  # ports that were used already, in a row
_PENDING = threading.BoundedSemaphore(32)  # threads that wait for a resolver that may never answer


def getaddrinfo(
    host: str | None,
    port: int | str | None,
    *,
    policy: Policy = DEFAULT,
    family: int = 0,
    type: int = socket.SOCK_STREAM,
    proto: int = 0,
    flags: int = 0,
) -> list[_Info]:
    """``socket.getaddrinfo`` that asks again, from a new port, where no name server answers in time."""

    def ask(timeout: float) -> list[_Info]:
        return _resolve(host, port, family, type, proto, flags, timeout)

    return run(policy, ask, name=f"{host}", allowed=lambda _: True)


def create_connection(
    address: tuple[str, int],
    *,
    policy: Policy = DEFAULT,
    timeout: float | None = None,
    source_address: tuple[str, int] | None = None,
) -> socket.socket:
    """``socket.create_connection`` with retries. ``timeout`` is what the socket has afterwards.

    ``source_address`` may name an address; a port other than 0 is a ``ValueError``, as it would repeat a dead flow.
    """
    refuse_fixed_port(source_address)
    host, port = address
    used: set[int] = set()

    def connect(seconds: float) -> socket.socket:
        infos = _resolve(host, port, 0, socket.SOCK_STREAM, 0, 0, seconds)
        errors: list[OSError] = []
        for info in infos:
            sock = _socket(info, source_address, used, again=bool(used))
            try:
                sock.settimeout(seconds / len(infos))
                _connect(sock, info[4], used)
                sock.settimeout(timeout)
                return sock
            except OSError as error:
                sock.close()
                errors.append(error)
        raise _one(errors)

    return run(policy, connect, name=f"{host}:{port}", allowed=lambda _: True, judge=while_connecting)


async def open_connection(
    host: str,
    port: int,
    *,
    policy: Policy = DEFAULT,
    ssl: tls.SSLContext | bool | None = None,
    server_hostname: str | None = None,
    local_addr: tuple[str, int] | None = None,
    limit: int = 2**16,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """``asyncio.open_connection`` with retries; a TLS handshake is part of an attempt.

    ``local_addr`` may name an address; a port other than 0 is a ``ValueError``.
    """
    refuse_fixed_port(local_addr)
    used: set[int] = set()

    async def connect(seconds: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with asyncio.timeout(seconds):
            loop = asyncio.get_running_loop()
            infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        errors: list[OSError] = []
        for info in infos:
            sock = _socket(info, local_addr, used, again=bool(used))
            try:
                sock.setblocking(False)
                async with asyncio.timeout(seconds / len(infos)):
                    await loop.sock_connect(sock, info[4])
                    used.add(int(sock.getsockname()[1]))
                return await asyncio.open_connection(
                    sock=sock,
                    limit=limit,
                    ssl=ssl or None,
                    server_hostname=(server_hostname or host) if ssl else None,
                    ssl_handshake_timeout=seconds if ssl else None,
                )
            except OSError as error:  # TimeoutError and ssl.SSLError are among them
                with contextlib.suppress(OSError):
                    used.add(int(sock.getsockname()[1]))
                sock.close()
                errors.append(error)
            except BaseException:
                sock.close()
                raise
        raise _one(errors)

    return await run_async(policy, connect, name=f"{host}:{port}", allowed=lambda _: True, judge=while_connecting)


def _socket(info: _Info, source: tuple[str, int] | None, used: set[int], *, again: bool) -> socket.socket:
    """A socket for an address; for a repeated attempt bound to a port that was not used before."""
    family, kind, proto = info[0], info[1], info[2]
    for _ in range(_DRAWS):
        sock = socket.socket(family, kind, proto)
        try:
            if source is None and not again:
                return sock
            sock.bind((source[0] if source else "", 0))
            if not again or sock.getsockname()[1] not in used:
                return sock
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise OSError("there is no source port that this call has not used yet")


def _connect(sock: socket.socket, address: Any, used: set[int]) -> None:
    try:
        sock.connect(address)
    finally:
        with contextlib.suppress(OSError):
            used.add(int(sock.getsockname()[1]))


def _one(errors: list[OSError]) -> OSError:
    """The error that decides: one that is no gap's, where there is one; else the last."""
    return next((one for one in errors if while_connecting(one) is None), errors[-1])


def _resolve(
    host: str | None, port: int | str | None, family: int, type: int, proto: int, flags: int, timeout: float
) -> list[_Info]:
    """The addresses, within ``timeout`` seconds: the C library's resolver has no limit that a caller could set."""
    with contextlib.suppress(socket.gaierror):  # a literal address needs no name server
        numeric = socket.getaddrinfo(host, port, family, type, proto, flags | socket.AI_NUMERICHOST)
        return list(numeric)
    if not _PENDING.acquire(timeout=timeout):
        raise socket.gaierror(socket.EAI_AGAIN, "32 questions to the name server wait for an answer")
    result: list[Iterable[_Info] | BaseException] = []

    def ask() -> None:
        try:
            result.append(socket.getaddrinfo(host, port, family, type, proto, flags))
        except (OSError, UnicodeError) as error:
            result.append(error)
        finally:
            _PENDING.release()

    thread = threading.Thread(target=ask, name="hitless.retry resolver", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        _PENDING.release()
        raise
    thread.join(timeout)
    if not result:
        raise socket.gaierror(socket.EAI_AGAIN, f"the name server did not answer within {timeout:.1f} s")
    found = result[0]
    if isinstance(found, BaseException):
        raise found
    return list(found)
