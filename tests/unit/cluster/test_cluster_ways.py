"""Where a kubeconfig leads, and as whom: over TLS, by proxies, under other names."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster import roads
from tests.unit.cluster.clusters import cluster, until
from tests.unit.cluster.roads import NAME, Proxy, Seen

from hitless.cluster import streams
from hitless.cluster.api import Api, Patience, connect
from hitless.cluster.objects import NODES
from hitless.errors import ApiError, InputError, MissingError
from hitless.testing.api_kubelet import FakeNodes, Spool

QUICK = Patience(total=0.3, first=0.02, longest=0.1)
READ = ["hitless", "relay", "read", "--from", "0"]
V1 = "client.authentication.k8s.io/v1"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return roads.certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def _name_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *words: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host in (NAME, NAME.encode()) else host, *words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


class World:
    """A cluster behind TLS, a proxy that leads to it, and the folder for a kubeconfig."""

    def __init__(self, fake: FakeNodes, proxy: Proxy, folder: Path, pki: Path) -> None:
        self.fake, self.proxy, self.pki = fake, proxy, pki
        self.seen = fake.api.faults = Seen()
        self._folder = folder
        self.port = int(fake.api.url.rpartition(":")[2])

    @property
    def named(self) -> dict[str, Any]:
        """The cluster by its name."""
        return {"server": f"https://{NAME}:{self.port}", "certificate-authority": str(self.pki / "ca.pem")}

    @property
    def numbered(self) -> dict[str, Any]:
        """The cluster by its address, which its certificate does not have."""
        return {**self.named, "server": self.fake.api.url}

    @property
    def by_proxy(self) -> dict[str, Any]:
        return {**self.named, "proxy-url": f"http://127.0.0.1:{self.proxy.port}"}

    async def pod(self) -> str:
        """A pod that says something to READ."""
        await until(lambda: any((one.get("status") or {}).get("phase") == "Running" for one in self._pods()))
        name = str(self._pods()[0]["metadata"]["name"])
        self.fake.spools[name] = Spool(bytearray(b"said\n"), done=True)
        return name

    def _pods(self) -> list[dict[str, Any]]:
        return self.fake.api.store.all("pods")

    def connect(self, cluster: dict[str, Any], user: dict[str, Any]) -> Api:
        return connect(roads.write(self._folder / "config", cluster, user), patience=QUICK)


def play(
    story: Callable[[World], Coroutine[Any, Any, None]],
    folder: Path,
    pki: Path,
    *,
    client: ssl.VerifyMode = ssl.CERT_OPTIONAL,
    refuses: bool = False,
    tls: bool = False,
) -> None:
    async def run() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(asyncio.timeout(60))
            fake = await stack.enter_async_context(cluster(1, tls=roads.server_side(pki, client=client)))
            port = int(fake.api.url.rpartition(":")[2])
            context = roads.server_side(pki) if tls else None
            proxy = await stack.enter_async_context(roads.proxy(port, tls=context, refuses=refuses))
            await story(World(fake, proxy, folder, pki))

    asyncio.run(run())


async def works(api: Api) -> bool:
    async with api:
        return len(await api.all(NODES)) == 1


def test_everything_goes_by_the_proxy_of_the_cluster_exec_too(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        pod = await world.pod()
        assert await works(world.connect(world.by_proxy, {"token": "t"}))
        async with world.connect(world.by_proxy, {"token": "t"}) as api:
            assert await streams.output(api, pod, "kube-system", "kube-flannel", READ) == b"said\n"
        assert len(world.proxy.asked) == 2
        assert set(world.proxy.asked) == {f"CONNECT {NAME}:{world.port}"}

    play(story, tmp_path, pki)


def test_a_proxy_is_given_its_password_and_nobody_else_is(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        way = {**world.named, "proxy-url": f"http://me:secret@127.0.0.1:{world.proxy.port}"}
        assert await works(world.connect(way, {"token": "t"}))
        assert world.proxy.authorizations == [f"Basic {base64.b64encode(b'me:secret').decode()}"]
        assert all("Proxy-Authorization" not in headers for headers in world.seen.headers)

    play(story, tmp_path, pki)


def test_a_proxy_that_says_no_is_named_without_its_password(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        way = {**world.named, "proxy-url": f"http://me:secret@127.0.0.1:{world.proxy.port}"}
        with pytest.raises(ApiError, match=rf"407.*by the proxy http://127.0.0.1:{world.proxy.port}") as caught:
            await works(world.connect(way, {"token": "t"}))
        assert "secret" not in str(caught.value)

    play(story, tmp_path, pki, refuses=True)


@pytest.mark.usefixtures("_name_has_an_address")
def test_a_proxy_that_speaks_tls_is_recognised_by_the_clusters_authority(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        way = {**world.named, "proxy-url": f"https://{NAME}:{world.proxy.port}"}
        assert await works(world.connect(way, {"token": "t"}))
        assert world.proxy.asked

    play(story, tmp_path, pki, tls=True)


@pytest.mark.usefixtures("_name_has_an_address")
@pytest.mark.parametrize(
    ("exceptions", "asked"), [("", True), (".example.test", False), ("10.0.0.0/8,other.test", True), ("*", False)]
)
def test_the_proxy_of_the_environment_is_used_unless_it_is_told_otherwise(
    tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch, exceptions: str, asked: bool
) -> None:
    async def story(world: World) -> None:
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{world.proxy.port}")
        monkeypatch.setenv("NO_PROXY", exceptions)
        assert await works(world.connect(world.named, {"token": "t"}))
        assert bool(world.proxy.asked) is asked

    play(story, tmp_path, pki)


def test_a_proxy_of_the_environment_does_not_stand_before_this_machine(
    tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        assert await works(world.connect({**world.numbered, "tls-server-name": NAME}, {"token": "t"}))

    play(story, tmp_path, pki)


def test_a_pods_account_goes_by_the_pods_proxy(tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightkube.config.kubeconfig import KubeConfig

    (tmp_path / "token").write_text("t\n")
    (tmp_path / "namespace").write_text("mine")
    (tmp_path / "ca.crt").write_bytes((pki / "ca.pem").read_bytes())
    there = KubeConfig.from_service_account
    monkeypatch.setattr(KubeConfig, "from_service_account", lambda: there(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)

    async def story(world: World) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", NAME)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{world.proxy.port}")
        world.seen.token = "t"
        api = connect(patience=QUICK)
        assert (api.namespace, api.server) == ("mine", f"https://{NAME}:443")
        assert await works(api)
        assert world.proxy.asked == [f"CONNECT {NAME}:443"]

    play(story, tmp_path, pki)


def test_the_server_is_recognised_by_the_name_that_is_said_and_by_no_other(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        user = {"token": "t"}
        assert await works(world.connect({**world.numbered, "tls-server-name": NAME}, user))
        for wrong in (world.numbered, {**world.numbered, "tls-server-name": "another.example.test"}):
            with pytest.raises(ApiError, match="certificate verify failed"):
                await works(world.connect(wrong, user))
        assert await works(world.connect({**world.by_proxy, "tls-server-name": NAME}, user))
        with pytest.raises(ApiError, match="certificate verify failed"):
            await works(world.connect({**world.by_proxy, "tls-server-name": "another.example.test"}, user))

    play(story, tmp_path, pki)


def test_we_act_as_whom_the_kubeconfig_says_with_every_request(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        user = {
            "token": "t",
            "as": "jürgen",
            "as-uid": "1-2",
            "as-groups": ["devs", "ops"],
            "as-user-extra": {"example.com/Scopes": ["a", "b"], "empty": None},
        }
        pod = await world.pod()
        async with world.connect({**world.numbered, "tls-server-name": NAME}, user) as api:
            await api.all(NODES)
            await streams.output(api, pod, "kube-system", "kube-flannel", READ)
        assert len(world.seen.headers) == 2
        for headers in world.seen.headers:
            assert headers.getall("Impersonate-User") == ["jürgen"]
            assert headers.getall("Impersonate-Uid") == ["1-2"]
            assert headers.getall("Impersonate-Group") == ["devs", "ops"]
            assert headers.getall("Impersonate-Extra-example.com%2FScopes") == ["a", "b"]
            assert headers["Authorization"] == "Bearer t"

    play(story, tmp_path, pki)


def test_a_server_below_a_path_is_asked_below_it(tmp_path: Path, pki: Path) -> None:
    """Rancher's kubeconfigs go by its own server."""

    async def story(world: World) -> None:
        way = {**world.by_proxy, "server": f"https://{NAME}/k8s/clusters/c-1"}
        async with world.connect(way, {"token": "t"}) as api:
            with pytest.raises(ApiError, match="404"):  # the fake has no such path
                await api.all(NODES)
            with pytest.raises(ApiError, match="404"):
                await streams.output(api, "pod", "default", "c", ["true"])

    play(story, tmp_path, pki)


