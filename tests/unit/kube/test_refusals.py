"""What will not pass by itself ends at once; what may is waited for, and everything is once the server has answered."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster import roads
from tests.unit.cluster.clusters import until
from tests.unit.cluster.roads import NAME, World, play, works

from hitless.cli.tools import run_tools
from hitless.errors import ApiError
from hitless.kube import streams
from hitless.kube.api import Patience, connect
from hitless.kube.objects import CONFIG_MAPS, NODES
from hitless.testing.api_store import StatusError

USER = {"token": "t"}
READ = ["hitless", "relay", "read", "--from", "0"]


async def never(seconds: float) -> None:
    """Nothing is to be waited for."""
    raise AssertionError(f"it waits {seconds} s for what does not pass")


AT_ONCE = Patience(total=20.0, sleep=never)
DOGGED = Patience(total=30.0, first=0.02, longest=0.1)


def waits(seen: list[float], then: Callable[[], object]) -> Patience:
    """A patience that keeps what it waited, and lets ``then`` happen at its third wait."""

    async def sleep(seconds: float) -> None:
        seen.append(seconds)
        if len(seen) == 3:
            then()
        await asyncio.sleep(0.01)

    return Patience(total=30.0, first=0.02, longest=0.1, sleep=sleep)


def _named(world: World) -> dict[str, Any]:
    return {**world.numbered, "tls-server-name": NAME}


@pytest.mark.parametrize(
    ("server", "more", "said"),
    [
        ("stranger", {}, "self-signed certificate; give what signed it as certificate-authority of the cluster in "),
        ("expired", {}, "certificate has expired; renew it, or set this machine's clock"),
        ("server", {"tls-server-name": "other.test"}, "not valid for 'other.test'; give one of its names as server or"),
        ("server", {"tls-server-name": ""}, "not valid for '127.0.0.1'; give one of its names as server or tls-server"),
    ],
)
@pytest.mark.parametrize("by_proxy", [False, True])
def test_a_servers_certificate_that_is_not_accepted_ends_the_first_call_at_once(
    tmp_path: Path, pki: Path, server: str, more: dict[str, Any], said: str, by_proxy: bool
) -> None:
    async def story(world: World) -> None:
        way = {**_named(world), **({"proxy-url": world.by_proxy["proxy-url"]} if by_proxy else {}), **more}
        if by_proxy:
            way["server"] = f"https://127.0.0.1:{world.port}"
        with pytest.raises(ApiError) as caught:
            await works(world.connect(way, USER, AT_ONCE))
        words = str(caught.value)
        assert f"the certificate of {way['server']} is not accepted: " in words
        assert said in words
        assert (str(tmp_path / "config") in words) is (server != "expired")
        assert not world.seen.headers, "the token was shown to somebody else"

    play(story, tmp_path, pki, server=server)


@pytest.mark.parametrize("call", ["get", "watch"])
def test_every_call_may_be_the_first(tmp_path: Path, pki: Path, call: str) -> None:
    async def story(world: World) -> None:
        async with world.connect(_named(world), USER, AT_ONCE) as api:
            with pytest.raises(ApiError, match="not accepted"):
                if call == "get":
                    await api.get(NODES, "node-0")
                else:
                    await api.wait_for(NODES, "", bool, within=20.0)

    play(story, tmp_path, pki, server="stranger")


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("407 Proxy Authentication Required", "must hold the user and the password that it wants"),
        ("403 Forbidden", "allow it there, or name another proxy in"),
        ("405 Method Not Allowed", "allow it there, or name another proxy in"),
    ],
)
@pytest.mark.parametrize("by", ["kubeconfig", "environment"])
def test_a_proxy_that_does_not_let_us_through_ends_the_first_call_at_once(
    tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch, status: str, remedy: str, by: str
) -> None:
    async def story(world: World) -> None:
        url = f"http://me:secret@127.0.0.1:{world.proxy.port}"
        way = world.named
        if by == "kubeconfig":
            way["proxy-url"] = url
        else:
            monkeypatch.setenv("HTTPS_PROXY", url)
        with pytest.raises(ApiError) as caught:
            await works(world.connect(way, USER, AT_ONCE))
        words = str(caught.value)
        assert f"the proxy http://127.0.0.1:{world.proxy.port} does not let us through to {way['server']}" in words
        assert status in words
        assert remedy in words
        assert ("proxy-url of the cluster in " if by == "kubeconfig" else "HTTPS_PROXY") in words
        assert ("NO_PROXY" in words) is (by == "environment")
        assert "secret" not in words
        assert len(world.proxy.asked) == 1

    play(story, tmp_path, pki, refuses=status)


@pytest.mark.slow
@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable", "429 Too Many", "504 Timeout"])
def test_a_proxy_that_is_busy_is_waited_for(tmp_path: Path, pki: Path, status: str) -> None:
    async def story(world: World) -> None:
        world.proxy.passing = [status] * 3
        assert await works(world.connect(world.by_proxy, USER, DOGGED))
        assert len(world.proxy.asked) == 4

    play(story, tmp_path, pki)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_that_is_busy_is_waited_for(tmp_path: Path, pki: Path, status: int) -> None:
    async def story(world: World) -> None:
        world.seen.failures = [StatusError(status, "Busy", "busy") for _ in range(3)]
        assert await works(world.connect(_named(world), USER, DOGGED))
        assert len(world.seen.headers) == 4

    play(story, tmp_path, pki)


def test_a_server_that_breaks_every_connection_is_waited_for(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        seen: list[float] = []
        world.seen.cut(60.0)
        assert await works(world.connect(_named(world), USER, waits(seen, lambda: world.seen.cut(0.0))))
        assert len(seen) == world.seen.refused == 3

    play(story, tmp_path, pki)


def test_a_server_that_refuses_connections_is_waited_for(tmp_path: Path) -> None:
    clock = [0.0]

    async def sleep(seconds: float) -> None:
        clock[0] += seconds

    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        way = {"server": f"https://127.0.0.1:{reserved.getsockname()[1]}"}
        path = roads.write(tmp_path / "config", way, {})
        patience = Patience(total=20.0, longest=1.0, sleep=sleep, now=lambda: clock[0])
        with pytest.raises(ApiError, match="cannot be reached: All connection attempts failed"):
            asyncio.run(works(connect(path, patience=patience)))
    assert clock[0] > 18.0


def test_a_load_balancer_that_is_half_up_in_the_middle_of_a_round_is_waited_for(tmp_path: Path, pki: Path) -> None:
    """The very certificate that ends the first call: a list, a watch and an exec each live through it."""

    async def story(world: World) -> None:
        pod = await world.pod()
        seen: list[float] = []

        def half_up() -> None:
            seen.clear()
            world.becomes("stranger")
            world.proxy.cut()

        async with world.connect(world.by_proxy, USER, waits(seen, lambda: world.becomes("server"))) as api:
            assert await api.all(NODES)
            half_up()
            assert await api.all(NODES)
            assert len(seen) == 3
            half_up()
            assert await streams.output(api, pod, "kube-system", "kube-flannel", READ) == b"said\n"
            assert len(seen) == 3
            looking = asyncio.create_task(api.wait_for(CONFIG_MAPS, "default", bool, within=20.0))
            connections = len(world.proxy.asked)
            await until(lambda: len(world.proxy.asked) > connections)
            half_up()
            await until(lambda: len(seen) == 3)
            world.fake.api.store.create("configmaps", "default", {"metadata": {"name": "late"}})
            assert await looking

    play(story, tmp_path, pki)


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "403 Forbidden"])
def test_a_proxy_that_let_us_through_before_is_waited_for(tmp_path: Path, pki: Path, status: str) -> None:
    async def story(world: World) -> None:
        async with world.connect(world.by_proxy, USER, DOGGED) as api:
            assert await api.all(NODES)
            world.proxy.passing = [status] * 3
            world.proxy.cut()
            assert await api.all(NODES)
            assert len(world.proxy.asked) == 5

    play(story, tmp_path, pki)


def test_who_comes_back_to_a_server_that_answered_before_waits_from_the_first_call_on(
    tmp_path: Path, pki: Path
) -> None:
    """As the one does that tells a drill's result right after its last restart."""

    async def story(world: World) -> None:
        seen: list[float] = []
        patience = waits(seen, lambda: world.becomes("server"))
        assert await works(world.connect(_named(world), USER, patience, answered=True))
        assert len(seen) == 3

    play(story, tmp_path, pki, server="stranger")


