"""Clients that retry get through a gap; one that keeps its port stays dead after it. Real packets, real conntrack."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.kernel.probe.probe_world import HITLESS, World
from tests.kernel.probe.probe_world import world as make_world

from hitless import retry
from hitless.kernel import processes
from hitless.kernel.namespaces import inside
from hitless.model.families import Family

pytestmark = pytest.mark.kernel

HANG = 60.0  # nothing here takes a tenth of it
PORT = 7880


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with make_world(tmp_path_factory.mktemp("retry")) as made:
        made.far_end()
        yield made


def by_socket(policy: retry.Policy, host: str) -> bytes:
    with retry.create_connection((host, PORT), policy=policy, timeout=10) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return sock.recv(100)


def by_streams(policy: retry.Policy, host: str) -> bytes:
    async def ask() -> bytes:
        reader, writer = await retry.open_connection(host, PORT, policy=policy)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        try:
            return await reader.read(100)
        finally:
            writer.close()
            await writer.wait_closed()

    return asyncio.run(ask())


def url(host: str) -> str:
    return f"http://[{host}]:{PORT}/" if ":" in host else f"http://{host}:{PORT}/"


def by_httpx(policy: retry.Policy, host: str) -> bytes:
    import httpx

    with httpx.Client(transport=retry.httpx_transport(policy)) as client:
        return b"HTTP" if client.get(url(host)).status_code == 200 else b""


def by_async_httpx(policy: retry.Policy, host: str) -> bytes:
    import httpx

    async def ask() -> int:
        async with httpx.AsyncClient(transport=retry.httpx_async_transport(policy)) as client:
            return (await client.get(url(host))).status_code

    return b"HTTP" if asyncio.run(ask()) == 200 else b""


def by_requests(policy: retry.Policy, host: str) -> bytes:
    with retry.requests_session(policy) as session:
        return b"HTTP" if session.get(url(host)).status_code == 200 else b""


def by_urllib3(policy: retry.Policy, host: str) -> bytes:
    with retry.urllib3_pool(policy) as pool:
        return b"HTTP" if pool.request("GET", url(host)).status == 200 else b""


def by_aiohttp(policy: retry.Policy, host: str) -> bytes:
    async def ask() -> int:
        async with retry.aiohttp_session(policy) as session, session.get(url(host)) as response:
            return response.status

    return b"HTTP" if asyncio.run(ask()) == 200 else b""


CLIENTS = (by_socket, by_streams, by_httpx, by_async_httpx, by_requests, by_urllib3, by_aiohttp)


def in_a_gap(world: World, action: Callable[[], bytes], missed: threading.Event) -> bytes:
    """What ``action`` returns, begun when nothing is translated; the rules come back when ``missed`` says that it met
    that."""

    def end() -> None:
        missed.wait(HANG)
        world.masquerade()

    world.stop_masquerade()
    back = threading.Thread(target=end)
    back.start()
    try:
        return inside(world.pod, action)
    finally:
        missed.set()
        back.join()


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_a_request_that_begins_in_a_gap_gets_its_answer(world: World, client: Callable[..., bytes]) -> None:
    told: list[retry.Retry] = []
    missed = threading.Event()

    def hear(one: retry.Retry) -> None:
        told.append(one)
        missed.set()

    policy = retry.Policy(connect_timeout=0.4, budget=None, hooks=(hear,))
    host = world.address(Family.IPV4 if CLIENTS.index(client) % 2 else Family.IPV6)
    assert in_a_gap(world, lambda: client(policy, host), missed).startswith(b"HTTP")
    assert told and all(one.gap is retry.GapKind.CONNECT and one.wait is not None for one in told), told


def test_a_port_that_was_used_in_the_gap_is_dead_after_it_and_a_new_one_is_not(world: World) -> None:
    host = world.address(Family.IPV4)
    with socket.socket() as chosen:
        chosen.bind(("", 0))
        port = int(chosen.getsockname()[1])

    def naive() -> bytes:
        try:
            with socket.create_connection((host, PORT), 0.5, ("", port)):
                return b"answered"
        except TimeoutError:
            return b"dead"

    world.stop_masquerade()
    try:
        assert inside(world.pod, naive) == b"dead"
    finally:
        world.masquerade()
    assert inside(world.pod, naive) == b"dead"  # the rules are back, and the flow is still remembered without them
    assert inside(world.pod, lambda: by_socket(retry.Policy(), host)).startswith(b"HTTP")


def test_a_command_is_run_again_until_it_gets_its_answer(world: World, tmp_path: Path) -> None:
    asks = (
        "import sys, urllib.request\n"
        f"print(urllib.request.urlopen('{url(world.address(Family.IPV4))}', timeout=0.4).status)\n"
    )
    script = tmp_path / "ask.py"
    script.write_text(asks)
    world.stop_masquerade()
    process = processes.start(
        [*HITLESS, "retry", "--", sys.executable, str(script)],
        namespace=world.pod,
        stdout=processes.PIPE,
        stderr=processes.PIPE,
    )
    try:
        assert process.stderr is not None
        first = b""
        while b"attempt 1; again in" not in first:  # it met the gap; before that the rules must not come back
            line = process.stderr.readline()
            assert line, first
            first += line
    finally:
        world.masquerade()
        answer, words = process.communicate(timeout=HANG)
    assert process.returncode == 0 and answer == b"200\n", first + words