def test_a_password_in_the_servers_address_is_used_and_not_told(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        way = {**world.by_proxy, "server": f"https://me:secret@{NAME}:{world.port}"}
        api = world.connect(way, {})
        assert api.server == f"https://{NAME}:{world.port}"
        assert await works(api)
        assert world.seen.headers[-1]["Authorization"] == f"Basic {base64.b64encode(b'me:secret').decode()}"

    play(story, tmp_path, pki)


@pytest.mark.parametrize("data", [False, True])
def test_a_client_certificate_is_shown_and_is_on_no_disk(
    tmp_path: Path, pki: Path, monkeypatch: pytest.MonkeyPatch, data: bool
) -> None:
    written = tmp_path / "written"
    written.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(written))

    async def story(world: World) -> None:
        user: dict[str, Any] = {"client-certificate": str(pki / "client.pem"), "client-key": str(pki / "client.key")}
        if data:
            user = {f"{name}-data": base64.b64encode((pki / file).read_bytes()).decode() for name, file in user.items()}
        written.chmod(0o500)
        assert await works(world.connect(world.by_proxy, user))
        assert set(world.seen.names) == {"client"}
        assert not list(written.iterdir())

    play(story, tmp_path, pki, client=ssl.CERT_REQUIRED)


class LoginProgram:
    """A login program that gives ``answer``, and keeps what it was told each time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        program = folder / "bin" / "login"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$KUBERNETES_EXEC_INFO" >> {folder}/told\ncat {folder}/answer\n')
        program.chmod(0o755)
        self.user: dict[str, Any] = {"exec": {"apiVersion": V1, "command": "bin/login"}}

    def answer(self, **status: Any) -> None:
        (self._folder / "answer").write_text(json.dumps({"kind": "ExecCredential", "status": status}))

    def certificate(self, pki: Path, name: str) -> dict[str, str]:
        pair = {"clientCertificateData": (pki / f"{name}.pem"), "clientKeyData": pki / f"{name}.key"}
        return {key: file.read_text() for key, file in pair.items()}

    @property
    def told(self) -> list[Any]:
        path = self._folder / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_login_program_may_give_a_certificate_instead_of_a_token(tmp_path: Path, pki: Path) -> None:
    """Its path is relative to the kubeconfig, and Teleport's gives no token."""

    async def story(world: World) -> None:
        program = LoginProgram(tmp_path)
        program.answer(**program.certificate(pki, "client"))
        async with world.connect(world.by_proxy, program.user) as api:
            await asyncio.gather(*(api.all(NODES) for _ in range(5)))
            assert len(program.told) == 1, "requests that begin together wait for one login"
            assert set(world.seen.names) == {"client"}
            world.seen.names.clear()
            world.seen.token = "more"
            program.answer(token="more", **program.certificate(pki, "other"))
            assert len(await api.all(NODES)) == 1
            assert world.seen.names == ["client", "other"], (
                "after a 401 a new certificate is shown, on a new connection"
            )

    play(story, tmp_path, pki, client=ssl.CERT_REQUIRED)


