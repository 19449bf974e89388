"""The port to a Kubernetes API server: the only module that talks to one.

Problem: a drill may cut the very connection that it is watched through, and a server may be away for a minute. Promise:
calls that can be repeated are, within a named and bounded patience; a list is read in pages; a watch goes on over
bookmarks, closed connections and 410 by listing again, and gives whole states, so that nothing depends on having seen
every event. The kubeconfig, TLS and credentials are lightkube's; paths and JSON are ours. Foreign exceptions stop here
(``ApiError``, ``InputError``, ``MissingError``). Next stage: ``survey``, ``pods``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from hitless.cluster.objects import PODS, Kind, Object
from hitless.errors import ApiError, InputError, MissingError

try:
    import httpx2
    import yaml
    from lightkube.config import client_adapter
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError
except ImportError as error:
    raise MissingError(
        "the Kubernetes client is not installed", remedy="install it: pip install 'hitless[cluster]'"
    ) from error

__all__ = ["Api", "Patience", "connect"]

_T = TypeVar("_T", bound=Object)

PatchType = Literal["application/strategic-merge-patch+json", "application/merge-patch+json"]

_PAGE = 500
# What lightkube lets through for a file that is YAML but no kubeconfig, beside its own error.
_BAD_CONFIG = (
    ConfigError,
    OSError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    msgspec.MsgspecError,
    yaml.YAMLError,
)
_PASSING = frozenset({429, 500, 502, 503, 504})  # statuses after which the API conventions allow to try again


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call is repeated while the server is away: the drill itself may have cut it off.

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


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)
    items: list[msgspec.Raw] | None = None


class _WatchEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    code: int = 0


def connect(kubeconfig: Path | None = None, context: str | None = None, *, patience: Patience | None = None) -> Api:
    """The API server that the kubeconfig (else the environment: in-cluster, KUBECONFIG, ~/.kube/config) names."""
    try:
        config = KubeConfig.from_file(kubeconfig) if kubeconfig is not None else KubeConfig.from_env()
        single = config.get(context)
        if single is None:
            raise ConfigError("no current context is set")
        adapter: Any = client_adapter  # untyped in lightkube
        user = single.user
        verify = adapter.verify_cluster(single.cluster, user or adapter.User(), single.abs_file)
        auth = adapter.user_auth(user)
    except _BAD_CONFIG as error:
        where = str(kubeconfig) if kubeconfig is not None else "kubeconfig"
        raise InputError(f"{error}", where=where, expected="a kubeconfig that names a cluster and a user") from error
    # A drill of 20 nodes holds 40 streams open: no limit on connections but the cluster's own size.
    transport = httpx2.AsyncHTTPTransport(verify=verify, limits=httpx2.Limits(max_connections=None))
    client = httpx2.AsyncClient(
        base_url=single.cluster.server, auth=auth, transport=transport, timeout=httpx2.Timeout(15.0)
    )
    return Api(client, single.cluster.server, single.namespace, patience or Patience())


class Api:
    """Calls on one API server; ``namespace`` is the context's own."""

    def __init__(self, client: httpx2.AsyncClient, server: str, namespace: str, patience: Patience) -> None:
        self.client = client
        self.server = server
        self.namespace = namespace
        self.patience = patience

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def get(self, kind: Kind[_T], name: str, namespace: str = "") -> _T:
        """One object; ``ApiError`` with status 404 when it is not there."""
        return _decode(await self._call("GET", kind.path(namespace, name)), kind)

    async def all(self, kind: Kind[_T], namespace: str = "", *, labels: str = "", fields: str = "") -> list[_T]:
        """All objects (of a namespace, or of all), page by page."""
        return (await self._list(kind, namespace, labels, fields))[0]

    async def create(self, kind: Kind[_T], document: Mapping[str, Any], namespace: str = "") -> _T:
        """Make an object; repeated after a lost answer, when the one that is there has the name that we gave."""
        name = str(document.get("metadata", {}).get("name", ""))
        try:
            return _decode(await self._call("POST", kind.path(namespace), document), kind)
        except _MadeBefore:
            return await self.get(kind, name, namespace)

    async def patch(self, kind: Kind[_T], name: str, namespace: str, document: Mapping[str, Any], how: PatchType) -> _T:
        """Change an object; the same patch twice is the same object."""
        return _decode(await self._call("PATCH", kind.path(namespace, name), document, content_type=how), kind)

    async def delete(
        self, kind: Kind[Any], name: str, namespace: str = "", *, grace: int | None = None, uid: str = ""
    ) -> bool:
        """Delete an object, only the one of ``uid`` when given; False when it was gone already."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", kind.path(namespace, name), options)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and uid):
                return False
            raise
        return True

    async def evict(self, pod: str, namespace: str, *, grace: int | None = None) -> None:
        """Evict a pod; ``ApiError`` 429 when a PodDisruptionBudget says no (not repeated: that is an answer)."""
        document: dict[str, Any] = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        if grace is not None:
            document["deleteOptions"] = {"gracePeriodSeconds": grace}
        await self._call("POST", PODS.path(namespace, pod, "eviction"), document, final=frozenset({429}))

    async def log(self, pod: str, namespace: str, container: str, lines: int = 50) -> str:
        """The last lines of a container's log."""
        path = PODS.path(namespace, pod, "log")
        answer = await self._call("GET", path, params={"container": container, "tailLines": str(lines)})
        return answer.decode(errors="replace")

    async def states(
        self, kind: Kind[_T], namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Mapping[str, _T], None]:
        """The objects by uid, whole, now and after every change; never ends by itself."""
        while True:
            objects, version = await self._list(kind, namespace, labels, fields)
            state = {one.metadata.uid: one for one in objects}
            yield dict(state)
            async with aclosing(self._watch(kind, namespace, labels, fields, version)) as events:
                async for what, one in events:
                    if what == "DELETED":
                        state.pop(one.metadata.uid, None)
                    else:
                        state[one.metadata.uid] = one
                    yield dict(state)

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
        """The first state for which ``done`` holds; None after ``within`` seconds."""
        try:
            async with (
                asyncio.timeout(within),
                aclosing(self.states(kind, namespace, labels=labels, fields=fields)) as states,
            ):
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
            keepalive_ping_interval_seconds=5.0,
            keepalive_ping_timeout_seconds=10.0,
        ) as socket:
            yield socket

    async def _list(self, kind: Kind[_T], namespace: str, labels: str, fields: str) -> tuple[list[_T], str]:
        params = {"limit": str(_PAGE), **_selectors(labels, fields)}
        found: list[_T] = []
        while True:
            try:
                page = msgspec.json.decode(await self._call("GET", kind.path(namespace), params=params), type=_List)
            except ApiError as error:
                if error.status != 410 or "continue" not in params:
                    raise
                found, params = [], {"limit": str(_PAGE), **_selectors(labels, fields)}  # the pages grew old: again
                continue
            found.extend(_decode(raw, kind) for raw in page.items or [])
            if not page.metadata.continue_:
                return found, page.metadata.resource_version
            params = {**params, "continue": page.metadata.continue_}

    async def _watch(
        self, kind: Kind[_T], namespace: str, labels: str, fields: str, version: str
    ) -> AsyncGenerator[tuple[str, _T], None]:
        """Events after ``version`` until the server says that it is too old (then the caller lists again)."""
        failures, since = 0, self.patience.now()
        while True:
            params = {
                "watch": "true",
                "allowWatchBookmarks": "true",
                "resourceVersion": version,
                "timeoutSeconds": str(random.randint(240, 480)),
                **_selectors(labels, fields),
            }
            try:
                timeout = httpx2.Timeout(15.0, read=600.0)
                async with self.client.stream("GET", kind.path(namespace), params=params, timeout=timeout) as response:
                    if response.status_code != 200:
                        await response.aread()
                        raise _refusal("WATCH", kind.path(namespace), response)
                    async for line in response.aiter_lines():
                        event = msgspec.json.decode(line, type=_WatchEvent)
                        if event.type == "ERROR":
                            status = msgspec.json.decode(event.object, type=_Status)
                            raise ApiError(status.message, status=status.code)
                        one = _decode(event.object, kind)
                        version = one.metadata.resource_version
                        failures, since = 0, self.patience.now()
                        if event.type != "BOOKMARK":
                            yield event.type, one
            except (httpx2.TransportError, msgspec.DecodeError) as error:
                problem = ApiError(f"WATCH {kind.path(namespace)}: {self.server}: {_words(error)}")
            except ApiError as error:
                if error.status == 410:
                    return
                if error.status not in _PASSING:
                    raise
                problem = error
            else:
                continue  # the server ended it in good order
            if self.patience.now() - since > self.patience.total:
                raise problem
            await self.patience.sleep(self.patience.wait(failures))
            failures += 1

    async def _call(
        self,
        method: str,
        path: str,
        document: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        final: frozenset[int] = frozenset(),
    ) -> bytes:
        body = msgspec.json.encode(document) if document is not None else None
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if body is not None else {})
        begin, attempt = self.patience.now(), 0
        while True:
            wait = self.patience.wait(attempt)
            try:
                response = await self.client.request(method, path, params=params, content=body, headers=headers)
            except httpx2.TransportError as error:
                problem = ApiError(f"{method} {path}: {self.server} cannot be reached: {_words(error)}")
            else:
                if response.is_success:
                    return response.content
                problem = _refusal(method, path, response)
                if response.status_code == 409 and method == "POST" and attempt > 0:
                    raise _MadeBefore from problem
                if response.status_code not in _PASSING or response.status_code in final:
                    raise problem
                wait = max(wait, _retry_after(response))
            if self.patience.now() - begin + wait > self.patience.total:
                raise problem
            await self.patience.sleep(wait)
            attempt += 1


class _MadeBefore(Exception):
    """A repeated POST met the object that the first one made."""


def _selectors(labels: str, fields: str) -> dict[str, str]:
    return ({"labelSelector": labels} if labels else {}) | ({"fieldSelector": fields} if fields else {})


def _decode(raw: bytes | msgspec.Raw, kind: Kind[_T]) -> _T:
    try:
        return msgspec.json.decode(raw, type=kind.read)
    except msgspec.DecodeError as error:
        raise ApiError(f"{kind.plural}: the server's answer is not understood: {error}") from error


def _refusal(method: str, path: str, response: httpx2.Response) -> ApiError:
    try:
        said = msgspec.json.decode(response.content, type=_Status).message
    except msgspec.DecodeError:
        said = response.text[:200].strip()
    hint = "; hitless drill --cluster --dry-run prints the rights that it needs" if response.status_code == 403 else ""
    return ApiError(
        f"{method} {path}: {response.status_code} {said or response.reason_phrase}{hint}", status=response.status_code
    )


def _retry_after(response: httpx2.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), 30.0) if text.isdigit() else 0.0


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
