"""The connection that a kubeconfig's context describes: server, proxy, server name, user.

Problem: ignoring a field is worse than refusing it: without ``as`` a drill acts with more permissions than it was
given, without ``proxy-url`` or ``tls-server-name`` it talks to the wrong server or to none. Promise: what kubectl
refuses as contradictory is refused too; so is a cluster without a server (kubectl takes localhost:8080). Fields that
change neither the server nor the user are ignored, as kubectl does. No secret is in a message. Nothing is written, no
program is run (``login`` does that), no connection made. Next stage: ``access``.
"""

from __future__ import annotations

import base64
import binascii
import os
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from hitless.errors import InputError
from hitless.kernel import files
from hitless.kube import proxies, urls
from hitless.kube.kubeconfig import EXPECTED, Kubeconfig, KubeconfigEntry, merged, named_by_environment

__all__ = ["Certificate", "Connection", "KubeconfigCluster", "Plugin", "account", "read"]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the kubelet puts a pod's own account: ``token``, ``ca.crt`` and ``namespace``."""

Certificate = tuple[bytes, bytes]
"""A chain and its key, PEM."""

_T = TypeVar("_T", bound=msgspec.Struct)

_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
_EXEC_EXTENSION = "client.authentication.k8s.io/exec"  # the extension of a cluster that is passed to its exec plugin
_TOKEN_BYTES = frozenset((string.ascii_letters + string.digits + "!#$&'*+-.^_`|~").encode())  # RFC 9110, less "%"


@dataclass(frozen=True, slots=True)
class KubeconfigCluster:
    """A server and how its certificate is checked (``authority`` is PEM); empty where the kubeconfig has nothing."""

    server: str
    authority: bytes = field(default=b"", repr=False)
    insecure: bool = False
    server_name: str = ""
    proxy: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A login program; ``cluster`` is passed to it, None without provideClusterInfo."""

    version: str
    command: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    hint: str
    cluster: Mapping[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """A context's connection. ``plugin`` is None when another credential, which takes precedence, is given.

    ``impersonation``: headers to act as another user; ``cluster_name``: the cluster's name in the kubeconfig.
    """

    where: str
    context: str | None
    namespace: str
    cluster: KubeconfigCluster
    user: str
    impersonation: tuple[tuple[str, bytes], ...] = ()
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    password: tuple[str, str] | None = field(default=None, repr=False)
    certificate: Certificate | None = field(default=None, repr=False)
    plugin: Plugin | None = None
    cluster_name: str = ""


class _Extension(msgspec.Struct):
    name: str = ""
    extension: Any = None


class _Cluster(msgspec.Struct, rename="kebab"):
    server: str = ""
    certificate_authority: str = ""
    certificate_authority_data: str = ""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    proxy_url: str = ""
    disable_compression: bool = False
    extensions: list[_Extension] = []


class _Variable(msgspec.Struct):
    name: str
    value: str = ""


class _Exec(msgspec.Struct, rename="camel"):
    command: str
    api_version: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    install_hint: str | None = None
    interactive_mode: str | None = None
    provide_cluster_info: bool | None = None


class _User(msgspec.Struct, rename="kebab"):
    client_certificate: str = ""
    client_certificate_data: str = ""
    client_key: str = ""
    client_key_data: str = ""
    token: str = ""
    token_file: str = msgspec.field(name="tokenFile", default="")
    username: str = ""
    password: str = ""
    as_: str = msgspec.field(name="as", default="")
    as_uid: str = ""
    as_groups: list[str] = []
    as_user_extra: dict[str, list[str] | None] = {}
    auth_provider: Any = None
    exec: _Exec | None = None


class _Context(msgspec.Struct):
    cluster: str = ""
    user: str = ""
    namespace: str = ""


def read(kubeconfig: Path | None, context: str | None) -> Connection:
    """The connection of this kubeconfig, else of the first of KUBECONFIG, this pod's account and ~/.kube/config."""
    files = [kubeconfig.expanduser()] if kubeconfig is not None else named_by_environment()
    if not files:
        own = account(os.environ) if context is None else None
        if own is not None:
            return own
        files = [Path(os.environ.get("HOME", "/")) / ".kube/config"]
    config = merged(files)
    chosen = context or config.current
    if not chosen:
        raise InputError("no current context is set", where=config.where, expected="current-context, or --context")
    return _chosen(config, chosen)


