"""The way to an API server: which one, and by what right.

Problem: a drill may outlast a token, and the ways to get one (a file that the kubelet renews, a program, a kubeconfig
that somebody logs into again) fail in ways of their own. Promise: the kubeconfig and TLS are read by lightkube; a token
is asked for anew when the server says 401, and only then; what cannot be read or run is an ``InputError`` that names
the kubeconfig. Nothing is written, and no secret is ever in a message. Next stage: ``api``.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hitless.errors import HitlessError, InputError, MissingError
from hitless.kernel import processes

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

__all__ = ["Access", "access", "httpx2"]

_TIMEOUT = 15.0  # for an answer to begin; what streams has bounds of its own

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


@dataclass(frozen=True, slots=True)
class Access:
    """A client for the server, the server's address, and the context's own namespace."""

    client: httpx2.AsyncClient
    server: str
    namespace: str


class _Bearer(httpx2.Auth):
    """A token that is asked for again after a 401."""

    def __init__(self, fetch: Callable[[], Awaitable[str]]) -> None:
        self._fetch = fetch
        self._token = ""

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        if not self._token:
            self._token = await self._fetch()
        used = self._token
        request.headers["Authorization"] = f"Bearer {used}"
        response = yield request
        if response.status_code != 401:
            return
        if self._token == used:  # else another request has renewed it meanwhile
            self._token = await self._fetch()
        if self._token != used:
            request.headers["Authorization"] = f"Bearer {self._token}"
            yield request


def access(kubeconfig: Path | None, context: str | None) -> Access:
    """The way that the kubeconfig names, else the first of KUBECONFIG, this pod's account and ~/.kube/config."""
    where = str(kubeconfig) if kubeconfig is not None else "kubeconfig"
    expected = "a kubeconfig that names a cluster and a user"

    def single() -> Any:
        try:
            config = _config(kubeconfig, context)
            found = config.get(context)
            if found is None:
                raise ConfigError("no current context is set")
        except _BAD_CONFIG as error:
            raise InputError(_what_is_wrong(error), where=where, expected=expected) from error
        return found

    now = single()
    adapter: Any = client_adapter  # untyped in lightkube
    try:
        user = now.user or adapter.User()
        verify = adapter.verify_cluster(now.cluster, user, now.abs_file)
        if user.auth_provider and not (user.token or user.exec):
            raise ConfigError("auth-provider is not supported since Kubernetes 1.26: use an exec plugin or a token")
        # Python 3.13 asks for RFC 5280 to the letter; clusters give less, and no other client of theirs asks for it.
        if isinstance(verify, ssl.SSLContext):
            verify.verify_flags &= ~ssl.VERIFY_X509_STRICT
        # A drill of 20 nodes holds 40 streams open: no limit on connections but the cluster's own size.
        transport = httpx2.AsyncHTTPTransport(verify=verify, limits=httpx2.Limits(max_connections=None))
        auth = _auth(user, single, where)
        client = httpx2.AsyncClient(
            base_url=now.cluster.server,
            auth=auth,
            transport=transport,
            timeout=httpx2.Timeout(_TIMEOUT),
            event_hooks={"response": [_read_refusal]},
        )
    except (*_BAD_CONFIG, httpx2.InvalidURL) as error:
        raise InputError(_what_is_wrong(error), where=where, expected=expected) from error
    return Access(client, now.cluster.server, now.namespace)


def _config(kubeconfig: Path | None, context: str | None) -> KubeConfig:
    """As kubectl: KUBECONFIG may name several files, of which the first word on a thing counts."""
    named = [Path(one).expanduser() for one in os.environ.get("KUBECONFIG", "").split(os.pathsep) if one]
    if kubeconfig is not None:
        named = [kubeconfig]
    if not named:
        try:
            return KubeConfig.from_service_account()
        except ConfigError:
            return KubeConfig.from_file(Path(os.environ.get("HOME", "/")) / ".kube/config")
    parts = [KubeConfig.from_file(one) for one in named if len(named) == 1 or one.is_file()]
    if not parts:
        raise ConfigError(f"none of {', '.join(map(str, named))} is there")
    clusters: dict[str, Any] = {}
    users: dict[str, Any] = {}
    contexts: dict[str, Any] = {}
    for part in reversed(parts):
        clusters |= part.clusters
        users |= part.users
        contexts |= part.contexts
    current = context or next((part.current_context for part in parts if part.current_context), None)
    cluster = contexts[current].cluster if current in contexts else ""
    # paths in a file are relative to it: the files of a cluster and of its user are taken to be the same one
    place = next((part.fname for part in parts if cluster in part.clusters), parts[0].fname)
    return KubeConfig(clusters=clusters, users=users, contexts=contexts, current_context=current, fname=place)


def _what_is_wrong(error: Exception) -> str:
    """In one line, and not in Python's words: YAML's errors have several, a missing part is a KeyError."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0]}"
    if isinstance(error, (AttributeError, TypeError)):
        return "it is no kubeconfig"
    return " ".join(str(error).split())


async def _read_refusal(response: httpx2.Response) -> None:
    """The body of a refusal says why; a websocket that was refused would be closed before anybody reads it."""
    if response.is_error:
        await response.aread()


def _text(path: Path) -> str:
    return path.read_text().strip()


def _auth(user: Any, again: Callable[[], Any], where: str) -> httpx2.Auth | None:
    if user.token_file is not None:
        path = Path(user.token_file)

        async def from_file() -> str:
            try:
                return _text(path)
            except OSError as error:
                raise InputError(f"the token file {path} cannot be read: {error.strerror}", where=where) from error

        return _Bearer(from_file)
    if user.token is not None:

        async def from_config() -> str:
            return str(again().user.token or "")  # somebody may have logged in again

        return _Bearer(from_config)
    if user.exec:
        return _Bearer(lambda: _login(user.exec, where))
    return httpx2.BasicAuth(user.username, user.password) if user.username and user.password else None


class _Credential(msgspec.Struct):
    class Status(msgspec.Struct):
        token: str = ""

    status: Status = msgspec.field(default_factory=Status)


async def _login(plugin: Any, where: str) -> str:
    """A token from an exec plugin (client.authentication.k8s.io/v1 and v1beta1)."""
    version = plugin.apiVersion
    if version not in ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"):
        raise InputError(f"exec plugins of {version} are not known", where=where, expected="v1 or v1beta1")
    told = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    environment = {"KUBERNETES_EXEC_INFO": msgspec.json.encode(told).decode()}
    environment |= {one.name: one.value for one in plugin.env or []}
    try:
        process = await processes.start_async([plugin.command, *(plugin.args or [])], environment=environment)
    except (OSError, HitlessError) as error:
        raise InputError(f"the login program {plugin.command} cannot be run: {error}", where=where) from error
    out, err = await process.communicate()
    words = err.decode(errors="replace").strip().splitlines()
    if process.returncode != 0:
        said = words[-1] if words else "no message"
        raise InputError(f"the login program {plugin.command} ended with {process.returncode}: {said}", where=where)
    try:
        token = msgspec.json.decode(out, type=_Credential).status.token
    except msgspec.DecodeError as error:
        raise InputError(f"the login program {plugin.command} gave no credential: {error}", where=where) from error
    if not token:
        raise InputError(f"the login program {plugin.command} gave no token", where=where, expected="status.token")
    return token
