"""httpx: a transport that repeats what may be repeated, each time on new connections.

``httpx.Client(transport=httpx_transport())`` and ``httpx.AsyncClient(transport=httpx_async_transport())``. After a gap
the pool is left: connections of it that still serve a response end with that response, the others at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx

from hitless.retry.gaps import GapKind, classify
from hitless.retry.policy import DEFAULT, Policy, run, run_async

__all__ = ["AsyncRetryTransport", "RetryTransport"]


class _Pool:
    """A transport with the number of its responses that are still read."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.users = 0
        self.left = False


class RetryTransport(httpx.BaseTransport):
    """For ``httpx.Client``. ``make`` makes the transport beneath; it is called again after each gap."""

    def __init__(
        self, policy: Policy = DEFAULT, *, make: Callable[[], httpx.BaseTransport] = httpx.HTTPTransport
    ) -> None:
        self._policy, self._make = policy, make
        self._pool = _Pool(make())

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and send again as the policy says; raises httpx's errors."""
        user = _connect_timeout(request)

        def attempt(timeout: float) -> httpx.Response:
            _set_connect_timeout(request, user, timeout)
            pool = self._pool
            pool.users += 1
            try:
                response = pool.inner.handle_request(request)
            except BaseException as error:
                if classify(error) is not None and pool is self._pool:
                    self._pool = _Pool(self._make())
                    pool.left = True
                self._done(pool)
                raise
            response.stream = _Stream(response.stream, lambda: self._done(pool))
            return response  # type: ignore[no-any-return]  # of the transport beneath

        return run(self._policy, attempt, name=_name(request), allowed=_allowed(self._policy, request))

    def _done(self, pool: _Pool) -> None:
        pool.users -= 1
        if pool.left and pool.users == 0:
            pool.inner.close()

    def close(self) -> None:
        """Close all connections."""
        self._pool.inner.close()


class AsyncRetryTransport(httpx.AsyncBaseTransport):
    """The same for ``httpx.AsyncClient``."""

    def __init__(
        self, policy: Policy = DEFAULT, *, make: Callable[[], httpx.AsyncBaseTransport] = httpx.AsyncHTTPTransport
    ) -> None:
        self._policy, self._make = policy, make
        self._pool = _Pool(make())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and send again as the policy says; raises httpx's errors."""
        user = _connect_timeout(request)

        async def attempt(seconds: float) -> httpx.Response:
            _set_connect_timeout(request, user, seconds)
            pool = self._pool
            pool.users += 1
            try:
                response = await pool.inner.handle_async_request(request)
            except BaseException as error:
                if classify(error) is not None and pool is self._pool:
                    self._pool = _Pool(self._make())
                    pool.left = True
                await self._done(pool)
                raise
            response.stream = _AsyncStream(response.stream, lambda: self._done(pool))
            return response  # type: ignore[no-any-return]  # of the transport beneath

        return await run_async(self._policy, attempt, name=_name(request), allowed=_allowed(self._policy, request))

    async def _done(self, pool: _Pool) -> None:
        pool.users -= 1
        if pool.left and pool.users == 0:
            await pool.inner.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._pool.inner.aclose()


class _Stream(httpx.SyncByteStream):
    def __init__(self, stream: Any, done: Callable[[], None]) -> None:
        self._stream, self._done, self._open = stream, done, True

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()
        if self._open:
            self._open = False
            self._done()


class _AsyncStream(httpx.AsyncByteStream):
    def __init__(self, stream: Any, done: Callable[[], Any]) -> None:
        self._stream, self._done, self._open = stream, done, True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()
        if self._open:
            self._open = False
            await self._done()


def _name(request: httpx.Request) -> str:
    return f"{request.method} {request.url.host}"  # the path may hold a secret


def _allowed(policy: Policy, request: httpx.Request) -> Callable[[GapKind], bool]:
    """A body that is a stream can be sent once; httpx holds all others whole."""
    return policy.allows_request(request.method, whole=isinstance(request.stream, httpx.ByteStream))


def _connect_timeout(request: httpx.Request) -> float | None:
    value = request.extensions.get("timeout", {}).get("connect")
    return value if isinstance(value, int | float) else None


def _set_connect_timeout(request: httpx.Request, user: float | None, timeout: float) -> None:
    shortest = timeout if user is None else min(user, timeout)
    request.extensions = {
        **request.extensions,
        "timeout": {**request.extensions.get("timeout", {}), "connect": shortest},
    }