@contextlib.contextmanager
def _listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server in a thread, for what asyncio's TLS does not do: it sends no alerts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def run() -> None:
            with contextlib.suppress(OSError):
                while True:
                    one, _ = listening.accept()
                    with one, contextlib.suppress(OSError):
                        one.settimeout(20.0)
                        serve(one)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(30.0)


def test_a_client_certificate_that_the_server_wants_is_asked_for(tmp_path: Path, pki: Path) -> None:
    context = roads.server_side(pki, client=ssl.CERT_REQUIRED)

    def alerting(one: socket.socket) -> None:
        context.wrap_socket(one, server_side=True)

    with _listener(alerting) as port:
        way = {"server": f"https://127.0.0.1:{port}", "tls-server-name": NAME}
        way["certificate-authority"] = str(pki / "ca.pem")
        path = roads.write(tmp_path / "config", way, {})
        words = r"does not let us in by the client certificate: certificate required; .* of user u in .*config"
        with pytest.raises(ApiError, match=words):
            asyncio.run(works(connect(path, patience=DOGGED)))


def test_a_server_that_does_not_speak_tls_is_said(tmp_path: Path) -> None:
    def plain(one: socket.socket) -> None:
        one.recv(1 << 16)
        one.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
        one.recv(1 << 16)

    with _listener(plain) as port:
        path = roads.write(tmp_path / "config", {"server": f"https://127.0.0.1:{port}"}, {})
        with pytest.raises(ApiError, match=r"does not speak TLS; look at the server of the cluster in .*config"):
            asyncio.run(works(connect(path, patience=AT_ONCE)))


@pytest.mark.parametrize(
    "command", [["drill", "--cluster", "--dry-run"], ["drill", "--cleanup"], ["advise", "--cluster"]]
)
def test_a_command_ends_with_3_and_the_remedy(
    tmp_path: Path, pki: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    async def story(world: World) -> None:
        path = roads.write(tmp_path / "config", _named(world), USER)
        assert await asyncio.to_thread(run_tools, [*command, "--kubeconfig", str(path)]) == 3
        words = capsys.readouterr().err.strip()
        assert words.startswith(f"hitless: the certificate of {world.fake.api.url} is not accepted: self-signed")
        assert words.endswith(f"certificate-authority of the cluster in {path}")
        assert "\n" not in words

    play(story, tmp_path, pki, server="stranger")
