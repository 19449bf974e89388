"""The HTTP client for an API server, as the kubeconfig describes it: address, proxy, TLS, credentials.

Problem: every request of a drill, exec included, must go to the server and as the user that the kubeconfig names.
Promise: one address, one server name, one proxy and one identity for every request and websocket (``contexts``); a
credential that is fetched again (``login``) comes from the same context, and is never sent to another server. What
cannot be read or run is an ``InputError`` that names the kubeconfig; a permanent refusal by a server or proxy ends the
first call at once (``refusals``). Next stage: ``api``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from hitless.errors import ApiError, InputError, MissingError

try:
    import httpx2
    import yaml  # noqa: F401 - most kubeconfigs are YAML

    from hitless.kube import credentials, login, proxies, refusals, tls
    from hitless.kube.contexts import Certificate, Connection, read
except ModuleNotFoundError as error:
    raise MissingError(
        f"the Kubernetes client is not installed ({error.name})", remedy="install it: pip install 'hitless[cluster]'"
    ) from error

__all__ = ["Access", "access", "httpx2"]

_MOST = 64 << 20  # bytes of an answer; a page of 500 nodes has 10 MB
_TIMEOUT = 15.0  # for an answer to begin; what streams has bounds of its own


@dataclass(frozen=True, slots=True)
class Access:
    """A client, the server's address, the context's namespace, and the kubeconfig that they come from (``where``)."""

    client: httpx2.AsyncClient
    server: str
    namespace: str
    where: str = "the kubeconfig"


def access(kubeconfig: Path | None, context: str | None, *, answered: bool = False) -> Access:
    """The access that this kubeconfig gives, else the first of KUBECONFIG, this pod's account and ~/.kube/config."""
    connection = read(kubeconfig, context)
    cluster = connection.cluster
    proxy = cluster.proxy or proxies.chosen(cluster.server, os.environ)
    now = None if connection.plugin is not None else credentials.from_connection(connection)

    async def fetch() -> credentials.Credential:
        again = read(kubeconfig, connection.context)  # somebody may have logged in again
        if (again.cluster, again.user, again.impersonation) != (cluster, connection.user, connection.impersonation):
            raise InputError(
                "it names another cluster or user than at the beginning; what it says now is not for the first one",
                where=connection.where,
                expected=f"{cluster.server} in context {connection.context}",
            )
        if again.plugin is not None:
            return await login.from_plugin(again.plugin, connection.where)
        return credentials.from_connection(again)

    def transport(certificate: Certificate | None) -> httpx2.AsyncHTTPTransport:
        return _transport(tls.context_for(connection, certificate), proxy)

    connections = _Connections(transport, now.certificate if now else None, connection, proxy, answered)
    try:
        address = httpx2.URL(cluster.server)
    except httpx2.InvalidURL:
        raise InputError(
            "its server is not a URL", where=connection.where, expected="server: https://HOST:PORT"
        ) from None
    client = httpx2.AsyncClient(
        base_url=address,
        auth=login.Login(fetch, connections.present, now),
        headers=[(name.encode(), value) for name, value in connection.impersonation],
        transport=connections,
        timeout=httpx2.Timeout(_TIMEOUT),
        event_hooks={"response": [_read_refusal]},
    )
    return Access(client, cluster.server, connection.namespace, connection.where)


class _Connections(httpx2.AsyncBaseTransport):
    """The connections to one server; those made under a client certificate are not used under another.

    Open connections are kept: a watch, and a command in a pod, outlive the certificate. Until the server has
    ``answered`` once, a permanent error is an ``ApiError``; later it is retried like any other, because the drill may
    have caused it (``refusals``).
    """

    def __init__(
        self,
        make: Callable[[Certificate | None], httpx2.AsyncHTTPTransport],
        certificate: Certificate | None,
        connection: Connection,
        proxy: str,
        answered: bool,
    ) -> None:
        self._make = make
        self._all = [make(certificate)]
        self._connection = connection
        self._proxy = proxy
        self._answered = answered
        self._by = f" (by the proxy {proxies.shown(proxy)})" if proxy else ""
        self._by_connect = proxy.startswith("http")

    def present(self, certificate: Certificate | None) -> None:
        """Use this certificate for new connections."""
        self._all.append(self._make(certificate))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        name = self._connection.cluster.server_name
        if self._by_connect and ":" in url.host:
            request.url, name = _Bracketed(url), name or url.host
        if name:
            request.extensions = {**request.extensions, "sni_hostname": name}
        try:
            response = await self._all[-1].handle_async_request(request)
        except ssl.SSLError as error:  # an alert instead of an answer: httpcore2 2.16 lets it through as it is
            self._refuse(error)
            raise httpx2.ReadError(f"{error}{self._by}", request=request) from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError) as error:
            self._refuse(error)
            if not self._by:
                raise
            raise type(error)(f"{str(error) or type(error).__name__}{self._by}", request=request) from error
        finally:
            request.url = url
        self._answered = True
        if response.status_code != 101 and request.url.params.get("watch") != "true":
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(response.stream, request)
        return response

    def _refuse(self, error: Exception) -> None:
        if not self._answered and (why := refusals.lasting(error, self._connection, self._proxy)):
            raise ApiError(why) from error

    async def aclose(self) -> None:
        for one in self._all:
            await one.aclose()


class _Bounded(httpx2.AsyncByteStream):
    """An answer with a bound on its size."""

    def __init__(self, stream: httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        self._stream, self._request = stream, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > _MOST:
                raise httpx2.ReadError(f"the answer is longer than {_MOST >> 20} MB", request=self._request)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Bracketed(httpx2.URL):
    """A server's IPv6 address in brackets, for CONNECT to a proxy; httpcore2 2.16 leaves them out."""

    @property
    def raw_host(self) -> bytes:
        return b"[%b]" % super().raw_host


def _transport(context: ssl.SSLContext, proxy: str) -> httpx2.AsyncHTTPTransport:
    # As in kubectl, a proxy's TLS certificate is checked against the cluster's authority.
    by = httpx2.Proxy(proxy, ssl_context=context if proxy.startswith("https:") else None) if proxy else None
    try:
        # A drill of 20 nodes holds 40 streams open: no limit on connections but the cluster's own size.
        return httpx2.AsyncHTTPTransport(verify=context, limits=httpx2.Limits(max_connections=None), proxy=by)
    except ImportError as error:
        raise MissingError(
            f"the proxy {proxies.shown(proxy)} speaks SOCKS, and the package for it is not installed",
            remedy="install it: pip install 'httpx2[socks]'; or name an http:// proxy",
        ) from error


async def _read_refusal(response: httpx2.Response) -> None:
    """Read the body of a refusal, which says why: that of a refused websocket would be closed unread."""
    if response.is_error:
        await response.aread()
