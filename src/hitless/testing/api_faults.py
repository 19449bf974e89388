"""Faults of the fake API server: refused and silent connections, expired tokens, lost responses, cut lines.

Problem: clients are written against servers that respond, and fail on those that accept a connection and send nothing,
on an expired token, or on a line that ends in its middle. Promise: each fault is one call with its length in seconds,
ends by itself, and is counted, so that a test can check that it happened. Used by ``api_server``.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from aiohttp import web

from hitless.testing.api_store import StatusError

__all__ = ["Faults"]


@dataclass
class Faults:
    """``failures``: refusals that the next requests get. ``token``: the only accepted one (empty: any).
    ``authorizer_delay``: seconds until a new account's rights are in force, as the real server reads roles by a watch
    of its own."""

    failures: list[StatusError] = field(default_factory=list)
    token: str = ""
    authorizer_delay: float = 0.0
    cuts: int = 0
    refused: int = 0
    unanswered: int = 0
    unauthorized: int = 0
    torn: int = 0
    lost: int = 0
    dropped: int = 0
    early: int = 0
    _cut_until: float = 0.0
    _silent_until: float = 0.0
    _tear: int = 0
    _lose: int = 0
    _kubelets: asyncio.Event = field(default_factory=asyncio.Event)
    _accounts: dict[str, float] = field(default_factory=dict)
    _requests: dict[int, web.BaseRequest] = field(default_factory=dict)  # requests have no hash

    def cut(self, seconds: float) -> None:
        """Break every open connection, and every new one during the next ``seconds``."""
        self.cuts += 1
        self._cut_until = time.monotonic() + seconds
        self.abort()

    def hang(self, seconds: float) -> None:
        """Send nothing for so long: open connections stay open, new ones are accepted; then all are reset."""
        self.cuts += 1
        self._silent_until = time.monotonic() + seconds
        asyncio.get_running_loop().call_later(seconds, self.abort)

    def tear(self, watches: int = 1) -> None:
        """Break the next so many watch events in the middle of their line."""
        self._tear = watches

    def lose(self, posts: int = 1) -> None:
        """Execute the next so many POSTs, and lose their responses."""
        self._lose = posts

    def drop_kubelets(self) -> None:
        """End every exec as a server does whose kubelet goes away: by "Success" (kubectl issue 1726)."""
        self._kubelets.set()
        self._kubelets = asyncio.Event()

    async def kubelets_gone(self) -> None:
        """Wait until the kubelets go away."""
        await self._kubelets.wait()
        self.dropped += 1

    def answered(self, request: web.BaseRequest) -> None:
        """The request was carried out; its connection is aborted when the response is to be lost."""
        if self._lose and request.method == "POST" and request.transport is not None:
            self._lose -= 1
            self.lost += 1
            request.transport.abort()

    def abort(self) -> None:
        """Reset every open connection."""
        for request in list(self._requests.values()):
            if request.transport is not None:
                request.transport.abort()

    @property
    def silent(self) -> bool:
        """Whether the server is silent now."""
        return time.monotonic() < self._silent_until

    async def wait_if_silent(self) -> None:
        """Wait while the server is silent; raises ``ConnectionResetError`` after it, as the connection is gone then."""
        if self.silent:
            await asyncio.sleep(self._silent_until - time.monotonic() + 0.05)
            raise ConnectionResetError

    heard = wait_if_silent  # its former name

    async def write(self, response: web.StreamResponse, request: web.Request, line: bytes) -> None:
        """Write a watch's line, or half of it."""
        await self.wait_if_silent()
        if self._tear and request.transport is not None:
            self._tear -= 1
            self.torn += 1
            await response.write(line[: len(line) // 2])
            await asyncio.sleep(0.05)  # so that the half arrives
            request.transport.abort()
            raise ConnectionResetError
        await response.write(line)

    async def meet(self, request: web.Request) -> None:
        """The faults that a new request meets; raises ``StatusError``, or aborts the connection."""
        if request.transport is not None and time.monotonic() < self._cut_until:
            self.refused += 1
            request.transport.abort()
            raise web.HTTPServiceUnavailable
        if self.silent:
            self.unanswered += 1
        await self.wait_if_silent()
        if self.failures:
            raise self.failures.pop(0)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            self.unauthorized += 1
            raise StatusError(401, "Unauthorized", "Unauthorized")
        if time.monotonic() < self._accounts.get(request.headers.get("Authorization", ""), 0.0):
            self.early += 1
            raise StatusError(
                403, "Forbidden", f'User "system:serviceaccount:a" cannot {request.method} path "{request.path}"'
            )

    def account(self, token: str) -> None:
        """An account has got this token."""
        self._accounts[f"Bearer {token}"] = time.monotonic() + self.authorizer_delay

    def begin(self, request: web.BaseRequest) -> None:
        """A request is open."""
        self._requests[id(request)] = request

    def end(self, request: web.BaseRequest) -> None:
        """It is over."""
        del self._requests[id(request)]
