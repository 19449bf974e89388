"""Where a kubeconfig leads, and as whom: over TLS, by proxies, under other names."""

from __future__ import annotations

import base64
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster import roads
from tests.unit.cluster.roads import NAME, World, play, works

from hitless.errors import ApiError, MissingError
from hitless.kube import contexts, streams
from hitless.kube.api import connect
from hitless.kube.objects import NODES

READ = ["hitless", "relay", "read", "--from", "0"]


@pytest.fixture
def _name_has_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *words: Any, **options: Any) -> Any:
        return real("127.0.0.1" if host in (NAME, NAME.encode()) else host, *words, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_everything_goes_by_the_proxy_of_the_cluster_exec_too(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        pod = await world.pod()
        assert await works(world.connect(world.by_proxy, {"token": "t"}))
        async with world.connect(world.by_proxy, {"token": "t"}) as api:
            assert await streams.output(api, pod, "kube-system", "kube-flannel", READ) == b"said\n"
        assert len(world.proxy.asked) == 2
        assert set(world.proxy.asked) == {f"CONNECT {NAME}:{world.port}"}

    play(story, tmp_path, pki)


def test_a_proxy_is_asked_for_an_address_of_ipv6_as_urls_have_it(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        pod = await world.pod()
        way = {**world.by_proxy, "server": f"https://[2001:db8::5]:{world.port}", "tls-server-name": NAME}
        async with world.connect(way, {"token": "t"}) as api:
            assert await streams.output(api, pod, "kube-system", "kube-flannel", READ) == b"said\n"
        assert world.proxy.asked == [f"CONNECT [2001:db8::5]:{world.port}"]
        assert world.seen.headers[-1]["Host"] == f"[2001:db8::5]:{world.port}"
        del way["tls-server-name"]
        with pytest.raises(ApiError, match="not valid for '2001:db8::5'"):
            await works(world.connect(way, {"token": "t"}))

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
        with pytest.raises(ApiError, match=rf"the proxy http://127.0.0.1:{world.proxy.port} .*407") as caught:
            await works(world.connect(way, {"token": "t"}))
        assert "secret" not in str(caught.value)

    play(story, tmp_path, pki, refuses="407 Proxy Authentication Required")


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
    (tmp_path / "token").write_text("t\n")
    (tmp_path / "namespace").write_text("mine")
    (tmp_path / "ca.crt").write_bytes((pki / "ca.pem").read_bytes())
    monkeypatch.setattr(contexts, "ACCOUNT", tmp_path)
    monkeypatch.delenv("KUBECONFIG", raising=False)

    async def story(world: World) -> None:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", NAME)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{world.proxy.port}")
        world.seen.token = "t"
        api = connect(patience=roads.QUICK)
        assert (api.namespace, api.server) == ("mine", f"https://{NAME}:443")
        assert await works(api)
        assert world.proxy.asked == [f"CONNECT {NAME}:443"]

    play(story, tmp_path, pki)


def test_the_server_is_recognised_by_the_name_that_is_said_and_by_no_other(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        user = {"token": "t"}
        assert await works(world.connect({**world.numbered, "tls-server-name": NAME}, user))
        for wrong in (world.numbered, {**world.numbered, "tls-server-name": "another.example.test"}):
            with pytest.raises(ApiError, match="not valid for"):
                await works(world.connect(wrong, user))
        assert await works(world.connect({**world.by_proxy, "tls-server-name": NAME}, user))
        with pytest.raises(ApiError, match="not valid for"):
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


@pytest.mark.slow
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
            with pytest.raises(ApiError, match="another cluster or user"):
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