def test_a_credential_that_says_when_it_ends_is_renewed_then_and_not_before(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        program = LoginProgram(tmp_path)
        ends = datetime.now(UTC) + timedelta(hours=1)
        program.answer(token="t", expirationTimestamp=ends.isoformat())
        async with world.connect(world.by_proxy, program.user) as api:
            for _ in range(2):
                await api.all(NODES)
            assert len(program.told) == 1
        program.answer(token="t", expirationTimestamp="2020-01-01T00:00:00Z")
        async with world.connect(world.by_proxy, program.user) as api:
            for _ in range(2):
                await api.all(NODES)
            assert len(program.told) == 3

    play(story, tmp_path, pki)


def test_a_login_program_is_told_of_the_cluster_when_it_asks(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        program = LoginProgram(tmp_path)
        program.answer(token="t")
        await works(world.connect(world.by_proxy, program.user))
        extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "me"}}
        other = {"name": "other", "extension": {"a": 1}}
        way = {**world.by_proxy, "tls-server-name": NAME, "extensions": [other, extension]}
        user = {"exec": {**program.user["exec"], "provideClusterInfo": True}}
        await works(world.connect(way, user))
        plain, whole = program.told
        assert plain == {"apiVersion": V1, "kind": "ExecCredential", "spec": {"interactive": False}}
        assert whole["spec"]["cluster"] == {
            "server": world.named["server"],
            "tls-server-name": NAME,
            "certificate-authority-data": base64.b64encode((pki / "ca.pem").read_bytes()).decode(),
            "proxy-url": way["proxy-url"],
            "config": {"audience": "me"},
        }

    play(story, tmp_path, pki)


