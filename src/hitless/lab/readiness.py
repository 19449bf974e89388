"""Asking an agent whether it is ready, as the kubelet does: by command, by HTTP, or by a file that it writes.

Promise: a question is answered yes or no within a second; no answer is no. Nothing here waits or repeats: that is the
supervisor's.
"""

from __future__ import annotations

import asyncio
import http.client
from pathlib import Path
from urllib.parse import urlsplit

from hitless.errors import HitlessError
from hitless.kernel import namespaces, processes
from hitless.kernel.namespaces import Namespace
from hitless.lab.agents import Readiness, words

__all__ = ["ask", "forget"]

_ANSWER_WITHIN = 1.0  # Kubernetes' default timeoutSeconds of a probe


def _file(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def forget(readiness: Readiness, root: Path) -> None:
    """Remove what an earlier run left that would say "ready"."""
    if readiness.kind == "file":
        _file(root, readiness.what).unlink(missing_ok=True)


async def ask(readiness: Readiness, namespace: Namespace, root: Path) -> bool:
    """Whether the agent says that it is ready; ``root`` is the node's file system as seen from here."""
    match readiness.kind:
        case "started":
            return True
        case "file":
            return _file(root, readiness.what).exists()
        case "http":
            return await asyncio.to_thread(_http, readiness.what, namespace)
        case "exec":
            return await asyncio.to_thread(_exec, words(readiness.what, "--ready"), namespace)


def _http(address: str, namespace: Namespace) -> bool:
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or 80
    path = parts.path or "/"

    def get() -> int:
        connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_WITHIN)
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
        return processes.run(command, namespace=namespace, check=False, timeout=_ANSWER_WITHIN).returncode == 0
    except HitlessError:
        return False
