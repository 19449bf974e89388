"""The client of daemons: where it goes and as whom, and what it is told while the server comes and goes."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster import roads
from tests.unit.cluster.roads import NAME, World, play

from hitless.errors import ApiError, InputError
from hitless.kube import client as clients
from hitless.kube import contexts, transport
from hitless.kube.client import Away, Client
from hitless.kube.list_watch import Change, Gone, Put, Synced, by_name
from hitless.kube.objects import CONFIG_MAPS, NODES


def made(world: World, cluster: dict[str, Any], user: dict[str, Any], folder: Path, **environment: str) -> Client:
    path = roads.write(folder / "config", cluster, user)

    def read() -> contexts.Connection:
        return contexts.read(path, None)

    return Client(read(), environment, again=read)


async def ask(client: Client) -> str:
    return (await asyncio.to_thread(client.get, NODES, "node-0")).name


# --- where, and as whom


def test_the_proxy_of_the_kubeconfig_is_asked_with_its_password(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        by = {**world.named, "proxy-url": f"http://me:secret@127.0.0.1:{world.proxy.port}"}
        assert await ask(made(world, by, {"token": "t"}, tmp_path)) == "node-0"
        assert world.proxy.asked == [f"CONNECT {NAME}:{world.port}"]
        assert world.proxy.authorizations == ["Basic bWU6c2VjcmV0"]

    play(story, tmp_path, pki)


def test_the_proxy_of_the_environment_is_asked_and_no_proxy_is_honoured(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        variables = {"HTTPS_PROXY": f"127.0.0.1:{world.proxy.port}"}
        assert await ask(made(world, world.named, {"token": "t"}, tmp_path, **variables)) == "node-0"
        assert len(world.proxy.asked) == 1
        direct = {**world.numbered, "tls-server-name": NAME}
        await ask(made(world, direct, {"token": "t"}, tmp_path, **variables, NO_PROXY="127.0.0.1"))
        assert len(world.proxy.asked) == 1

    play(story, tmp_path, pki)


def test_an_address_of_ipv6_is_asked_of_a_proxy_in_brackets(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        way = {**world.by_proxy, "server": f"https://[2001:db8::5]:{world.port}", "tls-server-name": NAME}
        assert await ask(made(world, way, {"token": "t"}, tmp_path)) == "node-0"
        assert world.proxy.asked == [f"CONNECT [2001:db8::5]:{world.port}"]

    play(story, tmp_path, pki)


def test_a_proxy_that_says_no_is_named_without_its_password(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        by = {**world.named, "proxy-url": f"http://me:secret@127.0.0.1:{world.proxy.port}"}
        with pytest.raises(ApiError, match="does not let us through: 407") as refused:
            await ask(made(world, by, {"token": "t"}, tmp_path))
        assert "secret" not in str(refused.value)

    play(story, tmp_path, pki, refuses="407 Proxy Authentication Required")


def test_the_server_is_known_by_the_name_that_the_kubeconfig_says_and_by_no_other(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        assert await ask(made(world, {**world.numbered, "tls-server-name": NAME}, {"token": "t"}, tmp_path)) == "node-0"
        with pytest.raises(ApiError, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(made(world, world.numbered, {"token": "t"}, tmp_path))

    play(story, tmp_path, pki)


def test_we_act_as_who_the_kubeconfig_says(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        direct = {**world.numbered, "tls-server-name": NAME}
        acting = {"as": "somebody", "as-groups": ["g"], "as-user-extra": {"a/b": ["c"]}, "token": "t"}
        await ask(made(world, direct, acting, tmp_path))
        seen = world.seen.headers[-1]
        assert (seen["Impersonate-User"], seen["Impersonate-Group"]) == ("somebody", "g")
        assert seen["Impersonate-Extra-a%2Fb"] == "c"
        await ask(made(world, direct, {"username": "me", "password": "p"}, tmp_path))
        assert world.seen.headers[-1]["Authorization"] == "Basic bWU6cA=="
        files = {"client-certificate": str(pki / "client.pem"), "client-key": str(pki / "client.key")}
        await ask(made(world, direct, files, tmp_path))
        assert world.seen.names[-1] == "client"

    play(story, tmp_path, pki)


def test_a_credential_that_is_renewed_in_the_kubeconfig_is_used_after_a_401(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        direct = {**world.numbered, "tls-server-name": NAME}
        client = made(world, direct, {"token": "old"}, tmp_path)
        world.fake.api.faults.token = "new"
        with pytest.raises(ApiError, match="401"):
            await ask(client)
        roads.write(tmp_path / "config", direct, {"token": "new"})
        assert await ask(client) == "node-0"

    play(story, tmp_path, pki)


def test_a_kubeconfig_that_names_another_server_by_then_gets_nothing(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        direct = {**world.numbered, "tls-server-name": NAME}
        client = made(world, direct, {"token": "old"}, tmp_path)
        world.fake.api.faults.token = "new"
        roads.write(tmp_path / "config", {**direct, "server": "https://other.example"}, {"token": "new"})
        with pytest.raises(ApiError, match="401"):
            await ask(client)

    play(story, tmp_path, pki)


@pytest.mark.parametrize("token", ["a\nb", "a\u2028b", "a b\x07"])
def test_what_is_no_token_is_not_sent_and_not_quoted(tmp_path: Path, pki: Path, token: str) -> None:
    async def story(world: World) -> None:
        (tmp_path / "token").write_text(token)
        direct = {**world.numbered, "tls-server-name": NAME}
        with pytest.raises(ApiError, match="holds characters that no token has") as refused:
            await ask(made(world, direct, {"tokenFile": "token"}, tmp_path))
        assert token not in str(refused.value)
        assert world.seen.headers == []

    play(story, tmp_path, pki)


@pytest.mark.parametrize("scheme", ["https", "socks5"])
def test_a_proxy_that_a_daemon_does_not_know_is_refused_before_anything_is_asked(tmp_path: Path, scheme: str) -> None:
    path = roads.write(tmp_path / "c", {"server": "https://a.example", "proxy-url": f"{scheme}://p:1"}, {"token": "t"})
    with pytest.raises(InputError, match=f"a proxy by {scheme} is not known"):
        Client(contexts.read(path, None), {})


# --- bounds


@contextmanager
def talker(say: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server that says what it likes to one visitor, until the end of the block."""
    server, done = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        visitor, _ = server.accept()
        with visitor:
            visitor.recv(1 << 16)
            with suppress(OSError):
                say(visitor, done)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        done.set()
        thread.join()
        server.close()


