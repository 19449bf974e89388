"""What each adapter repeats, and that it leaves the connections of before: servers on loopback, gaps made by hand."""

from __future__ import annotations

import asyncio
import http.server
import socket
import ssl
import threading
from asyncio import selector_events
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import httpx
import pytest
import requests
import urllib3

from hitless import retry
from hitless.retry.gaps import while_connecting


class Server(http.server.ThreadingHTTPServer):
    """Answers with the client's port; ``asked`` has a method and port for each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, int]] = []
        self.go = threading.Event()
        """Until then /held has half an answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.client_address[1]))
        if self.path == "/there":
            self.send_response(302)
            self.send_header("Location", "/")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = str(self.client_address[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:1])
        if self.path == "/held":
            self.server.go.wait(60)
        self.wfile.write(body[1:])

    do_GET = do_POST = do_PUT = answer

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


class Gap:
    """Connections that are made while ``left`` is above 0 time out."""

    def __init__(self) -> None:
        self.left = 0

    def meets(self) -> bool:
        self.left -= 1
        return self.left >= 0


@pytest.fixture
def gap(monkeypatch: pytest.MonkeyPatch) -> Gap:
    """In every library's own way of connecting."""
    made = Gap()

    class Socket(socket.socket):
        def connect(self, address: Any) -> None:
            if self.family == socket.AF_INET and made.meets():
                raise TimeoutError("timed out")
            super().connect(address)

    monkeypatch.setattr(socket, "socket", Socket)
    original = selector_events.BaseSelectorEventLoop.sock_connect

    async def sock_connect(loop: Any, sock: socket.socket, address: Any) -> None:
        if sock.family == socket.AF_INET and made.meets():
            raise TimeoutError("timed out")
        await original(loop, sock, address)

    monkeypatch.setattr(selector_events.BaseSelectorEventLoop, "sock_connect", sock_connect)
    return made


def quick(**more: Any) -> retry.Policy:
    return retry.Policy(wait_initial=0.001, wait_max=0.001, budget=None, hooks=(), **more)


Ask = Callable[[retry.Policy, str, str, Any], int]
"""Policy, method, URL, body -> status, or the library's own error."""


def by_httpx(policy: retry.Policy, method: str, url: str, body: Any) -> int:
    with httpx.Client(transport=retry.httpx_transport(policy)) as client:
        return client.request(method, url, content=body).status_code


def by_requests(policy: retry.Policy, method: str, url: str, body: Any) -> int:
    with retry.requests_session(policy) as session:
        return session.request(method, url, data=body).status_code


def by_urllib3(policy: retry.Policy, method: str, url: str, body: Any) -> int:
    with retry.urllib3_pool(policy) as pool:
        return pool.request(method, url, body=body).status


def by_aiohttp(policy: retry.Policy, method: str, url: str, body: Any) -> int:
    async def ask() -> int:
        async with retry.aiohttp_session(policy) as session, session.request(method, url, data=body) as response:
            await response.read()
            return response.status

    return asyncio.run(ask())


ASKS = {"httpx": by_httpx, "requests": by_requests, "urllib3": by_urllib3, "aiohttp": by_aiohttp}
ERRORS = (httpx.ConnectTimeout, requests.ConnectionError, urllib3.exceptions.HTTPError, aiohttp.ClientError, OSError)


@pytest.mark.parametrize("name", ASKS)
def test_a_request_that_may_be_repeated_is(name: str, server: Server, gap: Gap) -> None:
    for method in ("GET", "PUT"):
        gap.left = 3
        assert ASKS[name](quick(), method, server.url, b"body" if method == "PUT" else None) == 200
    assert [method for method, _ in server.asked] == ["GET", "PUT"]


@pytest.mark.parametrize("name", ASKS)
def test_a_post_is_sent_once_unless_the_policy_says_more(name: str, server: Server, gap: Gap) -> None:
    gap.left = 1
    with pytest.raises(ERRORS):
        ASKS[name](quick(), "POST", server.url, b"pay")
    assert server.asked == []
    for policy in (quick(unsent=True), quick(methods=retry.IDEMPOTENT | {"post"})):
        gap.left = 2
        assert ASKS[name](policy, "POST", server.url, b"pay") == 200
    assert [method for method, _ in server.asked] == ["POST", "POST"]


@pytest.mark.parametrize("name", ASKS)
def test_a_body_that_can_be_read_once_is_sent_once(name: str, server: Server, gap: Gap) -> None:
    def parts() -> Iterator[bytes]:
        yield b"a"

    async def async_parts() -> Any:
        yield b"a"

    gap.left = 1
    with pytest.raises(ERRORS):
        ASKS[name](quick(), "PUT", server.url, async_parts() if name == "aiohttp" else parts())
    assert server.asked == []


