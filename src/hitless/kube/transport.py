"""Requests to one API server with the standard library: for daemons, whose memory does not allow for more.

Problem: the library's timeout is one for each read, so that a server that sends a byte every few seconds is read for
ever; and its message about an invalid header quotes the header, token included. Promise: every response has a bound on
time and size; every request uses the context's proxy, server name and identity, or the whole context is refused
(``InputError``) before anything is sent; failures are an ``OSError`` whose text holds no secret. Each request has its
own connection, as requests are rare; the pages of a list share one. It costs 8 MB of memory: daemons import it when
they use the API. Next stage: ``client``.
"""

from __future__ import annotations

import base64
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

from hitless.errors import InputError
from hitless.kernel.keepalive import keep_alive
from hitless.kube import credentials, proxies, tls, urls
from hitless.kube.connections import Line, SecureLine, bounded, cut
from hitless.kube.contexts import Connection
from hitless.model.reading import whole_of

__all__ = ["Answer", "Transport"]

_PATIENCE = 10.0  # seconds for the server to go on
_PIECE = 1 << 16  # bytes that are read at once of a stream
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body; ``after``: the server's Retry-After in seconds."""

    status: int
    body: bytes
    after: float = 0.0


class Transport:
    """Requests to the server of one context. ``close`` may be called by another thread: it ends every read."""

    def __init__(self, connection: Connection, environment: Mapping[str, str], agent: str) -> None:
        if connection.plugin is not None:
            expected = "a token, a tokenFile or a client certificate"
            raise InputError("exec is not known to a daemon", where=connection.where, expected=expected)
        self._settings = connection
        self._agent = agent
        self._server = urls.parsed(connection.cluster.server)
        self._proxy = _proxy(connection, environment)
        secure = self._server.scheme == "https"
        self._context = tls.context_for(connection, connection.certificate) if secure else None
        self._lock = threading.Lock()
        self._open: set[Line] = set()
        self._kept: Line | None = None
        self._closed = False

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        within: float,
        most: int,
    ) -> Answer:
        """One request and its whole answer. Raises ``OSError``."""
        with self._connected(self._connection(_PATIENCE)) as connection:
            return self._ask(connection, method, path, body, headers or {}, within=within, most=most)

    def ask_on(self, path: str, *, within: float, most: int) -> Answer:
        """A GET over the connection of the one before, which stays open until ``release``. Raises ``OSError``."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            try:
                with self._connected(kept, keep=True):
                    return self._ask(kept, "GET", path, None, {}, within=within, most=most)
            except OSError as error:
                if not isinstance(error.__cause__, ConnectionError | ssl.SSLError):
                    raise  # else the server has closed it
        with self._connected(self._connection(_PATIENCE), keep=True) as connection:
            return self._ask(connection, "GET", path, None, {}, within=within, most=most)

    def release(self) -> None:
        """Close the connection that ``ask_on`` left open."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            kept.end()

    @contextmanager
    def stream(self, path: str, *, silence: float, most: int) -> Iterator[Iterator[bytes] | Answer]:
        """The body of a GET in pieces as they come, with ``silence`` seconds between two of them at most.

        An ``Answer`` (of at most ``most`` bytes) where the server refuses. Raises ``OSError``, also while it is read.
        """
        with self._connected(self._connection(silence)) as connection:
            with bounded(connection, silence):
                response = self._begin(connection, "GET", path, None, {})
                if connection.line is not None:  # of ``sock`` nothing is left where the connection ends with the answer
                    keep_alive(connection.line)
                refusal = response.read(most) if response.status != 200 else b""
            if response.status != 200:
                yield Answer(response.status, refusal)
            else:
                yield iter(lambda: response.read1(_PIECE), b"")

    def close(self) -> None:
        """End every read; later requests are refused."""
        with self._lock:
            self._closed = True
            for one in self._open:
                cut(one)
        self.release()

    def _ask(
        self, connection: Line, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *,
        within: float, most: int,
    ) -> Answer:  # fmt: skip
        with bounded(connection, within):
            response = self._begin(connection, method, path, body, headers)
            data = response.read(most + 1)
        if len(data) > most:
            raise OSError(f"the answer is longer than {most} bytes")
        after = min(float(whole_of(response.headers.get("Retry-After", "")) or 0), 30.0)
        return Answer(response.status, data, after)

    @contextmanager
    def _connected(self, connection: Line, *, keep: bool = False) -> Iterator[Line]:
        """A connection, to be made or made; whatever goes wrong in the block is an ``OSError``. ``keep``: it stays open
        afterwards, unless something went wrong or the server wants it closed."""
        with self._lock:
            if self._closed:
                connection.close()
                raise OSError("the client was closed")
            self._open.add(connection)
        kept = False
        try:
            yield connection
            kept = keep and connection.sock is not None
        except (OSError, HTTPException, ValueError) as error:
            if type(error) is OSError and error.errno is None:
                raise  # a message of this module
            quoting = isinstance(error, ValueError) and not isinstance(error, OSError)  # a header, token and all
            raise OSError(type(error).__name__ + ("" if quoting or not str(error) else f" {error}")) from error
        finally:
            with self._lock:
                self._open.discard(connection)
                kept = kept and not self._closed
                if kept:
                    self._kept = connection
            if not kept:
                connection.end()

    def _connection(self, timeout: float) -> Line:
        host, port = self._server.host, self._server.port or _PORTS[self._server.scheme]
        if self._context is not None:
            name = self._settings.cluster.server_name
            if self._proxy is None:
                return SecureLine(host, port, timeout, self._context, name)
            return _Tunnelled(host, port, timeout, self._context, name, self._proxy)
        if self._proxy is not None:
            return Line(self._proxy.host, self._proxy.port or _PORTS["http"], timeout=timeout)
        return Line(host, port, timeout=timeout)

    def _begin(
        self, connection: Line, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> HTTPResponse:
        sent: dict[str, str | bytes] = {"Accept": "application/json", "User-Agent": self._agent, **headers}
        sent |= dict(self._settings.impersonation)
        target = self._server.path.rstrip("/") + path
        if self._proxy is not None and self._context is None:
            target = self._server.shown.rstrip("/") + path
            sent |= _authorization(self._proxy)
        try:
            shown = credentials.from_connection(self._settings).authorization
        except InputError as error:
            raise OSError(str(error)) from error
        if shown:
            sent["Authorization"] = shown
        connection.putrequest(method, target)
        for name, value in sent.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)  # connects
        if self._closed:  # meanwhile, when there was nothing to end yet
            raise OSError("the client was closed")
        return connection.getresponse()


