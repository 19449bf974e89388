"""/healthz, /readyz and /metrics over plain HTTP.

Promise: bounded requests, bounded time, no library; the answers are computed when they are asked for. It serves what
``Health`` and ``Metrics`` say and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time

from hitless.agent.health import Health
from hitless.agent.metrics import Metrics
from hitless.errors import InputError

__all__ = ["answer", "serve"]

_PATIENCE = 5.0
_LONGEST = 8192


def answer(path: str, health: Health, metrics: Metrics, now: float) -> tuple[int, str, str]:
    """Status, content type and body for a path."""
    if path == "/healthz":
        alive = health.alive(now)
        return (200 if alive else 503), "text/plain", "ok\n" if alive else "the loop does not turn\n"
    if path == "/readyz":
        reasons = health.reasons(now)
        body = {"ready": not reasons, "reasons": list(reasons), "fighting": list(health.fighting)}
        return (503 if reasons else 200), "application/json", json.dumps(body) + "\n"
    if path == "/metrics":
        metrics.set("hitless_agent_ready", 0.0 if health.reasons(now) else 1.0)
        return 200, "text/plain; version=0.0.4", metrics.render()
    return 404, "text/plain", "/healthz, /readyz, /metrics\n"


async def serve(address: str, port: int, health: Health, metrics: Metrics) -> asyncio.Server:
    """Listen; raises ``InputError`` when the address cannot be had."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                request = await reader.readuntil(b"\r\n\r\n")
                words = request.split(b"\r\n", 1)[0].decode("latin-1").split()
                path = words[1].partition("?")[0] if len(words) >= 2 else ""
                status, kind, body = answer(path, health, metrics, time.monotonic())
                data = body.encode()
                head = f"HTTP/1.1 {status} {'OK' if status == 200 else 'Not OK'}\r\nContent-Type: {kind}\r\n"
                writer.write(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode())
                if words[:1] != ["HEAD"]:
                    writer.write(data)
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a visitor that does not speak HTTP, or went away
        finally:
            writer.close()

    try:
        return await asyncio.start_server(handle, address, port, limit=_LONGEST)
    except OSError as error:
        raise InputError(
            f"cannot listen on {address} port {port}: {error.strerror or error}",
            where="--healthz-ip, --healthz-port",
            expected="an address of this node and a free port",
        ) from error