def plain(url: str) -> Client:
    return Client(contexts.Connection("a test", None, "", contexts.KubeconfigCluster(url), ""), {})


@pytest.mark.slow
@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["", "one answer a connection"])
def test_a_server_that_drips_is_not_listened_to_for_ever(monkeypatch: pytest.MonkeyPatch, more: bytes) -> None:
    def drip(visitor: socket.socket, done: threading.Event) -> None:
        visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n%b\r\n" % more)
        while not done.wait(0.02):
            visitor.sendall(b" ")

    monkeypatch.setattr(clients, "_WHOLE", 0.3)
    with talker(drip) as url, pytest.raises(ApiError, match=r"not whole within 0\.3 s"):
        plain(url).get(NODES, "n")


@pytest.mark.slow
def test_the_time_of_an_answer_ends_also_while_the_connection_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def drip(visitor: socket.socket, done: threading.Event) -> None:
        visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not done.wait(0.02):
            visitor.sendall(b" ")

    def slow(*words: Any, **more: Any) -> socket.socket:
        time.sleep(0.5)  # as where a name server is slow
        return connect(*words, **more)

    connect = socket.create_connection
    monkeypatch.setattr(clients, "_WHOLE", 0.3)
    monkeypatch.setattr(socket, "create_connection", slow)
    with talker(drip) as url, pytest.raises(ApiError, match=r"not whole within 0\.3 s"):
        plain(url).get(NODES, "n")


def test_closing_ends_what_is_read_of_a_server_that_answers_once_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    def stall(visitor: socket.socket, done: threading.Event) -> None:
        visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n")
        begun.set()
        done.wait(120)

    def ask() -> None:
        with suppress(ApiError):  # refused, or of half an answer
            client.get(NODES, "n")
        ended.set()

    monkeypatch.setattr(transport, "_PATIENCE", 90.0)
    ended = threading.Event()
    with talker(stall) as url:
        client = plain(url)
        thread = threading.Thread(target=ask)
        thread.start()
        assert begun.wait(60)
        client.close()
        assert ended.wait(60)
        thread.join()


def test_an_answer_and_a_line_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def flood(visitor: socket.socket, _: threading.Event) -> None:
        visitor.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 3000)

    monkeypatch.setattr(clients, "_MOST", 2000)
    with talker(flood) as url, pytest.raises(ApiError, match="longer than 2000 bytes"):
        plain(url).get(NODES, "n")


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>log in</html>", b"{}", b'{"kind":"Status","message":"x"}'])
def test_what_is_no_object_is_an_error_that_says_so(body: bytes) -> None:
    def answer(visitor: socket.socket, _: threading.Event) -> None:
        visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with talker(answer) as url, pytest.raises(ApiError, match="the answer is not a node"):
        plain(url).get(NODES, "n")


# --- following


class Follower:
    """Applies what it is told, in a thread, and keeps all of it."""

    def __init__(self, client: Client, page: int = 2) -> None:
        self.client = client
        self.state: dict[str, str] = {}
        self.told: list[Change[Any] | Away] = []
        self.synced: queue.Queue[None] = queue.Queue()
        self._page = page
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for change in self.client.follow(CONFIG_MAPS, "default", key=by_name, page=self._page):
            self.told.append(change)
            match change:
                case Put(key, value):
                    self.state[key] = (value.data or {}).get("a", "")
                case Gone(key):
                    self.state.pop(key, None)
                case Synced():
                    self.synced.put(None)

    async def reaches(self, wanted: dict[str, str]) -> None:
        while self.state != wanted:  # noqa: ASYNC110 - the other side is a thread; the story's time limit bounds it
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        self.client.close()
        await asyncio.to_thread(self._thread.join)