class _Tunnelled(SecureLine):
    """TLS by a proxy. The library's own tunnel leaves the brackets of an IPv6 address out (Python 3.11)."""

    def __init__(
        self, host: str, port: int, timeout: float, context: ssl.SSLContext, name: str, proxy: urls.Url
    ) -> None:
        super().__init__(host, port, timeout, context, name)
        self._by = proxy

    def connect(self) -> None:
        self._tunnel_by(self._by)
        self.secure()

    def _tunnel_by(self, proxy: urls.Url) -> None:
        place = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        lines += [f"{name}: {value}" for name, value in _authorization(proxy).items()]
        self.sock = socket.create_connection((proxy.host, proxy.port or _PORTS["http"]), self.timeout)
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        answer = HTTPResponse(self.sock, method="CONNECT")
        try:
            answer.begin()
            if answer.status != 200:
                raise OSError(f"the proxy {proxy.shown} does not let us through: {answer.status} {answer.reason}")
        finally:
            answer.close()


def _proxy(connection: Connection, environment: Mapping[str, str]) -> urls.Url | None:
    text = connection.cluster.proxy or proxies.chosen(connection.cluster.server, environment)
    if not text:
        return None
    found = urls.parsed(text)
    if found.scheme != "http":
        where = f"proxy-url in {connection.where}" if connection.cluster.proxy else "HTTPS_PROXY, HTTP_PROXY"
        expected = "http://HOST:PORT, or the server in NO_PROXY"
        raise InputError(f"a proxy by {found.scheme} is not known to a daemon", where=where, expected=expected)
    return found


def _authorization(proxy: urls.Url) -> dict[str, str]:
    """What the proxy is shown."""
    if proxy.user is None:
        return {}
    return {"Proxy-Authorization": f"Basic {base64.b64encode(':'.join(proxy.user).encode()).decode()}"}
