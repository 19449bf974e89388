"""A client for etcd v3's JSON gateway, on the standard library.

Problem: etcd speaks gRPC, whose Python library is 15 MB on disk and more in memory than the whole agent. The few calls
that leases need are also served as JSON on the same port (``--enable-grpc-gateway``, on by default). Promise: ``call``
is one request with a bound on time and size, to the endpoint that responded last, else to each of the others;
``stream`` is a watch, line by line. With user and password a token is fetched, and again when etcd refuses it. TLS with
a client certificate and an authority. Every failure is ``ApiError`` (``status``: etcd's gRPC code; 0: no response)
without a secret. The gateway ignores the name in a client certificate, so a user needs a password. ``close`` may be
called by another thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hitless.errors import ApiError, InputError
from hitless.kernel import files
from hitless.kernel.keepalive import keep_alive
from hitless.kernel.memfiles import in_memory
from hitless.kube.connections import Line, SecureLine, bounded, cut
from hitless.model.documents import from_json
from hitless.model.lines import Lines, TooLong
from hitless.sources.options import EtcdOptions

if TYPE_CHECKING:
    import ssl

__all__ = ["UNAUTHENTICATED", "Etcd"]

UNAUTHENTICATED = 16
_PATIENCE = 5.0  # seconds for a connection, and between two reads
_WHOLE = 20.0  # seconds for a whole response
_MOST = 16 << 20  # bytes of a response, or of a line of a watch
_PIECE = 1 << 16
_SILENCE = 620.0  # seconds without a byte in a watch; TCP notices a machine that is gone (45 s)


class Etcd:
    """One etcd cluster."""

    def __init__(self, options: EtcdOptions) -> None:
        self._options = options
        self._endpoints = list(options.endpoints)
        self._context = _context(options) if any(one.startswith("https") for one in options.endpoints) else None
        self._token = ""
        self._lock = threading.Lock()
        self._open: set[Line] = set()
        self._closed = False
        self.calls = 0

    def __str__(self) -> str:
        return f"etcd at {', '.join(self._endpoints)}"

    def call(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """One request: ``kv/range``, ``lease/grant``, …; raises ``ApiError``."""
        if self._options.username and not self._token:
            self._login()
        try:
            return self._call_any(path, body)
        except ApiError as error:
            if error.status != UNAUTHENTICATED or not self._options.username:
                raise
        self._login()
        return self._call_any(path, body)

    @contextmanager
    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[Iterator[Mapping[str, Any]]]:
        """The values of a stream's ``result``, until etcd, ``close`` or ten silent minutes end it. ``ApiError``."""
        if self._options.username and not self._token:
            self._login()
        what = f"etcd {path}"
        with self._connected(self._endpoints[0], _SILENCE) as connection:
            self._send(connection, path, body)
            response = connection.getresponse()
            if response.status != 200:
                raise self._refusal(what, response.status, response.read(_MOST))
            yield self._results(what, _pieces(response))

    def next_endpoint(self) -> None:
        """Use the next endpoint from now on."""
        self._endpoints.append(self._endpoints.pop(0))

    def forget_token(self) -> None:
        """Log in again before the next call: the token was refused."""
        self._token = ""

    def close(self) -> None:
        """End every call; later ones fail."""
        with self._lock:
            self._closed = True
            for one in self._open:
                cut(one)

    def _call_any(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """The response of the first endpoint that gives one."""
        problem: ApiError | None = None
        for _ in range(len(self._endpoints)):
            try:
                return self._call_one(self._endpoints[0], path, body)
            except ApiError as error:
                if error.status not in _ELSEWHERE or self._closed:
                    raise
                problem = problem or error
                self.next_endpoint()
        assert problem is not None, "there is an endpoint"
        raise problem

    def _login(self) -> None:
        self._token = ""
        credentials = {"name": self._options.username, "password": self._options.password}
        token = self._call_any("auth/authenticate", credentials).get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ApiError("etcd auth/authenticate: the answer holds no token")
        self._token = token

    def _call_one(self, endpoint: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        what = f"etcd {path}"
        self.calls += 1
        with self._connected(endpoint, _PATIENCE) as connection, bounded(connection, _WHOLE):
            self._send(connection, path, body)
            response = connection.getresponse()
            status, data = response.status, response.read(_MOST + 1)
        if len(data) > _MOST:
            raise ApiError(f"{what}: the answer is longer than {_MOST} bytes")
        if status != 200:
            raise self._refusal(what, status, data)
        try:
            value = from_json(data, most=_MOST)
        except ValueError as error:
            raise ApiError(f"{what}: the answer is not JSON ({error})") from error
        if not isinstance(value, Mapping):
            raise ApiError(f"{what}: the answer is not a JSON object")
        return value

    def _send(self, connection: Line, path: str, body: Mapping[str, Any]) -> None:
        import json

        headers = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}
        if self._token and path != "auth/authenticate":
            headers["Authorization"] = self._token
        if connection.sock is None:
            connection.connect()
        if self._closed:  # while it was being connected, so that ``close`` had nothing to end
            raise OSError("the client was closed")
        keep_alive(connection.sock)
        connection.request("POST", f"/v3/{path}", json.dumps(body).encode(), headers)

    def _results(self, what: str, pieces: Iterator[bytes]) -> Iterator[Mapping[str, Any]]:
        lines = Lines(_MOST)
        for piece in pieces:
            try:
                for line in lines.take(piece):
                    value = from_json(line, most=_MOST) if line.strip() else {}
                    if isinstance(value, Mapping) and isinstance(found := value.get("error"), Mapping):
                        raise ApiError(f"{what}: {found.get('message', '')}", status=_code(found))
                    if isinstance(value, Mapping) and isinstance(result := value.get("result"), Mapping):
                        yield result
            except TooLong as error:
                raise ApiError(f"{what}: {error}") from error
            except ValueError as error:
                raise ApiError(f"{what}: the answer is not JSON ({error})") from error

    def _refusal(self, what: str, status: int, data: bytes) -> ApiError:
        try:
            value = from_json(data)
        except ValueError:
            value = None
        if not isinstance(value, Mapping) or "code" not in value:
            hint = " (its JSON gateway is off: --enable-grpc-gateway)" if status == 404 else ""
            return ApiError(f"{what}: {self._endpoints[0]} answers {status}{hint}")
        message = value.get("message") or value.get("error") or ""
        return ApiError(f"{what}: {str(message)[:300]}", status=_code(value))

    @contextmanager
    def _connected(self, endpoint: str, patience: float) -> Iterator[Line]:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        connection = Line(host, port, timeout=_PATIENCE)
        if self._context is not None and parts.scheme == "https":
            connection = SecureLine(host, port, _PATIENCE, self._context)
        with self._lock:
            if self._closed:
                raise ApiError("the client was closed")
            self._open.add(connection)
        try:
            if patience != _PATIENCE:
                connection.connect()
                connection.sock.settimeout(patience)
            yield connection
        except (OSError, HTTPException, ValueError) as error:
            # the library's message for a wrong header quotes it, with the token
            detail = "" if isinstance(error, ValueError) and not isinstance(error, OSError) else f" {error}"
            raise ApiError(f"{endpoint} cannot be reached: {type(error).__name__}{detail}") from error
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.end()


_ELSEWHERE = (0, 14)
"""No response, and gRPC's UNAVAILABLE (no leader, stopping): another member may respond."""


def _code(value: Mapping[str, Any]) -> int:
    code = value.get("code", value.get("grpc_code"))
    return code if isinstance(code, int) else 0


def _context(options: EtcdOptions) -> ssl.SSLContext:
    import ssl

    where = "--etcd-cafile"
    try:
        context = ssl.create_default_context()
        if options.cafile:
            authority = files.read(Path(options.cafile))
            if b"-----BEGIN" not in authority:
                raise InputError("is not PEM", where=options.cafile, expected="a certificate authority")
            context = ssl.create_default_context(cadata=authority.decode("ascii", "replace"))
        if options.certfile or options.keyfile:
            where = "--etcd-certfile, --etcd-keyfile"
            pair = (files.read(Path(one)) for one in (options.certfile, options.keyfile) if one)
            with in_memory(b"\n".join(pair)) as memory:
                context.load_cert_chain(memory)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be used: {error}", where=where, expected="PEM files") from error
    return context


def _pieces(response: HTTPResponse) -> Iterator[bytes]:
    """The body in pieces, until the connection was silent for too long."""
    try:
        while piece := response.read1(_PIECE):
            yield piece
    except TimeoutError:
        return
