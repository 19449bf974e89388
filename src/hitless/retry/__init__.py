"""Retries for applications that must get through the restart of a node's network agent.

    from hitless import retry

    client = httpx.Client(transport=retry.httpx_transport())
    session = retry.requests_session(retry.Policy(deadline=20))
    reader, writer = await retry.open_connection("db.example", 5432)

    @retry.Policy(deadline=20).on_gap()
    def fetch(): ...

Problem: connections that begin while a node translates nothing stay dead, and the usual retries wait for them or use
their port again. Promise: only errors of a gap are retried (``classify``), on a new connection from a new source port,
within a deadline and a budget; what may do harm when it is done twice is not repeated unless a ``Policy`` says so. This
package imports nothing of hitless, and each HTTP library only when its function is called. Needs the extra ``retry``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hitless.retry.budgets import Budget
from hitless.retry.gaps import Gap, GapKind, classify
from hitless.retry.policy import DEFAULT, IDEMPOTENT, Policy, Retry, log_retry
from hitless.retry.sockets import create_connection, getaddrinfo, open_connection

if TYPE_CHECKING:
    import requests

    from hitless.retry.http_aiohttp import Session
    from hitless.retry.http_httpx import AsyncRetryTransport, RetryTransport
    from hitless.retry.http_urllib3 import PoolManager

__all__ = [
    "DEFAULT",
    "IDEMPOTENT",
    "Budget",
    "Gap",
    "GapKind",
    "Policy",
    "Retry",
    "aiohttp_session",
    "classify",
    "create_connection",
    "getaddrinfo",
    "httpx_async_transport",
    "httpx_transport",
    "log_retry",
    "open_connection",
    "requests_session",
    "urllib3_pool",
]


def httpx_transport(policy: Policy = DEFAULT, **keywords: Any) -> RetryTransport:
    """For ``httpx.Client(transport=…)``; keywords are those of ``httpx.HTTPTransport`` (``verify``, ``http2``, …)."""
    import httpx

    from hitless.retry.http_httpx import RetryTransport

    return RetryTransport(policy, make=lambda: httpx.HTTPTransport(**keywords))


def httpx_async_transport(policy: Policy = DEFAULT, **keywords: Any) -> AsyncRetryTransport:
    """For ``httpx.AsyncClient(transport=…)``; keywords are those of ``httpx.AsyncHTTPTransport``."""
    import httpx

    from hitless.retry.http_httpx import AsyncRetryTransport

    return AsyncRetryTransport(policy, make=lambda: httpx.AsyncHTTPTransport(**keywords))


def requests_session(policy: Policy = DEFAULT) -> requests.Session:
    """A ``requests.Session`` whose adapters follow the policy."""
    from hitless.retry.http_urllib3 import session

    return session(policy)


def urllib3_pool(policy: Policy = DEFAULT, **keywords: Any) -> PoolManager:
    """A ``urllib3.PoolManager`` that follows the policy; keywords are those of urllib3's."""
    from hitless.retry.http_urllib3 import PoolManager

    return PoolManager(policy=policy, **keywords)


def aiohttp_session(policy: Policy = DEFAULT, **keywords: Any) -> Session:
    """For an ``aiohttp.ClientSession``; the keywords are its own, ``connector`` is a function that makes one."""
    from hitless.retry.http_aiohttp import Session

    return Session(policy, **keywords)
