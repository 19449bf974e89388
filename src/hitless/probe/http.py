"""GET requests to a URL, as operators send them with curl: each on a new connection.

Problem: a working TCP handshake is not a web page, and the usual check of an egress path is a curl loop. Promise: an
attempt is connect, TLS if the URL is https, one GET, and the head of its answer, in the same loop and counted like the
other kinds. It is ok if an HTTP answer below 500 arrived (a proxy's 502 to 504 are failures), delayed if the SYN was
sent again. Certificates are verified unless ``insecure``; redirects are not followed. Connections to foreign servers
are closed in good order, after reading their answer up to a bound, so that their logs show no resets; those to our far
end are closed with a reset. Next stage: ``outcomes``.
"""

from __future__ import annotations

import errno
import re
import select
import socket
import ssl
import struct
from collections.abc import Callable

from hitless import __version__
from hitless.probe import wire
from hitless.probe.clients import ClientContext, KindClient
from hitless.probe.engine import Delay, Engine
from hitless.probe.flows import Lane, ProbeFlow
from hitless.probe.outcomes import Outcomes
from hitless.probe.tcp import syn_retries

__all__ = ["Http", "client", "read_head", "request"]

_HEAD_LIMIT = 65536
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")
_SERVER_ERROR = 500
_BODY_LIMIT = 65536
_BODY_NS = 1_000_000_000
"""How much of a body is read, and for how long, before the connection is reset."""
_NO_LINGER = struct.pack("ii", 0, 0)


def request(host: str, port: int, path: str, *, tls: bool) -> bytes:
    """The GET request for a path."""
    name = f"[{host}]" if ":" in host else host
    if port != (443 if tls else 80):
        name = f"{name}:{port}"
    head = f"GET {path or '/'} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: hitless/{__version__}\r\n"
    return f"{head}Accept: */*\r\nConnection: close\r\n\r\n".encode("ascii")


