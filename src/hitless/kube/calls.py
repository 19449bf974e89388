"""Single calls on an API server, repeated while it cannot be reached.

Problem: a drill may cut its own connection to the server, and a server may be unreachable for a minute. Promise: a call
is retried within a bounded time (``Patience``), as far as its failure may be temporary; exceptions of the HTTP library
become ``ApiError``; time limits on states of the cluster do not count the time in which the server was unreachable.
Next stage: ``api``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from hitless.errors import ApiError, ours
from hitless.kube import refusals
from hitless.kube.access import Access, httpx2
from hitless.model.documents import decoded

__all__ = ["WHOLE_S", "ApiCalls", "MadeBefore", "Patience", "described"]

_R = TypeVar("_R")

WHOLE_S = 60.0  # for a whole answer; a page of 500 nodes has 10 MB
_PASSING = frozenset({429, 500, 502, 503, 504})  # statuses after which the API conventions allow to try again


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is retried while the server is unreachable: the drill itself may have caused that.

    ``total`` and the waits are in seconds; waits double from ``first`` to ``longest``, with jitter.
    """

    total: float = 180.0
    first: float = 0.2
    longest: float = 5.0
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep)
    now: Callable[[], float] = field(default=time.monotonic)

    def wait(self, attempt: int) -> float:
        """The wait after the ``attempt``-th failure (from 0)."""
        return min(self.longest, self.first * 2.0 ** min(attempt, 16)) * random.uniform(0.5, 1.0)


class ApiCalls:
    """Calls on one server. ``accepted``: whether it has accepted our credentials before."""

    def __init__(self, target: Access, patience: Patience) -> None:
        self.client = target.client
        self.server = target.server
        self.patience = patience
        self.accepted = False
        self._where = target.where
        self._limits: dict[asyncio.Timeout, float] = {}

    async def call(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        final: Callable[[httpx2.Response], bool] = lambda _: False,
        read: Callable[[bytes], _R],
    ) -> _R:
        """``read`` decodes the response, or raises ``ValueError`` when it is not one of a Kubernetes API."""
        body = msgspec.json.encode(document) if document is not None else None
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if body is not None else {})
        begin, attempt = self.patience.now(), 0
        while True:
            wait = self.patience.wait(attempt)
            try:
                async with asyncio.timeout(WHOLE_S):
                    response = await self.client.request(method, path, params=params, content=body, headers=headers)
                if response.is_success:
                    result = decoded(lambda: read(response.content))  # noqa: B023 - called right here
                    self.accepted = True
                    return result
            except TimeoutError:
                problem = ApiError(f"{method} {path}: {self.server} did not end its answer within {WHOLE_S:g} s")
            except (httpx2.RequestError, OSError) as error:
                problem = ApiError(f"{method} {path}: {self.server} cannot be reached: {described(error)}")
            except ValueError as error:
                what = path.rpartition("/")[2]
                text = f"{what}: the server's answer is not understood: {described(error)}; {self.hint}"
                problem = ApiError(text)
                if not self.accepted:
                    raise problem from error
            except Exception as error:
                raise ours(error, f"{method} {path}") from error
            else:
                problem = refusals.refusal(method, path, response)
                if response.status_code == 409 and method == "POST" and attempt > 0:
                    raise MadeBefore from problem
                if not self.passing(response.status_code) or final(response):
                    raise problem
                wait = max(wait, refusals.retry_after(response))
            self.unreachable()
            if self.patience.now() - begin + wait > self.patience.total:
                raise problem
            await self.patience.sleep(wait)
            attempt += 1

    def passing(self, status: int) -> bool:
        """Whether a refusal with this status may be temporary; 401 only from a server that accepted us before."""
        return status in _PASSING or (status == 401 and self.accepted)

    @property
    def hint(self) -> str:
        """A hint to the field that may be wrong."""
        return f"is it an API server? Look at server: of the cluster in {self._where}"

    @contextmanager
    def extended(self, limit: asyncio.Timeout, within: float) -> Iterator[None]:
        """Do not count the time in which the server was unreachable against this limit of ``within`` seconds."""
        self._limits[limit] = within
        try:
            yield
        finally:
            del self._limits[limit]

    def unreachable(self) -> None:
        """The server is unreachable: extend the time limits by that time."""
        now = asyncio.get_running_loop().time()
        for limit, within in self._limits.items():
            if not limit.expired():
                limit.reschedule(now + within + self.patience.longest)


class MadeBefore(Exception):
    """A retried POST found the object that the first try created."""


def described(error: Exception) -> str:
    """The error's text, or its type where it has none."""
    return str(error) or type(error).__name__
