"""A small HTTP server for /healthz and /metrics that other clients cannot block.

Problem: the kubelet restarts a daemon whose /healthz does not answer, and every client that reaches the port can open
connections. Promise:

- One thread; at most ``VISITORS`` connections, fewer where this process may open few files, so that the daemon itself
  never runs out of descriptors. ``hitless.kernel.visitors`` chooses which connection is closed for a new one.
- A request has ``PATIENCE`` seconds from connecting to the last byte of the answer, and ``HEAD_LIMIT`` bytes. Only GET
  and HEAD; one request for each connection.
- A long page is rendered at most every ``FRESH`` seconds.
- While no descriptor is left, connections are accepted later, without a busy loop.
- Single connections are not logged: closed ones are counted, and reported to ``say`` at most once a minute.

The standard library's server has none of these bounds.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hitless.errors import InputError
from hitless.kernel.visitors import OUT_OF_ROOM, Visitors, raise_descriptor_limit, source_of

__all__ = ["HEAD_LIMIT", "PATIENCE", "VISITORS", "Page", "Server", "serving"]

VISITORS = 64
PATIENCE = 5.0
HEAD_LIMIT = 8192
FRESH = 0.1
_COSTLY = 1000  # characters; shorter pages are rendered each time
_LEAVING = 1.0  # seconds after the answer until the connection is reset, if the client does not close it
_DESCRIPTORS = 4096  # the soft limit is raised to this: the usual 1,024 is little with 64 connections
_BACKLOG = 1024
_BURST = 64  # accepts in a turn
_UNREAD = 16  # reads of unexpected data after the answer, before the connection is reset
_PAUSE = (
    0.005  # seconds after a full burst: 12,800 connections a second, and the daemon's other threads get time in between
)
_NO_ROOM = 0.25  # seconds until accept is tried again when there was no descriptor
_QUIET = 60.0  # seconds between two reports about closed connections
_REQUEST = re.compile(rb"(GET|HEAD) (?:http://[^/ ]*)?(/[!-~]*) HTTP/1\.[0-9]\r?\n")
_END = re.compile(rb"\r?\n\r?\n")
_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    text: str
    kind: str = "text/plain; charset=utf-8"


class _Visitor:
    __slots__ = ("answered", "heard", "sock", "unread", "until", "waiting")

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock = sock
        self.until = until
        self.heard = b""
        self.waiting = b""
        self.answered = False
        self.unread = 0


class Server:
    """One listening address. ``page`` renders a path, in this server's thread; an exception becomes a 500."""

    def __init__(
        self,
        listeners: list[socket.socket],
        page: Callable[[str], Page],
        *,
        say: Callable[[str], None] = lambda _: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        limit = raise_descriptor_limit(_DESCRIPTORS)
        most = max(4, min(VISITORS, limit // 8))
        self._page, self._say, self._now = page, say, monotonic
        self._visitors: Visitors[_Visitor] = Visitors(most, max(2, most // 2))
        self._by_fd: dict[int, _Visitor] = {}
        self._listeners = {sock.fileno(): sock for sock in listeners}
        self._pages: dict[str, tuple[float, Page]] = {}
        self._epoll = select.epoll()
        self._wake, self._waker = socket.socketpair()
        self._epoll.register(self._wake, select.EPOLLIN)
        for fd in self._listeners:
            self._epoll.register(fd, select.EPOLLIN)
        self._deaf_until: float | None = None
        self._reported_at = float("-inf")
        self._unreported = 0
        self.turned_away = 0
        """Connections that were closed for others, were too slow, or could not be accepted."""

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(next(iter(self._listeners.values())).getsockname()[1])

    def run(self) -> None:
        """Serve until ``stop``; for a thread of its own, which goes on after any error."""
        going = True
        while going:
            try:
                going = self._turn()
            except Exception as error:  # noqa: BLE001 - the thread's outermost handler: without it /healthz would never answer again
                for visitor in self._visitors:
                    self._end(visitor)
                self._unreported += 1
                self._report(self._now(), f"all connections were closed: {type(error).__name__}: {error}; ")
                time.sleep(_NO_ROOM)

    def stop(self) -> None:
        """End ``run``; from any thread."""
        with contextlib.suppress(OSError):
            self._waker.send(b"x")

    def close(self) -> None:
        """Close everything; after ``run`` has ended."""
        for visitor in self._visitors:
            self._end(visitor)
        for sock in (*self._listeners.values(), self._wake, self._waker):
            sock.close()
        self._epoll.close()

    # --- one turn ----------------------------------------------------------------------------------------------

    def _turn(self) -> bool:
        now = self._now()
        due = [visitor.until for visitor in self._visitors]
        due += [self._deaf_until] if self._deaf_until is not None else []
        events = self._epoll.poll(max(0.0, min(due) - now) if due else None)
        now = self._now()
        # connections that exist are served before new ones, for which they may have to be closed
        for fd, mask in sorted(events, key=lambda event: event[0] in self._listeners):
            if fd == self._wake.fileno():
                return False
            if fd in self._listeners:
                self._accept(self._listeners[fd], now)
            elif fd in self._by_fd:
                self._serve(self._by_fd[fd], mask, now)
        for visitor in self._visitors:
            if visitor.until <= now:
                self._turned_away(0 if visitor.answered else 1, now)
                self._end(visitor)
        if self._deaf_until is not None and self._deaf_until <= now:
            self._deaf_until = None
            for fd in self._listeners:
                self._epoll.register(fd, select.EPOLLIN)
        return True

    def _accept(self, listener: socket.socket, now: float) -> None:
        for _ in range(_BURST):
            try:
                sock, sender = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_ROOM and self._deaf_until is None:
                    self._turned_away(1, now)
                    self._deaf_until = now + _NO_ROOM
                    for fd in self._listeners:
                        self._epoll.unregister(fd)
                return  # else: that connection was gone before it was accepted
            sock.setblocking(False)
            visitor = _Visitor(sock, now + PATIENCE)
            leaving = self._visitors.admit(source_of(sender), visitor)
            if leaving is not None:
                self._turned_away(0 if leaving.answered else 1, now)
                self._end(leaving)
            self._by_fd[sock.fileno()] = visitor
            try:
                self._epoll.register(sock, select.EPOLLIN)
            except OSError:  # no memory, or no watches left
                self._turned_away(1, now)
                self._end(visitor)
                continue
            self._serve(visitor, select.EPOLLIN, now)  # the request may be there already
        time.sleep(_PAUSE)

    def _serve(self, visitor: _Visitor, mask: int, now: float) -> None:
        try:
            if visitor.answered:
                if visitor.waiting and mask & ~select.EPOLLIN:
                    self._send(visitor, now)
                else:
                    visitor.unread += 1
                    if not visitor.sock.recv(65536) or visitor.unread > _UNREAD:
                        self._end(visitor)
                return
            data = visitor.sock.recv(HEAD_LIMIT + 1)
            if not data:
                self._end(visitor)
                return
            visitor.heard += data
            answer = self._answer(visitor.heard)
            if answer is not None:
                visitor.heard, visitor.waiting, visitor.answered = b"", answer, True
                self._send(visitor, now)
        except BlockingIOError:
            return
        except OSError:  # the client went away
            self._end(visitor)

    def _send(self, visitor: _Visitor, now: float) -> None:
        sent = visitor.sock.send(visitor.waiting)
        visitor.waiting = visitor.waiting[sent:]
        if visitor.waiting:
            self._epoll.modify(visitor.sock, select.EPOLLOUT)
            return
        # closing while something is unread would reset the connection, and the answer with it
        visitor.sock.shutdown(socket.SHUT_WR)
        visitor.until = min(visitor.until, now + _LEAVING)
        self._epoll.modify(visitor.sock, select.EPOLLIN)

    def _end(self, visitor: _Visitor) -> None:
        self._visitors.forget(visitor)
        self._by_fd.pop(visitor.sock.fileno(), None)
        visitor.sock.close()  # epoll forgets it with that

    # --- answers -----------------------------------------------------------------------------------------------

    def _answer(self, heard: bytes) -> bytes | None:
        """The whole answer to a request, ``None`` while it may still come."""
        line = heard.lstrip(b"\r\n")[: HEAD_LIMIT + 1]
        if not _END.search(line):
            return _whole(Page(431, f"at most {HEAD_LIMIT} bytes\n")) if len(heard) > HEAD_LIMIT else None
        asked = _REQUEST.match(line)
        if asked is None:
            known = re.match(rb"[A-Z]+ /[!-~]* HTTP/1\.[0-9]\r?\n", line)
            return _whole(Page(405, "GET or HEAD\n") if known else Page(400, "this is not an HTTP request\n"))
        return _whole(self._made(asked[2].decode("ascii").partition("?")[0]), body=asked[1] == b"GET")

    def _made(self, path: str) -> Page:
        now = self._now()
        at, page = self._pages.get(path, (float("-inf"), None))
        if page is not None and now - at < FRESH:
            return page
        try:
            page = self._page(path)
        except Exception as error:  # noqa: BLE001 - a page that fails must not end the server: it is a 500
            page = Page(500, f"{type(error).__name__}\n")
        if len(page.text) > _COSTLY:
            self._pages[path] = (now, page)
        return page

    def _turned_away(self, number: int, now: float) -> None:
        self.turned_away += number
        self._unreported += number
        if self._unreported:
            self._report(now)

    def _report(self, now: float, why: str = "") -> None:
        if now - self._reported_at >= _QUIET:
            self._say(
                f"{why}{self._unreported} connections were too slow or too many: they were closed without an answer"
            )
            self._reported_at, self._unreported = now, 0


def _whole(page: Page, *, body: bool = True) -> bytes:
    data = page.text.encode("utf-8", "backslashreplace")
    head = (
        f"HTTP/1.1 {page.status} {_PHRASES.get(page.status, 'Answer')}\r\nContent-Type: {page.kind}\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + (data if body else b"")


def _listen(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    listeners: list[socket.socket] = []
    refused: OSError | None = None
    for family, kind, protocol, _, address in found:
        with contextlib.ExitStack() as undo:
            try:
                sock = undo.enter_context(socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:  # [::] answers IPv4 as well, as flanneld's does
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(len(found) > 1))
                sock.bind(address)
                sock.listen(_BACKLOG)
            except OSError as error:  # a name may resolve to an address of a family that this node lacks
                refused = error
            else:
                undo.pop_all()
                listeners.append(sock)
    if not listeners:
        raise refused or OSError("no address")
    return listeners


@contextmanager
def serving(
    host: str, port: int, page: Callable[[str], Page], *, where: str, say: Callable[[str], None] = lambda _: None
) -> Iterator[Server]:
    """Serve ``page`` while the block runs; raises ``InputError``, naming ``where``, when the address cannot be used."""
    try:
        listeners = _listen(host, port)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputError(
            f"cannot listen on {host or 'any address'} port {port}: {reason}",
            where=where,
            expected="an address of this node and a free port",
        ) from error
    server = Server(listeners, page, say=say)
    thread = threading.Thread(target=server.run, name="visitors", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        server.close()
