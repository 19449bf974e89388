"""The client of the tools for a Kubernetes API server.

Problem: a drill may cut its own connection to the server, and a server may be unreachable for a minute. Promise: calls
that can be repeated are retried within a bounded time (``calls``); lists are read in pages; a watch continues after
bookmarks, closed connections and 410 by listing again, and gives whole states, so that nothing depends on having seen
every event; waiting for a state does not count the time in which the server was unreachable. Exceptions of the HTTP
library become ``ApiError``. Kubeconfig, TLS and credentials are in ``access``. Next stages: ``survey``, ``pods``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, assert_never

from hitless.errors import ApiError, ours
from hitless.kube import answers, refusals
from hitless.kube.access import Access, access, httpx2
from hitless.kube.calls import WHOLE_S, ApiCalls, MadeBefore, Patience, described
from hitless.kube.list_watch import Change, EndlessList, Gone, ListWatch, Put, Synced, by_name
from hitless.kube.objects import PODS, Kind, Object

__all__ = ["Api", "Patience", "connect"]

_T = TypeVar("_T", bound=Object)

PatchType = Literal["application/strategic-merge-patch+json", "application/merge-patch+json"]

_PAGE = 500
# Watches are short: a connection that died silently is noticed after one of them, not after the server's half hour.
_WATCH_S = 20
_WATCH_SLACK_S = 10.0


def connect(
    kubeconfig: Path | None = None,
    context: str | None = None,
    *,
    patience: Patience | None = None,
    answered: bool = False,
) -> Api:
    """The API server that the kubeconfig names, else KUBECONFIG, this pod's account, or ~/.kube/config.

    ``answered``: this configuration has worked before, so that errors are retried (``refusals``).
    """
    return Api(access(kubeconfig, context, answered=answered), patience or Patience())


class Api:
    """Calls on one API server; ``namespace`` is the context's own."""

    def __init__(self, target: Access, patience: Patience) -> None:
        self.client = target.client
        self.server = target.server
        self.namespace = target.namespace
        self.calls = ApiCalls(target, patience)

    @property
    def patience(self) -> Patience:
        """How long calls are retried."""
        return self.calls.patience

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def get(self, kind: Kind[_T], name: str, namespace: str = "") -> _T:
        """One object; ``ApiError`` with status 404 when it is not there."""
        return await self.calls.call("GET", kind.path(namespace, name), read=lambda body: answers.one(body, kind))

    async def all(self, kind: Kind[_T], namespace: str = "", *, labels: str = "", fields: str = "") -> list[_T]:
        """All objects (of a namespace, or of all), page by page."""
        watching = ListWatch(kind, labels=labels, fields=fields, key=by_name, page=_PAGE)
        found: dict[str, _T] = {}
        async for change in self._listed(watching, kind, namespace):
            self._apply(change, found)
        return list(found.values())

    async def create(self, kind: Kind[_T], document: Mapping[str, Any], namespace: str = "") -> _T | None:
        """Create an object; retried after a lost response.

        None when an earlier try, whose response was lost, created it: reading it would need another permission.
        """
        try:
            return await self.calls.call(
                "POST", kind.path(namespace), document, read=lambda body: answers.one(body, kind)
            )
        except MadeBefore:
            return None

    async def patch(self, kind: Kind[_T], name: str, namespace: str, document: Mapping[str, Any], how: PatchType) -> _T:
        """Change an object; the same patch twice is the same object."""
        path = kind.path(namespace, name)
        return await self.calls.call(
            "PATCH", path, document, content_type=how, read=lambda body: answers.one(body, kind)
        )

    async def delete(
        self,
        kind: Kind[Any],
        name: str,
        namespace: str = "",
        *,
        grace: int | None = None,
        uid: str = "",
        version: str = "",
    ) -> bool:
        """Delete an object; only the one of ``uid``, only as it was at ``version``, where these are given. False when
        it was gone already, or is another one by now."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if preconditions := {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}:
            options["preconditions"] = preconditions
        try:
            await self.calls.call("DELETE", kind.path(namespace, name), options, read=answers.done)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and (uid or version)):
                return False
            raise
        return True

    async def evict(self, pod: str, namespace: str, *, grace: int | None = None) -> None:
        """Evict a pod; ``ApiError`` 429 when a PodDisruptionBudget forbids it (that is not retried).

        Does nothing when the pod is gone, as after a call whose response was lost.
        """
        document: dict[str, Any] = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        if grace is not None:
            document["deleteOptions"] = {"gracePeriodSeconds": grace}
        try:
            path = PODS.path(namespace, pod, "eviction")
            await self.calls.call("POST", path, document, final=refusals.budget_says_no, read=answers.done)
        except MadeBefore:
            return
        except ApiError as error:
            if error.status != 404:
                raise

    async def log(self, pod: str, namespace: str, container: str, lines: int = 50) -> str:
        """The last lines of a container's log."""
        path = PODS.path(namespace, pod, "log")
        answer = await self.calls.call(
            "GET", path, params={"container": container, "tailLines": str(lines)}, read=bytes
        )
        return answer.decode(errors="replace")

    async def states(
        self, kind: Kind[_T], namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Mapping[str, _T], None]:
        """The objects by uid, whole, now and after every change; never ends by itself."""
        watching = ListWatch(kind, labels=labels, fields=fields, page=_PAGE, seconds=_WATCH_S)
        state: dict[str, _T] = {}
        while True:
            async for change in self._listed(watching, kind, namespace):
                self._apply(change, state)
            yield dict(state)
            async with aclosing(self._watched(watching, kind, namespace)) as changes:
                async for change in changes:
                    self._apply(change, state)
                    yield dict(state)

    @staticmethod
    def _apply(change: Change[_T], state: dict[str, _T]) -> None:
        match change:
            case Put(key, value):
                state[key] = value
            case Gone(key):
                state.pop(key, None)
            case Synced():
                pass
            case _:
                assert_never(change)

    async def wait_for(
        self,
        kind: Kind[_T],
        namespace: str,
        done: Callable[[Mapping[str, _T]], bool],
        *,
        within: float,
        labels: str = "",
        fields: str = "",
    ) -> Mapping[str, _T] | None:
        """The first state for which ``done`` holds; None after ``within`` seconds in which the server was reachable.

        Raises ``ApiError`` when the server stays unreachable longer than the patience.
        """
        limit = asyncio.timeout(within)
        try:
            async with limit, aclosing(self.states(kind, namespace, labels=labels, fields=fields)) as states:
                with self.calls.extended(limit, within):
                    async for state in states:
                        if done(state):
                            return state
        except TimeoutError:
            return None
        return None

    @asynccontextmanager
    async def websocket(self, path: str, params: httpx2.QueryParams, protocols: list[str]) -> AsyncIterator[Any]:
        """A websocket of the server, for ``streams``: kept alive by pings, so that a dead peer is noticed."""
        async with self.client.websocket(
            path,
            params=params,
            subprotocols=protocols,
            max_message_size_bytes=1 << 22,
            queue_size=16,
            keepalive_ping_interval_seconds=5.0,
            keepalive_ping_timeout_seconds=10.0,
        ) as socket:
            yield socket

    async def _listed(
        self, watching: ListWatch[_T], kind: Kind[_T], namespace: str
    ) -> AsyncGenerator[Change[_T], None]:
        """The changes up to the end of a list, page by page."""
        while not (question := watching.question()).watch:
            try:
                changes = await self.calls.call(
                    "GET", kind.path(namespace), params=question.parameters, read=lambda body: list(watching.page(body))
                )
            except EndlessList as error:
                raise ApiError(f"{kind.plural}: {self.server} gives {error}; {self.calls.hint}") from error
            except ApiError as error:
                if not watching.refused(error):
                    raise
                continue  # the pages grew old: again
            for change in changes:
                yield change

    async def _watched(
        self, watching: ListWatch[_T], kind: Kind[_T], namespace: str
    ) -> AsyncGenerator[Change[_T], None]:
        """The changes from then on, until the server says that the version is too old: then it is listed again."""
        failures, since = 0, self.patience.now()
        what = f"WATCH {kind.path(namespace)}"
        while (question := watching.question()).watch:
            try:
                timeout = httpx2.Timeout(15.0, read=_WATCH_S + _WATCH_SLACK_S)
                parameters = dict(question.parameters)
                async with self.client.stream(
                    "GET", kind.path(namespace), params=parameters, timeout=timeout
                ) as response:
                    if response.status_code != 200:
                        raise refusals.refusal("WATCH", kind.path(namespace), response)
                    self.calls.accepted = True
                    failures, since = 0, self.patience.now()
                    async for line in answers.lines(
                        response.aiter_bytes(), until=since + _WATCH_S + WHOLE_S, now=self.patience.now
                    ):
                        if change := watching.line(line):
                            yield change
            except (httpx2.RequestError, OSError, ValueError) as error:
                problem = ApiError(f"{what}: {self.server}: {described(error)}")
            except (MemoryError, RecursionError, OverflowError) as error:
                raise ours(error, what) from error
            except ApiError as error:
                if watching.refused(error):
                    return
                if not self.calls.passing(error.status) and watching.question().watch:
                    raise
                problem = error
            else:
                if self.patience.now() - since >= 1.0:
                    continue  # the server ended it as agreed
                problem = ApiError(f"{what}: {self.server} ends every watch at once")
            self.calls.unreachable()
            if self.patience.now() - since > self.patience.total:
                raise problem
            await self.patience.sleep(self.patience.wait(failures))
            failures += 1