def account(environment: Mapping[str, str], server: str = "", folder: Path | None = None) -> Connection | None:
    """The service account of our own pod, for ``server`` where one is given; None without an account."""
    where, folder = "this pod's service account", folder or ACCOUNT
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not server and host and port:
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    token, namespace = folder / "token", folder / "namespace"
    if not server or not token.exists():
        return None
    authority = _content(str(folder / "ca.crt"), where) if server.startswith("https") else b""
    inside = _bytes(str(namespace), where).decode(errors="replace").strip() if namespace.exists() else ""
    return Connection(where, None, inside, KubeconfigCluster(server, authority), "", token_file=token)


def _chosen(config: Kubeconfig, context: str) -> Connection:
    where = config.where
    if context not in config.contexts:
        known = ", ".join(sorted(config.contexts)) or "none"
        raise InputError(f"it has no context {context!r}", where=where, expected=f"one of its contexts ({known})")
    chosen = _struct(config.contexts[context], _Context, f"context {context}")
    if chosen.cluster not in config.clusters:
        raise InputError(f"it has no cluster {chosen.cluster!r}", where=where, expected=f"that of context {context}")
    if chosen.user and chosen.user not in config.users:
        raise InputError(f"it has no user {chosen.user!r}", where=where, expected=f"that of context {context}")
    of_cluster = config.clusters[chosen.cluster]
    given_cluster = _struct(of_cluster, _Cluster, f"cluster {chosen.cluster}")
    of_user = config.users[chosen.user] if chosen.user else KubeconfigEntry(where, {})
    user = _struct(of_user, _User, f"user {chosen.user}")
    part = f"{of_user.where}: user {chosen.user}"
    _check_user(user, part)
    certificate = _certificate(user, part)
    tls = bool(
        given_cluster.certificate_authority
        or given_cluster.certificate_authority_data
        or given_cluster.insecure_skip_tls_verify
    )
    cluster, of_server = _cluster(
        given_cluster, tls or certificate is not None, f"{of_cluster.where}: cluster {chosen.cluster}"
    )
    password = (user.username, user.password) if user.username else None
    if password is None and not (user.token or user.token_file or user.exec):
        password = of_server
    plugin = None
    if user.exec is not None and not (user.token or user.token_file or password or certificate):
        plugin = _plugin(user.exec, given_cluster, cluster, part)
    return Connection(
        where,
        context,
        chosen.namespace or "default",
        cluster,
        chosen.user,
        _impersonation(user, part),
        user.token,
        Path(user.token_file) if user.token_file else None,
        password,
        certificate,
        plugin,
        chosen.cluster,
    )


