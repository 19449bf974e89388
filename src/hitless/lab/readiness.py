"""Readiness probes of agents, as the kubelet's: by command, by HTTP, or by a file that the agent writes.

Promise: a probe succeeds or fails within a second; no response is a failure. Waiting and repeating is the supervisor's
part.
"""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path
from urllib.parse import urlsplit

from hitless.errors import HitlessError
from hitless.kernel import namespaces, processes
from hitless.kernel.namespaces import Namespace
from hitless.lab.agents import Readiness, split_command

__all__ = ["forget", "probe"]

_TIMEOUT = 1.0  # Kubernetes' default timeoutSeconds of a probe


def _file(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def forget(readiness: Readiness, root: Path) -> None:
    """Remove the file that an earlier run left, which would count as ready."""
    if readiness.kind == "file":
        _file(root, readiness.what).unlink(missing_ok=True)


async def probe(readiness: Readiness, namespace: Namespace, root: Path) -> bool:
    """Whether the agent is ready; ``root`` is the node's file system as seen from here."""
    match readiness.kind:
        case "started":
            return True
        case "file":
            return _file(root, readiness.what).exists()
        case "http":
            return await asyncio.to_thread(_http, readiness.what, namespace)
        case "exec":
            return await asyncio.to_thread(_exec, split_command(readiness.what, "--ready"), namespace)


def _http(address: str, namespace: Namespace) -> bool:
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or 80
    path = parts.path or "/"

    def get() -> int:
        connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT)
        try:
            connection.request("GET", path + (f"?{parts.query}" if parts.query else ""))
            return connection.getresponse().status
        finally:
            connection.close()

    try:
        return 200 <= namespaces.inside(namespace, get) < 400  # as the kubelet: redirects count as well
    except (OSError, http.client.HTTPException, HitlessError):
        return False


def _exec(command: tuple[str, ...], namespace: Namespace) -> bool:
    try:
        return processes.run(command, namespace=namespace, check=False, timeout=_TIMEOUT).returncode == 0
    except HitlessError:
        return False
