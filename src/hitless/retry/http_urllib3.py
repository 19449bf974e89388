"""urllib3 and requests: pools that repeat what may be repeated, and are emptied after a gap.

``urllib3_pool()`` replaces ``urllib3.PoolManager()``; ``requests_session()`` for ``requests.Session()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import urllib3

from hitless.retry.gaps import classify
from hitless.retry.policy import DEFAULT, Policy, refuse_fixed_port, run

if TYPE_CHECKING:
    import requests

__all__ = ["PoolManager", "session"]


class PoolManager(urllib3.PoolManager):
    """``urllib3.PoolManager`` with a policy. ``retries`` of a request says how many redirects are followed, no more."""

    def __init__(self, *args: Any, policy: Policy = DEFAULT, **kwargs: Any) -> None:
        refuse_fixed_port(kwargs.get("source_address"))
        super().__init__(*args, **kwargs)
        self._policy = policy

    def urlopen(  # type: ignore[override]  # urllib3 declares the same keywords one by one
        self, method: str, url: str, redirect: bool = True, **kw: Any
    ) -> urllib3.BaseHTTPResponse:
        """Send, and send again as the policy says; raises urllib3's errors."""
        if isinstance(kw.get("retries"), urllib3.Retry) and kw["retries"].history:
            return super().urlopen(method, url, redirect, **kw)  # a redirect, inside of an attempt
        given = urllib3.Retry.from_int(kw.pop("retries", None), redirect=redirect)
        timeout = kw.pop("timeout", self.connection_pool_kw.get("timeout"))
        policy, body = self._policy, kw.get("body")

        def attempt(seconds: float) -> urllib3.BaseHTTPResponse:
            redirects = given.redirect if given.redirect is not None else given.total
            once = urllib3.Retry(total=None, connect=0, read=0, other=0, status=0, redirect=redirects)
            try:
                limit = _shorter(timeout, seconds)
                return super(PoolManager, self).urlopen(method, url, redirect, retries=once, timeout=limit, **kw)
            except Exception as error:
                if classify(error) is not None:
                    self.clear()
                raise

        name = f"{method} {urllib3.util.parse_url(url).host}"
        return run(policy, attempt, name=name, allowed=policy.allows_request(method, whole=_whole(body)))


def session(policy: Policy = DEFAULT) -> requests.Session:
    """A ``requests.Session`` whose http and https adapters follow the policy."""
    import requests
    from requests.adapters import HTTPAdapter

    class Adapter(HTTPAdapter):
        def send(  # type: ignore[override]  # the base's other parameters are handed on
            self, request: requests.PreparedRequest, stream: bool = False, timeout: Any = None, **kw: Any
        ) -> requests.Response:
            given = timeout if isinstance(timeout, tuple) else (timeout, timeout)

            def attempt(seconds: float) -> requests.Response:
                connect = seconds if given[0] is None else min(given[0], seconds)
                try:
                    return super(Adapter, self).send(request, stream, (connect, given[1]), **kw)
                except Exception as error:
                    if classify(error) is not None:
                        self.poolmanager.clear()
                        for proxy in self.proxy_manager.values():
                            proxy.clear()
                    raise

            name = f"{request.method} {urllib3.util.parse_url(request.url or '').host}"
            return run(
                policy,
                attempt,
                name=name,
                allowed=policy.allows_request(request.method or "", whole=_whole(request.body)),
            )

    made = requests.Session()
    made.mount("http://", Adapter(max_retries=0))
    made.mount("https://", Adapter(max_retries=0))
    return made


def _whole(body: Any) -> bool:
    """What is read while it is sent can be sent once."""
    return body is None or isinstance(body, bytes | bytearray | str)


def _shorter(timeout: Any, seconds: float) -> urllib3.Timeout:
    """The caller's time limits, with connecting within the attempt's."""
    if isinstance(timeout, urllib3.Timeout):
        connect, read = timeout.connect_timeout, timeout.read_timeout
    else:
        connect = read = timeout
    shortest = min(connect, seconds) if isinstance(connect, int | float) else seconds
    return urllib3.Timeout(connect=shortest, read=read)