def _struct(entry: KubeconfigEntry, kind: type[_T], what: str) -> _T:
    try:
        return msgspec.convert(entry.body, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{what}: {error}", where=entry.where, expected=EXPECTED) from None


def _cluster(given: _Cluster, tls: bool, where: str) -> tuple[KubeconfigCluster, tuple[str, str] | None]:
    """The cluster, and the name and password of its server's URL."""
    if not given.server:
        raise InputError("it has no server", where=where, expected="server: https://HOST:PORT")
    _one_of(where, certificate_authority=given.certificate_authority, its_data=given.certificate_authority_data)
    if given.insecure_skip_tls_verify and (given.certificate_authority or given.certificate_authority_data):
        raise InputError("insecure-skip-tls-verify with a certificate authority", where=where, expected="one of them")
    authority = _given(
        given.certificate_authority, given.certificate_authority_data, "certificate-authority-data", where
    )
    text = given.server if "://" in given.server else f"{'https' if tls else 'http'}://{given.server}"
    expected = "server: https://HOST:PORT"
    try:
        url = urls.parsed(text)
    except ValueError:
        raise InputError("its server is not a URL", where=where, expected=expected) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError("its server is not a URL of a server", where=where, expected=expected)
    cluster = KubeconfigCluster(
        url.shown,
        authority,
        given.insecure_skip_tls_verify,
        given.tls_server_name,
        proxies.proxy(given.proxy_url, f"{where}: proxy-url") if given.proxy_url else "",
    )
    return cluster, url.user


def _check_user(user: _User, where: str) -> None:
    """Refuse contradicting fields, and login methods that no longer exist."""
    token = user.token or user.token_file
    _one_of(where, token=token, username=user.username or user.password)
    _one_of(where, client_certificate=user.client_certificate, its_data=user.client_certificate_data)
    _one_of(where, client_key=user.client_key, its_data=user.client_key_data)
    if user.auth_provider and not (token or user.username):
        raise InputError(
            "auth-provider is not known: kubectl itself knows none but oidc since Kubernetes 1.26",
            where=where,
            expected="an exec plugin or a token",
        )
    if (user.as_uid or user.as_groups or user.as_user_extra) and not user.as_:
        raise InputError("as-uid, as-groups or as-user-extra without as", where=where, expected="as: USER")


def _one_of(where: str, **given: str) -> None:
    if all(given.values()):
        names = " and ".join(name.replace("_", "-") for name in given)
        raise InputError(f"{names} are both given", where=where, expected="one of them")


def _certificate(user: _User, where: str) -> Certificate | None:
    chain = _given(user.client_certificate, user.client_certificate_data, "client-certificate-data", where)
    if not chain:
        return None
    key = _given(user.client_key, user.client_key_data, "client-key-data", where)
    if not key:
        raise InputError("a client certificate without its key", where=where, expected="client-key or client-key-data")
    return chain, key


def _given(file: str, data: str, name: str, where: str) -> bytes:
    if data:
        return _decoded(data, name, where)
    return _content(file, where) if file else b""


def _content(file: str, where: str) -> bytes:
    """A file's content; an empty authority is refused, because the machine's own would be used in its place."""
    found = _bytes(file, where)
    if not found.strip():
        raise InputError(f"{file} is empty", where=where, expected="a certificate or a key in PEM")
    return found


def _decoded(data: str, name: str, where: str) -> bytes:
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{name} is not base64", where=where) from None


def _bytes(file: str, where: str) -> bytes:
    try:
        return files.read(Path(file))
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        why = error.strerror if isinstance(error, OSError) else "it is not a file name"
        raise InputError(f"{file} cannot be read: {why}", where=where) from error


def _impersonation(user: _User, where: str) -> tuple[tuple[str, bytes], ...]:
    """The impersonation headers."""
    if not user.as_:
        return ()
    headers = [("Impersonate-User", user.as_)]
    headers += [("Impersonate-Uid", user.as_uid)] if user.as_uid else []
    headers += [("Impersonate-Group", one) for one in user.as_groups]
    for key, values in user.as_user_extra.items():
        headers += [(f"Impersonate-Extra-{_escaped(key)}", one) for one in values or []]
    if any(ord(letter) < 32 or ord(letter) == 127 for _, value in headers for letter in value):
        raise InputError("as, as-uid, as-groups or as-user-extra holds a control character", where=where)
    return tuple((name, value.encode()) for name, value in headers)


def _escaped(key: str) -> str:
    """A key as part of a header's name: the server undoes what is percent-encoded."""
    return "".join(chr(byte) if byte in _TOKEN_BYTES else f"%{byte:02X}" for byte in key.encode())


def _plugin(given: _Exec, raw: _Cluster, cluster: KubeconfigCluster, where: str) -> Plugin:
    if given.api_version not in _VERSIONS:
        raise InputError(f"exec plugins of {given.api_version} are not known", where=where, expected="v1 or v1beta1")
    if given.interactive_mode == "Always":
        raise InputError(
            f"the login program {given.command} wants to ask the user (interactiveMode: Always)",
            where=where,
            expected="IfAvailable or Never; or log in before, and give the token or certificate",
        )
    if given.interactive_mode not in (None, "", "Never", "IfAvailable"):
        raise InputError("its exec has an unknown interactiveMode", where=where, expected="Never or IfAvailable")
    return Plugin(
        given.api_version,
        given.command,
        tuple(given.args or ()),
        {one.name: one.value for one in given.env or []},
        " ".join((given.install_hint or "").split()),
        _cluster_info(raw, cluster) if given.provide_cluster_info else None,
    )


def _cluster_info(raw: _Cluster, cluster: KubeconfigCluster) -> dict[str, Any]:
    """``spec.cluster`` of an ExecCredential: the cluster as the program may use it itself."""
    info: dict[str, Any] = {
        "server": cluster.server,
        "tls-server-name": cluster.server_name,
        "insecure-skip-tls-verify": cluster.insecure,
        "certificate-authority-data": base64.b64encode(cluster.authority).decode(),
        "proxy-url": cluster.proxy,
        "disable-compression": raw.disable_compression,
    }
    info = {key: value for key, value in info.items() if value}
    config = next((one.extension for one in raw.extensions if one.name == _EXEC_EXTENSION), None)
    return {**info, "config": config}