def config(name: str, text: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"a": text}}


def test_what_follows_is_what_the_server_has_through_cuts_and_torn_watches(
    tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "_WAITS", (0.01, 0.05))

    async def story(world: World) -> None:
        store, faults = world.fake.api.store, world.fake.api.faults
        for name in "abcde":
            store.create("configmaps", "default", config(name, "1"))
        follower = Follower(made(world, {**world.numbered, "tls-server-name": NAME}, {"token": "t"}, tmp_path))
        try:
            await follower.reaches({f"default/{name}": "1" for name in "abcde"})
            store.create("configmaps", "default", config("f", "2"))
            store.remove("configmaps", "default", "a")
            await follower.reaches({**{f"default/{name}": "1" for name in "bcde"}, "default/f": "2"})
            faults.tear()
            store.create("configmaps", "default", config("g", "3"))
            await follower.reaches({**{f"default/{name}": "1" for name in "bcde"}, "default/f": "2", "default/g": "3"})
            faults.cut(60.0)
            store.remove("configmaps", "default", "g")
            told = len(follower.told)
            while not any(isinstance(one, Away) for one in follower.told[told:]):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.005)
            faults.cut(0.0)
            await follower.reaches({**{f"default/{name}": "1" for name in "bcde"}, "default/f": "2"})
        finally:
            await follower.close()
        assert json.dumps(sorted(follower.state)) == json.dumps([f"default/{name}" for name in "bcdef"])

    play(story, tmp_path, pki)


def test_closing_ends_a_watch_that_hears_nothing(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        follower = Follower(made(world, {**world.numbered, "tls-server-name": NAME}, {"token": "t"}, tmp_path))
        await asyncio.to_thread(follower.synced.get, timeout=30)
        await asyncio.sleep(0.1)  # it is in its watch by then, mostly; before it, the same must hold
        await asyncio.wait_for(follower.close(), 20)

    play(story, tmp_path, pki)


def test_a_server_that_is_away_is_told_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_WAITS", (0.001, 0.002))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        told = plain(f"http://127.0.0.1:{held.getsockname()[1]}").follow(NODES)
        for _ in range(3):
            away = next(told)
            assert isinstance(away, Away)
            assert "cannot be reached" in str(away.error)
            assert 0 < away.wait <= 0.002


class Lister:
    """A server of three pages and a watch that says nothing; ``hangs_up``: after each answer, without a word of it."""

    def __init__(self, *, hangs_up: bool) -> None:
        self._hangs_up = hangs_up
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.02)
        self._done = threading.Event()
        self.asked: list[tuple[int, str]] = []  # the connection's number, and what was asked over it
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Lister:
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def _accept(self) -> None:
        while not self._done.is_set():
            with suppress(TimeoutError):
                visitor, _ = self._server.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(visitor, len(self._threads))))
                self._threads[-1].start()

    def _serve(self, visitor: socket.socket, number: int) -> None:
        visitor.settimeout(0.02)
        with visitor:
            while not self._done.is_set():
                try:
                    asked = visitor.recv(1 << 16).decode()
                except TimeoutError:
                    continue
                if not asked:
                    return
                target = asked.split(" ")[1]
                self.asked.append((number, target))
                if "watch=true" in target:
                    visitor.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    continue
                page = 1 + int(target.rpartition("continue=")[2] or 0) if "continue=" in target else 1
                meta = {"resourceVersion": "5", **({"continue": str(page)} if page < 3 else {})}
                body = json.dumps(
                    {"kind": "NodeList", "metadata": meta, "items": [{"metadata": {"name": f"n{page}"}}]}
                ).encode()
                visitor.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                if self._hangs_up:
                    return


@pytest.mark.parametrize("hangs_up", [False, True])
def test_the_pages_of_a_list_come_over_one_connection_if_the_server_keeps_it(hangs_up: bool) -> None:
    with Lister(hangs_up=hangs_up) as server:
        client = plain(server.url)
        told = client.follow(NODES, key=by_name, page=1)
        found = [next(told) for _ in range(4)]
        told.close()  # type: ignore[attr-defined]  # a generator
    assert [one.key for one in found[:3] if isinstance(one, Put)] == ["n1", "n2", "n3"]
    assert isinstance(found[3], Synced)
    assert len({number for number, _ in server.asked}) == (3 if hangs_up else 1)


@pytest.mark.slow
def test_a_watch_is_as_long_as_those_of_gos_clients_and_asked_again_after_a_long_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "_SILENCE_S", 1.1)
    with Lister(hangs_up=False) as server:
        client = plain(server.url)
        told: list[object] = []
        thread = threading.Thread(target=lambda: told.extend(client.follow(NODES, key=by_name)))
        thread.start()
        while len([one for _, one in server.asked if "watch=true" in one]) < 2:
            assert thread.is_alive()
            threading.Event().wait(0.02)
        client.close()
        thread.join()
    assert not any(isinstance(one, Away) for one in told)
    spans = [int(one.partition("timeoutSeconds=")[2].partition("&")[0]) for _, one in server.asked if "watch" in one]
    assert all(300 <= one <= 600 for one in spans)