def read_head(data: bytes) -> tuple[int, bytes] | None:
    """Status and head of an answer; status 0 if it is not HTTP; ``None`` if the head is incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        wrong = len(data) > _HEAD_LIMIT or not (b"HTTP/1." + data[7:8]).startswith(data[:8])
        return (0, b"") if wrong else None
    match = _STATUS.match(data)
    return (int(match[1]) if match else 0, data[:end])


class Http:
    """Attempts of kind http."""

    def __init__(self, engine: Engine, outcomes: Outcomes, *, insecure: bool = False) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._timeouts: Delay[ProbeFlow] = engine.delay(outcomes.timeout_ns, self._expired)
        self._bounds: Delay[ProbeFlow] = engine.delay(_BODY_NS, self._close)
        self._lingering: dict[ProbeFlow, int] = {}  # answered connections, and how much of the body may still be read
        self._insecure = insecure
        self._context: ssl.SSLContext | None = None

    def start(self, lane: Lane, planned: int) -> None:
        """Begin an attempt; raises ``NoTuple``."""
        connecting = lane.connected(self._engine.clock, socket.SOCK_STREAM)
        flow = self._outcomes.connecting(lane, planned, connecting)
        if connecting.errno not in (0, errno.EINPROGRESS):
            self._outcomes.refused(flow, connecting.errno)
            connecting.sock.close()
            return
        self._engine.watch(connecting.sock.fileno(), select.EPOLLOUT, lambda _: self._step(flow, self._connected))
        self._timeouts.add(flow.begin - flow.slept, flow)

    def _step(self, flow: ProbeFlow, action: Callable[[ProbeFlow, socket.socket], None]) -> None:
        """Do the next step; an error of the socket ends the attempt."""
        assert flow.sock is not None
        try:
            action(flow, flow.sock)
        except ssl.SSLWantReadError:
            self._await(flow, select.EPOLLIN, action)
        except ssl.SSLWantWriteError:
            self._await(flow, select.EPOLLOUT, action)
        except BlockingIOError:
            return
        except ssl.SSLError as error:  # an OSError whose errno is OpenSSL's
            self._outcomes.failed(flow, f"TLS: {error.reason or error.strerror or error}")
            self._close(flow)
        except OSError as error:
            self._outcomes.refused(flow, error.errno or errno.EIO)
            self._close(flow)

    def _await(self, flow: ProbeFlow, mask: int, action: Callable[[ProbeFlow, socket.socket], None]) -> None:
        assert flow.sock is not None
        fd = flow.sock.fileno()
        self._engine.rewatch(fd, mask, lambda _: self._step(flow, action))

    def _connected(self, flow: ProbeFlow, sock: socket.socket) -> None:
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, "")
        target = flow.lane.endpoint.target
        if target.scheme != "https":
            self._ask(flow, sock)
            return
        flow.sock = self._tls().wrap_socket(sock, server_hostname=target.host, do_handshake_on_connect=False)
        self._step(flow, self._handshake)

    def _handshake(self, flow: ProbeFlow, sock: socket.socket) -> None:
        assert isinstance(sock, ssl.SSLSocket)
        sock.do_handshake()
        self._ask(flow, sock)

    def _ask(self, flow: ProbeFlow, sock: socket.socket) -> None:
        target = flow.lane.endpoint.target
        path, tls = target.path, target.scheme == "https"
        sock.send(request(target.host, flow.dport, path, tls=tls))  # a few hundred bytes: they fit into an empty buffer
        self._await(flow, select.EPOLLIN, self._read)

    def _read(self, flow: ProbeFlow, sock: socket.socket) -> None:
        while True:
            data = sock.recv(16384)
            flow.buffer += data
            head = read_head(flow.buffer)
            if head is not None:
                self._judge(flow, *head)
                return
            if not data:
                self._end(flow, "closed before its answer")
                return

    def _judge(self, flow: ProbeFlow, status: int, head: bytes) -> None:
        if status == 0:
            self._end(flow, f"no HTTP: {flow.buffer[:40]!r}")
        elif status >= _SERVER_ERROR:
            self._end(flow, f"HTTP {status}")
        else:
            assert flow.sock is not None
            flow.tries = 1 + syn_retries(flow.sock)
            self._outcomes.answered(
                flow, delayed=flow.tries > 1, seen=wire.http_seen(head) if flow.lane.endpoint.answers else None
            )
            self._linger(flow)

    def _end(self, flow: ProbeFlow, detail: str) -> None:
        self._outcomes.failed(flow, detail)
        self._linger(flow)

    def _linger(self, flow: ProbeFlow) -> None:
        if flow.lane.endpoint.answers:
            self._close(flow)
            return
        flow.buffer = b""
        self._lingering[flow] = _BODY_LIMIT
        self._bounds.add(self._engine.awake, flow)
        self._await(flow, select.EPOLLIN, self._drain)
        self._step(flow, self._drain)  # with TLS, epoll does not report data that is decrypted already

    def _drain(self, flow: ProbeFlow, sock: socket.socket) -> None:
        while data := sock.recv(16384):
            self._lingering[flow] -= len(data)
            if self._lingering[flow] < 0:
                self._close(flow)
                return
        # the server has closed first and keeps the TIME_WAIT: no reset is needed
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._close(flow)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            if self._insecure:
                self._context.check_hostname = False
                self._context.verify_mode = ssl.CERT_NONE
        return self._context

    def _expired(self, flow: ProbeFlow) -> None:
        if not flow.ended:
            self._outcomes.silent(flow, knock=False)
            self._close(flow)

    def knock(self, flow: ProbeFlow) -> None:
        """Nothing: lost GETs do not knock."""

    def give_up(self, flow: ProbeFlow) -> None:
        """Nothing: lost GETs do not knock."""

    @property
    def lingering(self) -> int:
        """How many connections wait for the server to close."""
        return len(self._lingering)

    def close(self) -> None:
        """Close the connections that are lingering."""
        for flow in list(self._lingering):
            self._close(flow)

    def _close(self, flow: ProbeFlow) -> None:
        self._lingering.pop(flow, None)
        if flow.sock is not None:
            self._engine.forget(flow.sock.fileno())
            flow.sock.close()
            flow.sock = None
            flow.buffer = b""


def client(context: ClientContext) -> KindClient:
    """The client of kind http."""
    http = Http(context.engine, context.outcomes, insecure=context.insecure)
    context.lingering.append(lambda: http.lingering)
    context.closing.callback(http.close)
    return http