@pytest.mark.parametrize("name", ASKS)
def test_redirects_are_followed_as_the_library_does_it(name: str, server: Server, gap: Gap) -> None:
    gap.left = 1
    status = ASKS[name](quick(), "GET", f"{server.url}there", None)
    assert status == (302 if name == "httpx" else 200)


@pytest.mark.parametrize("name", ASKS)
def test_what_is_no_gap_is_the_librarys_own_error_at_once(name: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/"
        with pytest.raises((httpx.ConnectError, *ERRORS)) as caught:
            ASKS[name](quick(deadline=60.0), "GET", url, None)
    assert retry.classify(caught.value) is None


def test_httpx_leaves_its_pool_and_what_is_read_through_it_is_read_to_its_end(server: Server, gap: Gap) -> None:
    with httpx.Client(transport=retry.httpx_transport(quick())) as client:
        first = client.get(server.url).text
        assert client.get(server.url).text == first  # one connection, kept
        with client.stream("GET", server.url) as read:
            gap.left = 1  # a second connection is needed beside the one that is read
            other = client.get(server.url).text
            assert read.read().decode() == first
        assert other != first and client.get(server.url).text == other


def test_aiohttp_leaves_its_connector(server: Server, gap: Gap) -> None:
    async def ask() -> tuple[str, str, str]:
        async with retry.aiohttp_session(quick()) as session:
            async with session.get(f"{server.url}held") as one:
                gap.left = 1
                async with session.get(server.url) as two:
                    second = await two.text()
                server.go.set()
                first = await one.text()
            async with session.get(server.url) as three:
                return first, second, await three.text()

    first, second, third = asyncio.run(ask())
    assert first != second == third


def test_requests_empties_its_pools(server: Server, gap: Gap) -> None:
    with retry.requests_session(quick()) as session:
        first = session.get(server.url).text
        assert session.get(server.url).text == first
        with session.get(server.url, stream=True):
            gap.left = 1
            assert session.get(server.url).text != first


@pytest.mark.parametrize("name", ["create_connection", "open_connection", "urllib3_pool", "aiohttp"])
def test_a_fixed_source_port_is_refused(name: str) -> None:
    async def aio() -> None:
        retry.aiohttp_session(connector=connector)

    def connector() -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(local_addr=("127.0.0.1", 4711))

    calls: dict[str, Callable[[], object]] = {
        "create_connection": lambda: retry.create_connection(("127.0.0.1", 1), source_address=("", 4711)),
        "open_connection": lambda: asyncio.run(retry.open_connection("127.0.0.1", 1, local_addr=("", 4711))),
        "urllib3_pool": lambda: retry.urllib3_pool(source_address=("", 4711)),
        "aiohttp": lambda: asyncio.run(aio()),
    }
    with pytest.raises(ValueError, match="source port 4711 is fixed"):
        calls[name]()


def test_a_repeated_attempt_never_has_a_port_of_before(
    gap: Gap, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the kernel offers the same port again and again."""
    ports: list[int] = []

    class Repeating(socket.socket):
        def getsockname(self) -> Any:
            found = super().getsockname()
            return (found[0], 4000 + len(ports) // 3)

        def connect(self, address: Any) -> None:
            ports.append(self.getsockname()[1])
            raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "socket", Repeating)
    with pytest.raises(OSError):
        retry.create_connection(("127.0.0.1", server.server_port), policy=quick(attempts=5))
    assert len(ports) >= 1 and len(set(ports[1:])) == len(ports[1:])


def test_an_end_within_the_handshake_is_a_gap_and_a_wrong_certificate_is_not() -> None:
    assert while_connecting(ssl.SSLEOFError(8, "eof")) is retry.GapKind.CONNECT
    assert while_connecting(ssl.SSLCertVerificationError(1, "")) is None


def test_a_name_server_that_never_answers_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    silent = threading.Event()
    original = socket.getaddrinfo

    def getaddrinfo(host: str, port: int, *rest: Any) -> Any:
        if host != "db.example":
            return original(host, port, *rest)
        if rest[3] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        asked.append(host)
        if len(asked) < 3:
            silent.wait(60)  # as the C library's resolver, which has no limit that a caller could set
            raise socket.gaierror(socket.EAI_AGAIN, "too late")
        return original("127.0.0.1", port, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = retry.getaddrinfo("db.example", 80, policy=quick(connect_timeout=0.05))
    silent.set()
    assert found[0][4] == ("127.0.0.1", 80) and len(asked) >= 3  # more where an answer took 0.05 s to arrive


def test_a_name_that_does_not_exist_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *rest: Any) -> Any:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(socket.gaierror):
        retry.getaddrinfo("nowhere.example", 80, policy=quick())
    assert len(asked) == 2  # as a number, and as a name
