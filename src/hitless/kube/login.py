"""Logs in with tokens, passwords and client certificates, and with the programs that provide them.

Problem: a drill may outlast its credential, and each source of a new one (a file that the kubelet renews, a login
program, a kubeconfig with a new login) can fail. Promise: a credential is fetched again after a 401 and after its
expiry time, and only then; once, however many requests wait for it; a failed renewal is retried like an unreachable
server. Login programs use client.authentication.k8s.io/v1 or v1beta1, are never asked to be interactive, and do not
outlive the call. Secrets are in no message. Next stage: ``access``.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx2
import msgspec

from hitless.errors import HitlessError, InputError
from hitless.kernel import processes
from hitless.kube.contexts import Certificate, Plugin
from hitless.kube.credentials import Credential

__all__ = ["Login", "from_plugin"]

_LOGIN_S = 200.0  # a login in a browser may be part of it: kubelogin waits for 180 s


class Login(httpx2.Auth):
    """Adds the credential to each request. ``present`` is called with a new client certificate."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Credential]],
        present: Callable[[Certificate | None], None],
        now: Credential | None,
    ) -> None:
        self._fetch = fetch
        self._present = present
        self._now = now
        self._asking = asyncio.Lock()

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        shown = await self._credential(None)
        self._show(shown, request)
        response = yield request
        if response.status_code != 401:
            return
        another = await self._credential(shown)
        if another != shown:
            self._show(another, request)
            yield request

    @staticmethod
    def _show(credential: Credential, request: httpx2.Request) -> None:
        if credential.authorization:
            request.headers["Authorization"] = credential.authorization

    async def _credential(self, refused: Credential | None) -> Credential:
        """The credential to use: another one than ``refused``, if there is one."""
        async with self._asking:
            if self._now is None or self._now.ended or self._now == refused:
                fresh = await self._another(self._now)
                if fresh.certificate != (self._now.certificate if self._now else None):
                    self._present(fresh.certificate)
                self._now = fresh
            return self._now

    async def _another(self, before: Credential | None) -> Credential:
        """A failure at the beginning is an error; later the drill may have caused it, and it is retried."""
        try:
            return await self._fetch()
        except InputError as error:
            if before is None:
                raise
            raise httpx2.TransportError(str(error)) from error


class _Status(msgspec.Struct, rename="camel"):
    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: datetime | None = None


class _Answer(msgspec.Struct):
    status: _Status = msgspec.field(default_factory=_Status)


async def from_plugin(plugin: Plugin, where: str) -> Credential:
    """What a login program gives (client.authentication.k8s.io/v1 and v1beta1)."""
    name = f"the login program {plugin.command}"
    try:
        status = msgspec.json.decode(await _run(plugin, name, where), type=_Answer).status
    except msgspec.DecodeError as error:
        raise InputError(f"{name} gave no credential: {error}", where=where) from error
    if bool(status.client_certificate_data) != bool(status.client_key_data):
        raise InputError(
            f"{name} gave half a certificate", where=where, expected="clientCertificateData, clientKeyData"
        )
    if not status.token and not status.client_certificate_data:
        expected = "status.token, or status.clientCertificateData and clientKeyData"
        raise InputError(f"{name} gave no token", where=where, expected=expected)
    certificate = None
    if status.client_certificate_data and status.client_key_data:
        certificate = (status.client_certificate_data.encode(), status.client_key_data.encode())
    ends = status.expiration_timestamp
    return Credential(
        f"Bearer {status.token}" if status.token else "",
        certificate,
        ends.replace(tzinfo=UTC) if ends is not None and ends.tzinfo is None else ends,
    )


async def _run(plugin: Plugin, name: str, where: str) -> bytes:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.cluster is not None:
        spec["cluster"] = plugin.cluster
    request = {"apiVersion": plugin.version, "kind": "ExecCredential", "spec": spec}
    environment = {**plugin.environment, "KUBERNETES_EXEC_INFO": msgspec.json.encode(request).decode()}
    try:
        process = await processes.start_async(
            [plugin.command, *plugin.arguments], environment=environment, new_session=True
        )
    except (OSError, HitlessError) as error:
        hint = f" ({plugin.hint})" if plugin.hint else ""
        raise InputError(f"{name} cannot be run: {error}{hint}", where=where) from error
    try:
        async with asyncio.timeout(_LOGIN_S):
            out, err = await process.communicate()
    except TimeoutError as error:
        raise InputError(f"{name} did not end within {_LOGIN_S:.0f} s", where=where) from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        lines = err.decode(errors="replace").strip().splitlines()
        last = lines[-1] if lines else "no message"
        raise InputError(f"{name} ended with {process.returncode}: {last}", where=where)
    return out
