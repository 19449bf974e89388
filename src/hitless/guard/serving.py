"""The guard's /metrics and /healthz, only where an address was configured.

``hitless.daemon.server`` says it to visitors, in a thread of its own that cannot hold up the guard.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from hitless.daemon import server as visitors
from hitless.daemon.exposition import CONTENT_TYPE
from hitless.daemon.logs import Log
from hitless.daemon.server import Page
from hitless.errors import InputError
from hitless.guard.metrics import render
from hitless.guard.reporting import Reporter
from hitless.guard.status import protects
from hitless.model.reading import whole_of

__all__ = ["serving"]

_LATE = 30.0  # seconds; the loop turns every second


@contextmanager
def serving(address: str | None, reporter: Reporter, log: Log | None = None) -> Iterator[int]:
    """Serve while the block runs; yields the port, 0 when nothing is served. Raises ``InputError``."""
    if not address:
        yield 0
        return
    host, _, port = address.rpartition(":")
    number = whole_of(port)
    if number is None or number > 65535:
        raise InputError(f"{address!r} names no port", where="--metrics", expected="ADDRESS:PORT, e.g. 127.0.0.1:9470")

    def page(path: str) -> Page:
        if path == "/metrics":
            return Page(200, render(reporter, server.turned_away), CONTENT_TYPE)
        if path == "/healthz":
            late = time.monotonic() - reporter.turned
            ok = late < _LATE
            return Page(200 if ok else 503, "ok\n" if ok else f"the guard's loop has not turned for {late:.0f} s\n")
        if path == "/readyz":
            ready = _ready(reporter)
            return Page(200 if ready else 503, "ok\n" if ready else "not every pod network is protected; see status\n")
        return Page(404, "/metrics, /healthz, /readyz\n")

    def say(text: str) -> None:
        if log is not None:
            log.notice("connections turned away", reason=text, where="--metrics")

    with visitors.serving(host.strip("[]") or "0.0.0.0", number, page, where="--metrics", say=say) as server:
        yield server.port


def _ready(reporter: Reporter) -> bool:
    """As ``hitless guard status``; one that only observes is ready once it works."""
    facts = reporter.status
    families = facts.get("families")
    if reporter.problem or not isinstance(families, dict):
        return False
    return facts.get("mode") == "observe" or protects(families, ours=True)
