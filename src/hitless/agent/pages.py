"""The agent's pages: /healthz, /readyz and /metrics. Next stage: ``hitless.daemon.server``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hitless.agent.health import Health
from hitless.daemon.exposition import CONTENT_TYPE
from hitless.daemon.logs import Log
from hitless.daemon.metrics import Metrics
from hitless.daemon.server import Page, Server, serving

__all__ = ["page", "serve"]


def page(path: str, health: Health, metrics: Metrics, now: float) -> Page:
    """The answer for a path."""
    if path == "/healthz":
        alive = health.alive(now)
        return Page(200 if alive else 503, "flanneld is running\n" if alive else "the loop does not turn\n")
    if path == "/readyz":
        reasons = health.reasons(now)
        body = {
            "ready": not reasons,
            "message": "flanneld is not ready yet" if reasons else "flanneld is ready",  # flannel's message
            "reasons": list(reasons),
            "fighting": list(health.fighting),
            "cannot_tell": list(health.cannot_tell(now)),
        }
        return Page(503 if reasons else 200, json.dumps(body) + "\n", "application/json")
    if path == "/metrics":
        metrics.set("hitless_agent_ready", 0.0 if health.reasons(now) else 1.0)
        return Page(200, metrics.render(), CONTENT_TYPE)
    return Page(404, "/healthz, /readyz, /metrics\n")


@contextmanager
def serve(address: str, port: int, health: Health, metrics: Metrics, log: Log) -> Iterator[Server]:
    """Listen while the block runs; raises ``InputError`` when the address cannot be used."""

    def say(text: str) -> None:
        log.notice("connections turned away", reason=text, where="--healthz-port")

    def answer(path: str) -> Page:
        metrics.set("hitless_agent_visitors_turned_away_total", server.turned_away)
        return page(path, health, metrics, time.monotonic())

    with serving(address, port, answer, where="--healthz-ip, --healthz-port", say=say) as server:
        yield server