def test_a_login_program_that_hangs_is_ended_with_the_one_who_waited(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        program = tmp_path / "login"
        # it is late, as asyncio waits for the pipes of a process that it is made to give up while it starts it
        program.write_text(f"#!/bin/sh\nsleep 0.3\nsleep 1000 & echo $! > {tmp_path}/pid\nwait\n")
        program.chmod(0o755)
        async with world.connect(world.by_proxy, {"exec": {"apiVersion": V1, "command": "./login"}}) as api:
            asking = asyncio.create_task(api.all(NODES))
            await until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(20):
                    await asking
        child = int((tmp_path / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            while True:  # until its parent, which is not we, has taken note
                os.kill(child, 0)
                await asyncio.sleep(0.01)

    play(story, tmp_path, pki)


def test_what_another_context_says_meanwhile_is_not_shown_to_the_first_server(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        world.seen.token = "mine"
        async with world.connect(world.by_proxy, {"token": "mine"}) as api:
            await api.all(NODES)
            world.seen.token = "another"
            config = tmp_path / "config"
            document = json.loads(config.read_text())
            document["current-context"] = "y"  # somebody works on another cluster meanwhile
            document["contexts"].append({"name": "y", "context": {"cluster": "c", "user": "v"}})
            document["users"].append({"name": "v", "user": {"token": "another"}})
            config.write_text(json.dumps(document))
            with pytest.raises(ApiError, match="401"):
                await api.all(NODES)
            assert {headers["Authorization"] for headers in world.seen.headers} == {"Bearer mine"}
            document["clusters"][0]["cluster"]["server"] = "https://elsewhere.example.test"
            config.write_text(json.dumps(document))
            with pytest.raises(InputError, match="another cluster or user"):
                await api.all(NODES)

    play(story, tmp_path, pki)


def test_a_proxy_by_socks_is_refused_with_the_remedy_unless_its_package_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    way = {"server": "https://one.example:1", "proxy-url": "socks5://me:secret@127.0.0.1:1"}
    path = roads.write(tmp_path / "config", way, {"token": "t"})
    with pytest.raises(MissingError, match=r"socks5://127.0.0.1:1 .*httpx2\[socks\]") as caught:
        connect(path)
    assert "secret" not in str(caught.value)
