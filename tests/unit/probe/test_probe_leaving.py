"""How the prober leaves other people's web servers, and what its first words are; on the loopback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest

from hitless.cli.tools import run_tools

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"
HANG = 30.0


@contextmanager
def server(count: int, serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve so many connections, one after the other; the port."""

    def work() -> None:
        for _ in range(count):
            connection, _sender = listening.accept()
            with connection:
                connection.settimeout(HANG)
                connection.recv(4096)
                serve(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(HANG)
        thread = threading.Thread(target=work)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def probe(port: int, count: int) -> int:
    words = ["probe", "--to", f"http://127.0.0.1:{port}", "--count", str(count), "--rate", "100", "--json"]
    return run_tools([*words, "--scheduling", "normal"])


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

    with server(5, serve) as port:
        assert probe(port, 5) == (0 if status.startswith(b"200") else 1)
    assert ends == [b""] * 5
    assert capfd.readouterr().out.count('"type":"loss"') == (0 if status.startswith(b"200") else 5)


def test_an_answer_without_end_is_counted_and_not_read_for_ever(capfd: pytest.CaptureFixture[str]) -> None:
    sent = 0

    def serve(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(ANSWER)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while True:
                sent += connection.send(b"x" * 65536)

    with server(1, serve) as port:
        assert probe(port, 1) == 0
    assert sent > 0


def test_a_server_that_says_no_more_and_does_not_close_holds_the_end_up_for_a_moment_only(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(ANSWER)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)

    with server(1, serve) as port:
        assert probe(port, 1) == 0
    last = msgspec.json.decode(capfd.readouterr().out.splitlines()[-1])
    assert (last["type"], last["totals"]["http_ok"]) == ("summary", 1)


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
    # nobody listens there: what is asked is refused at once
    asked = ["probe", "--to", "farend://127.0.0.1:40001", "--count", "3", "--timeout", "0.1", "--json", *words]
    run_tools([*asked, "--scheduling", "normal"])
    header = msgspec.json.decode(capfd.readouterr().out.splitlines()[0])
    assert set(header["config"]["endpoints"]) == {f"{kind} 127.0.0.1" for kind in kinds}
