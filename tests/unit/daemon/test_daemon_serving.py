"""The daemons' HTTP server under visitors of every bad kind: /healthz answers all the same."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.daemon import server as module
from hitless.daemon.server import HEAD_LIMIT, VISITORS, Page, Server, serving
from hitless.errors import InputError
from hitless.kernel.visitors import OUT_OF_ROOM, Visitors, source_of


def page(path: str) -> Page:
    if path == "/broken":
        raise ValueError("secret")
    return Page(200, "ok\n") if path == "/healthz" else Page(404, "no\n")


@contextlib.contextmanager
def server(says: list[str] | None = None) -> Iterator[tuple[Server, int]]:
    with serving("127.0.0.1", 0, page, where="--here", say=(says if says is not None else []).append) as one:
        yield one, one.port


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(source, 0))


def ask(port: int, path: str = "/healthz", method: str = "GET") -> tuple[int, str, float]:
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), time.monotonic() - begun
    finally:
        connection.close()


def told(sock: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while more := sock.recv(65536):
            data += more
    return data


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_pages_and_wrong_requests_are_answered() -> None:
    with server() as (_, port):
        assert ask(port)[:2] == (200, "ok\n")
        assert ask(port, "/healthz?verbose")[:2] == (200, "ok\n")
        assert ask(port, method="HEAD")[:2] == (200, "")
        assert ask(port, "/other")[0] == 404
        assert ask(port, method="POST")[0] == 405
        assert ask(port, "/broken")[:2] == (500, "ValueError\n")
        for words in (b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET\r\n\r\n", b"GET /\x1b[2J HTTP/1.1\r\n\r\n", b"\r\n\r\n"):
            with connect(port) as sock:
                sock.sendall(words + b"x\r\n\r\n")
                assert told(sock).startswith(b"HTTP/1.1 400 ")


def test_visitors_that_say_nothing_do_not_keep_the_kubelet_out() -> None:
    with server() as (one, port), contextlib.ExitStack() as held:
        for _ in range(3 * VISITORS):
            held.enter_context(connect(port))
        assert ask(port)[:2] == (200, "ok\n")
        assert one.turned_away >= VISITORS
        assert len(list(Path("/proc/self/fd").iterdir())) < 8 * VISITORS


def test_a_thousand_connections_from_many_sources_are_bounded_and_reported_once() -> None:
    says: list[str] = []
    with server(says) as (_, port), contextlib.ExitStack() as held:
        for number in range(400):
            held.enter_context(connect(port, f"127.0.{number % 200}.1"))
        assert ask(port)[:2] == (200, "ok\n")
        assert len(says) == 1 and "closed without an answer" in says[0]


@pytest.mark.slow
def test_a_request_has_a_time_in_all_however_it_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.4)
    with server() as (_, port), connect(port) as slow:
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begun < 20:
                slow.send(b"G")
                assert ask(port)[:2] == (200, "ok\n")
                time.sleep(0.05)
        assert time.monotonic() - begun < 10


@pytest.mark.slow
def test_a_reader_that_does_not_read_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.4)
    with serving("127.0.0.1", 0, lambda _: Page(200, "x" * 50_000_000), where="") as one, connect(one.port) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        until(lambda: len(one._visitors) == 1)
        until(lambda: len(one._visitors) == 0)


def test_a_head_without_an_end_is_refused_and_pipelined_requests_get_one_whole_answer() -> None:
    with server() as (_, port):
        with connect(port) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nX: " + b"y" * (HEAD_LIMIT + 100))
            assert told(sock).startswith(b"HTTP/1.1 431 ")
        with connect(port) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            answer = told(sock)
            assert answer.count(b"HTTP/1.1 200") == 1 and answer.endswith(b"ok\n")
        with connect(port) as sock:  # half-open: it has said all that it will, and waits
            sock.sendall(b"GET /healthz HTTP/1.0\n\n")
            sock.shutdown(socket.SHUT_WR)
            assert told(sock).endswith(b"ok\n")


@pytest.mark.slow
def test_no_descriptor_for_a_visitor_is_waited_for_without_spinning() -> None:
    with server() as (one, port):
        assert ask(port)[0] == 200
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        sock = socket.socket()
        os.close(free := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            used = time.process_time()
            sock.settimeout(10)
            sock.connect(("127.0.0.1", port))
            time.sleep(0.5)
            assert time.process_time() - used < 0.3
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert told(sock).endswith(b"ok\n")
        sock.close()
        assert one.turned_away >= 1


@pytest.mark.slow
def test_an_error_in_a_turn_is_reported_and_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    says: list[str] = []
    with server(says) as (one, port):
        answer, broken = one._answer, [True]

        def breaks(heard: bytes) -> bytes | None:
            if broken.pop() if broken else False:
                raise RecursionError("deep")
            return answer(heard)

        monkeypatch.setattr(one, "_answer", breaks)
        with connect(port) as sock:
            sock.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert told(sock) == b""
        assert ask(port)[:2] == (200, "ok\n")
    assert len(says) == 1 and "RecursionError: deep" in says[0]


def test_an_address_that_cannot_be_had_is_a_wrong_input() -> None:
    with server() as (_, port), pytest.raises(InputError, match=f"port {port}.*in use"):
        serving("127.0.0.1", port, page, where="--here").__enter__()
    with pytest.raises(InputError, match="--here"):
        serving("192.0.2.254", 1, page, where="--here").__enter__()


def test_sources() -> None:
    assert source_of(("192.0.2.1", 5)) == source_of(("::ffff:192.0.2.1", 6, 0, 0)) == "192.0.2.1"
    assert source_of(("2001:db8::1", 5, 0, 0)) == source_of(("2001:db8::2:1:1", 5, 0, 0)) == "2001:db8::/64"
    assert source_of(("fe80::1%eth0", 5, 0, 2)) == "fe80::/64"
    assert errno.EMFILE in OUT_OF_ROOM


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["admit", "admit", "heard", "forget"]))))
def test_no_source_exceeds_its_share_and_a_new_one_is_always_admitted(steps: list[tuple[str, str]]) -> None:
    visitors: Visitors[int] = Visitors(6, 4)
    here: dict[int, str] = {}
    for number, (source, what) in enumerate(steps):
        mine = [one for one, of in here.items() if of == source]
        if what == "admit":
            gone = visitors.admit(source, number)
            if gone is not None:
                counts = {of: list(here.values()).count(of) for of in here.values()}
                assert here[gone] == source or counts[here[gone]] == max(counts.values())
                del here[gone]
            here[number] = source
        elif mine and what == "heard":
            visitors.heard(mine[0])
        elif mine:
            visitors.forget(mine[0])
            del here[mine[0]]
        assert set(visitors) == set(here) and len(visitors) == len(here) <= 6
        assert all(list(here.values()).count(of) <= 4 for of in here.values())
