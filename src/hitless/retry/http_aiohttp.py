"""aiohttp: a session that repeats what may be repeated, each time through a new connector.

``aiohttp_session()`` replaces ``aiohttp.ClientSession()``: the same keywords, the same methods, ``async with`` for
requests. After a gap the connector is left with what is still read through it, and closed with the last of that.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self

import aiohttp
import yarl

from hitless.retry.gaps import classify
from hitless.retry.policy import DEFAULT, Policy, refuse_fixed_port, run_async

__all__ = ["Session"]


class _Inner:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.users = 0


class Session:
    """A ``ClientSession`` with a policy. ``connector`` makes a connector; keywords are ``ClientSession``'s."""

    def __init__(
        self,
        policy: Policy = DEFAULT,
        *,
        connector: Callable[[], aiohttp.BaseConnector] = aiohttp.TCPConnector,
        timeout: aiohttp.ClientTimeout | None = None,
        cookie_jar: aiohttp.abc.AbstractCookieJar | None = None,
        **keywords: Any,
    ) -> None:
        self._policy, self._connector, self._keywords = policy, connector, keywords
        self._timeout = timeout or aiohttp.ClientTimeout()
        self._jar = cookie_jar or aiohttp.CookieJar()
        self._left: list[_Inner] = []
        self._inner = self._made()

    def _made(self) -> _Inner:
        connector = self._connector()
        local = getattr(connector, "_local_addr_infos", None)
        refuse_fixed_port(local[0][4] if local else None)
        return _Inner(aiohttp.ClientSession(connector=connector, cookie_jar=self._jar, **self._keywords))

    def request(self, method: str, url: Any, **keywords: Any) -> _Request:
        """As ``ClientSession.request``: for ``async with`` or ``await``; raises aiohttp's errors."""
        return _Request(self, method, url, keywords)

    def get(self, url: Any, **keywords: Any) -> _Request:
        """``request("GET", …)``."""
        return self.request("GET", url, **keywords)

    def head(self, url: Any, **keywords: Any) -> _Request:
        """``request("HEAD", …)``, without following redirects, as aiohttp does it."""
        return self.request("HEAD", url, **{"allow_redirects": False, **keywords})

    def options(self, url: Any, **keywords: Any) -> _Request:
        """``request("OPTIONS", …)``."""
        return self.request("OPTIONS", url, **keywords)

    def put(self, url: Any, **keywords: Any) -> _Request:
        """``request("PUT", …)``."""
        return self.request("PUT", url, **keywords)

    def delete(self, url: Any, **keywords: Any) -> _Request:
        """``request("DELETE", …)``."""
        return self.request("DELETE", url, **keywords)

    def post(self, url: Any, **keywords: Any) -> _Request:
        """``request("POST", …)``: sent once, unless the policy says otherwise."""
        return self.request("POST", url, **keywords)

    def patch(self, url: Any, **keywords: Any) -> _Request:
        """``request("PATCH", …)``: sent once, unless the policy says otherwise."""
        return self.request("PATCH", url, **keywords)

    async def _send(self, method: str, url: Any, keywords: dict[str, Any]) -> tuple[aiohttp.ClientResponse, _Inner]:
        given = keywords.pop("timeout", None) or self._timeout

        async def attempt(seconds: float) -> tuple[aiohttp.ClientResponse, _Inner]:
            limits = {one: given.__getattribute__(one) for one in ("total", "connect", "sock_read")}
            connect = seconds if given.sock_connect is None else min(given.sock_connect, seconds)
            inner = self._inner
            inner.users += 1
            try:
                timeout = aiohttp.ClientTimeout(sock_connect=connect, **limits)
                response = await inner.session.request(method, url, timeout=timeout, **keywords)
            except BaseException as error:
                if classify(error) is not None and inner is self._inner:
                    self._inner = self._made()
                    self._left.append(inner)
                await self._done(inner)
                raise
            return response, inner

        return await run_async(
            self._policy,
            attempt,
            name=f"{method} {yarl.URL(url).host}",
            allowed=self._policy.allows_request(method, whole=_whole(keywords.get("data"))),
        )

    async def _done(self, inner: _Inner) -> None:
        inner.users -= 1
        if inner in self._left and inner.users <= 0:
            self._left.remove(inner)
            await inner.session.close()

    async def close(self) -> None:
        """Close all connections."""
        for inner in (*self._left, self._inner):
            await inner.session.close()
        self._left.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Request:
    """For ``async with`` (the connection is given back at its end) or ``await`` (when the session is closed)."""

    def __init__(self, session: Session, method: str, url: Any, keywords: dict[str, Any]) -> None:
        self._session, self._what = session, (method, url, keywords)
        self._response: aiohttp.ClientResponse | None = None
        self._inner: _Inner | None = None

    def __await__(self) -> Generator[Any, None, aiohttp.ClientResponse]:
        return self._begin().__await__()

    async def _begin(self) -> aiohttp.ClientResponse:
        self._response, self._inner = await self._session._send(*self._what)
        return self._response

    async def __aenter__(self) -> aiohttp.ClientResponse:
        return await self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._response is not None and self._inner is not None
        self._response.release()
        await self._response.wait_for_close()
        await self._session._done(self._inner)


def _whole(data: Any) -> bool:
    """A body that is read while it is sent (a file, a generator, a form) can be sent once."""
    return data is None or isinstance(data, bytes | bytearray | str | dict)
