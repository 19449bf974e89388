"""/metrics and /healthz over HTTP, only when somebody asked for an address.

Promise: nothing listens by default; requests are answered one at a time in a thread of their own and cannot hold up the
guard. The standard library's server is imported only here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hitless.errors import InputError
from hitless.guard.metrics import render
from hitless.guard.reporting import Reporter

__all__ = ["serving"]

_PATIENCE = 5.0
_LATE = 30.0  # seconds; the loop turns every second


@contextmanager
def serving(address: str | None, reporter: Reporter) -> Iterator[int]:
    """Serve while the block runs; yields the port, 0 when nothing is served. Raises ``InputError``."""
    if not address:
        yield 0
        return
    import socket
    from http.server import BaseHTTPRequestHandler, HTTPServer

    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not port.isdigit() or int(port) > 65535:
        raise InputError(f"{address!r} names no port", where="--metrics", expected="ADDRESS:PORT, e.g. 127.0.0.1:9470")

    def answer(path: str) -> tuple[int, str]:
        if path == "/metrics":
            return 200, render(reporter)
        if path == "/healthz":
            late = time.monotonic() - reporter.turned
            return (200, "ok\n") if late < _LATE else (503, f"the guard's loop has not turned for {late:.0f} s\n")
        return 404, "/metrics, /healthz\n"

    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE

        def do_GET(self) -> None:
            code, body = answer(self.path.partition("?")[0])
            data = body.encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are no news."""

    class Server(HTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        server = Server((host, int(port)), Handler)
    except OSError as error:
        raise InputError(
            f"cannot listen on {address}: {error.strerror or error}", where="--metrics", expected="a free local port"
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
