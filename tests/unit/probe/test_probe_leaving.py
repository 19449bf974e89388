"""How the prober closes connections to foreign web servers, and its first requests; on the loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from hitless.cli.tools import run_tools

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
HANG = 30.0
RUNS = 10


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve connections, one after the other, until the end; the port."""

    def accept() -> socket.socket | None:
        try:
            return listening.accept()[0]
        except OSError:  # nobody listens any more
            return None

    def work() -> None:
        while (connection := accept()) is not None:
            with connection:
                connection.settimeout(HANG)
                connection.recv(4096)
                serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def probe(port: int, count: int, capfd: pytest.CaptureFixture[str]) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and events of a probe; one that was late, and skipped some for that, is made again."""
    words = ["probe", "--to", f"http://127.0.0.1:{port}", "--count", str(count), "--rate", "100", "--timeout", "10"]
    for _ in range(RUNS):
        code = run_tools([*words, "--json", "--scheduling", "normal"])
        events = [msgspec.json.decode(line) for line in capfd.readouterr().out.splitlines()]
        if not events[-1]["totals"]["skipped_late"]:
            return code, events
    pytest.fail(f"the prober was late in each of {RUNS} runs")


@pytest.mark.parametrize("status", [b"200 OK", b"503 Service Unavailable"])
def test_a_server_sees_no_reset_when_its_answer_has_an_end(status: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    ends: list[bytes | str] = []

    def serve(connection: socket.socket) -> None:
        connection.sendall(ANSWER.replace(b"200 OK", status))
        connection.sendall(b"x" * 5000)
        connection.shutdown(socket.SHUT_WR)
        try:
            ends.append(connection.recv(1))
        except ConnectionResetError:
            ends.append("reset")

    with server(serve) as port:
        code, events = probe(port, 5, capfd)
    good = status.startswith(b"200")
    assert code == (0 if good else 1)
    assert len(ends) >= 5 and set(ends) == {b""}
    assert sum(event["type"] == "loss" for event in events) == (0 if good else 5)


def test_an_answer_without_end_is_counted_and_not_read_for_ever(capfd: pytest.CaptureFixture[str]) -> None:
    sent = 0

    def serve(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(ANSWER)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                sent += connection.send(b"x" * 65536)

    with server(serve) as port:
        assert probe(port, 1, capfd)[0] == 0
    assert sent > 0


@pytest.mark.slow
def test_a_silent_server_that_does_not_close_delays_the_end_for_a_moment_only(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(ANSWER)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)

    with server(serve) as port:
        code, events = probe(port, 1, capfd)
    assert code == 0
    assert (events[-1]["type"], events[-1]["totals"]["http_ok"]) == ("summary", 1)


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        ([], {"tcp", "udp", "icmp", "http"}),
        (["--mix", "tcp=2,udp=1,http=0"], {"tcp", "udp"}),
        (["--mix", "tcp=1", "--streams", "1"], {"tcp", "stream"}),
    ],
)
def test_the_first_line_names_what_is_sent_and_nothing_else(
    words: list[str], kinds: set[str], capfd: pytest.CaptureFixture[str]
) -> None:
    # nobody listens there, below the ports that kernels give out: what is asked is refused at once
    asked = ["probe", "--to", "farend://127.0.0.1:20001", "--count", "3", "--timeout", "0.1", "--json", *words]
    run_tools([*asked, "--scheduling", "normal"])
    header = msgspec.json.decode(capfd.readouterr().out.splitlines()[0])
    assert set(header["config"]["endpoints"]) == {f"{kind} 127.0.0.1" for kind in kinds}
