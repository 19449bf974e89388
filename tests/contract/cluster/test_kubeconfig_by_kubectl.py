"""What we take from a kubeconfig held against what kubectl takes from it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster import roads
from tests.unit.cluster.roads import NAME, World, play, works

from hitless.errors import HitlessError, InputError
from hitless.kube import proxies
from hitless.kube.access import access
from hitless.kube.api import connect
from hitless.kube.contexts import Connection, read

KUBECTL = Path(sys.executable).parent / "kubectl"
pytestmark = pytest.mark.skipif(not KUBECTL.exists(), reason="no kubectl beside this Python")

V1 = "client.authentication.k8s.io/v1"
SERVER = "https://127.0.0.1:1"  # nobody answers there
NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return roads.certificates(tmp_path_factory.mktemp("pki"))


def environment(folder: Path, kubeconfig: str, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": kubeconfig, **more}


def kubectl(folder: Path, kubeconfig: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KUBECTL, *words],
        env=environment(folder, kubeconfig),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


class Generator:
    """Files that speak of the same few names, each with certificates in its own folder."""

    def __init__(self, seed: int, folder: Path) -> None:
        self._random = random.Random(seed)
        self._folder = folder

    def files(self) -> str:
        paths = [self._file(number) for number in range(self._random.randint(2, 4))]
        paths.insert(self._random.randrange(len(paths) + 1), self._folder / "not-there")
        return os.pathsep.join(map(str, paths))

    def _file(self, number: int) -> Path:
        folder = self._folder / str(number) / "sub"
        folder.mkdir(parents=True)
        for name in ("ca", "chain", "key"):
            (folder / name).write_text(f"{name} of {number}")
            (folder.parent / name).write_text(f"{name} above {number}")
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self._random.choice(["", *NAMES]),
            "clusters": self._some("cluster", self._cluster),
            "users": self._some("user", self._user),
            "contexts": self._some("context", self._context),
        }
        (folder / "config").write_text(json.dumps(document))
        return folder / "config"

    def _some(self, kind: str, make: Any) -> list[dict[str, Any]]:
        return [{"name": name, kind: make()} for name in NAMES if self._random.random() < 0.6]

    def _maybe(self, **values: Any) -> dict[str, Any]:
        return {key.replace("_", "-"): value for key, value in values.items() if self._random.random() < 0.5}

    def _place(self, name: str) -> str:
        return self._random.choice([name, f"./{name}", f"../{name}", f"../sub/{name}"])

    def _text(self) -> str:
        return f"t{self._random.randrange(1000)}"

    def _cluster(self) -> dict[str, Any]:
        authority: dict[str, Any] = self._random.choice(
            [{}, {"insecure-skip-tls-verify": True}, {"certificate-authority": self._place("ca")}]
        )
        port = self._random.randrange(1, 1000)
        return {
            **({"server": f"https://{self._text()}.example:{port}"} if self._random.random() < 0.9 else {}),
            **authority,
            **self._maybe(tls_server_name=self._text(), proxy_url=f"http://u:p@{self._text()}:1"),
        }

    def _user(self) -> dict[str, Any]:
        who: dict[str, Any] = self._random.choice(
            [
                {},
                {"token": self._text()},
                {"username": self._text(), "password": self._text()},
                {"exec": {"apiVersion": V1, "command": "login", "interactiveMode": "Never", "args": [self._text()]}},
                {"client-certificate": self._place("chain"), "client-key": self._place("key")},
            ]
        )
        acting = {"as": self._text(), **self._maybe(as_uid="1", as_groups=["a", "b"], as_user_extra={"k/K": ["v"]})}
        return {**who, **self._random.choice([{}, acting])}

    def _context(self) -> dict[str, Any]:
        choose = self._random.choice
        return {"cluster": choose(NAMES), "user": choose(NAMES), **self._maybe(namespace=self._text())}


def way_or_refusal(kubeconfig: Path | None, context: str | None) -> Connection | str:
    try:
        return replace(read(kubeconfig, context), where="")
    except InputError as error:
        return type(error).__name__


@pytest.mark.parametrize("seed", range(12))
def test_several_files_make_what_kubectl_makes_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    several = Generator(seed, tmp_path).files()
    done = kubectl(tmp_path, several, "config", "view", "--raw", "--flatten", "-o", "json")
    assert done.returncode == 0, done.stderr
    (tmp_path / "merged").write_text(done.stdout)
    monkeypatch.setenv("KUBECONFIG", several)
    monkeypatch.chdir("/")
    for context in (None, *NAMES):
        assert way_or_refusal(None, context) == way_or_refusal(tmp_path / "merged", context)


def test_the_generated_files_lead_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for seed in range(12):
        (tmp_path / str(seed)).mkdir()
        monkeypatch.setenv("KUBECONFIG", Generator(seed, tmp_path / str(seed)).files())
        found += [way_or_refusal(None, name) for name in NAMES]
    assert sum(isinstance(one, Connection) for one in found) > 10
    assert sum(isinstance(one, Connection) and one.certificate is not None for one in found) > 1
    assert sum(isinstance(one, Connection) and bool(one.impersonation) for one in found) > 1


AUTHORITY = {"certificate-authority-data": "eA=="}
EXEC = {"apiVersion": V1, "command": "/bin/true", "interactiveMode": "Never"}
REFUSED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"server": SERVER, **AUTHORITY, "certificate-authority": "/etc/hostname"}, {}),
    ({"server": SERVER, **AUTHORITY, "insecure-skip-tls-verify": True}, {}),
    ({"server": SERVER, **AUTHORITY}, {}),
    ({"server": SERVER, "certificate-authority": "/no/such"}, {}),
    ({"server": SERVER, "proxy-url": "ftp://p:1"}, {}),
    ({"server": SERVER, "proxy-url": "p:3128"}, {}),
    ({"server": SERVER}, {"token": "a", "username": "b"}),
    ({"server": SERVER}, {"token": 1}),
    ({"server": SERVER}, {"as-groups": ["a"]}),
    ({"server": SERVER}, {"as-uid": "a", "token": "b"}),
    ({"server": SERVER}, {"client-certificate-data": "eA=="}),
    ({"server": SERVER}, {"client-certificate-data": "eA==", "client-key-data": "eA=="}),
    ({"server": SERVER}, {"client-certificate": "/no/such", "client-key": "/no/such"}),
    ({"server": SERVER}, {"exec": EXEC, "auth-provider": {"name": "oidc"}}),
    ({"server": SERVER}, {"auth-provider": {"name": "gcp"}}),
    ({"server": SERVER}, {"exec": {**EXEC, "apiVersion": "v0"}}),
    ({"server": SERVER}, {"exec": {**EXEC, "interactiveMode": "Perhaps"}}),
]


@pytest.mark.parametrize(("cluster", "user"), REFUSED)
def test_what_kubectl_refuses_is_refused(tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any]) -> None:
    path = roads.write(tmp_path / "config", cluster, user)
    done = kubectl(tmp_path, str(path), "get", "--raw", "/version")
    assert done.returncode != 0
    assert "connection refused" not in done.stderr and "was refused" not in done.stderr, "kubectl went there"
    with pytest.raises(HitlessError):
        access(path, None)


async def _asks(folder: Path, kubeconfig: Path, **more: str) -> str:
    """What kubectl says of the nodes' list."""
    process = await asyncio.create_subprocess_exec(
        KUBECTL,
        *("get", "--raw", "/api/v1/nodes"),
        env=environment(folder, str(kubeconfig), **more),
        cwd="/",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return out.decode()


ACTING = {
    "token": "t",
    "as": "jürgen",
    "as-uid": "1",
    "as-groups": ["a", "b"],
    "as-user-extra": {"example.com/Scopes %é": ["x", "y"]},
}


def test_the_same_is_asked_of_the_server_and_of_the_proxy(tmp_path: Path, pki: Path) -> None:
    def who(headers: Mapping[str, str]) -> list[tuple[str, str]]:
        items = [(name.lower(), value) for name, value in headers.items()]
        return sorted(one for one in items if one[0].startswith(("impersonate", "authorization")))

    async def story(world: World) -> None:
        way = {**world.named, "proxy-url": f"http://me:secret@127.0.0.1:{world.proxy.port}", "tls-server-name": NAME}
        numbered = {**way, "server": f"https://[2001:db8::5]:{world.port}"}
        users = (ACTING, {"username": "me", "password": "p"}, {"username": "me"})
        for cluster, user in [(way, user) for user in users] + [(numbered, ACTING)]:
            path = roads.write(tmp_path / "config", cluster, user)
            assert "node-0" in await _asks(tmp_path, path)
            assert await works(connect(path, patience=roads.QUICK))
            theirs, ours = (who(headers) for headers in world.seen.headers[-2:])
            assert ours == theirs
            assert ours
            assert world.proxy.asked[-1] == world.proxy.asked[-2]
            assert world.proxy.authorizations[-1] == world.proxy.authorizations[-2] != ""

    play(story, tmp_path, pki)


def test_a_login_program_is_told_the_same(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        program = tmp_path / "bin" / "login"
        program.parent.mkdir()
        answer = {"apiVersion": V1, "kind": "ExecCredential", "status": {"token": "t"}}
        keep = f"printf '%s\\n' \"$KUBERNETES_EXEC_INFO\" >> {tmp_path}/told"
        program.write_text(f"#!/bin/sh\n{keep}\necho '{json.dumps(answer)}'\n")
        program.chmod(0o755)
        extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "me", "n": [1]}}
        user = {"exec": {**EXEC, "command": "./bin/login", "provideClusterInfo": True}}
        for more in ({}, {"extensions": [extension], "tls-server-name": NAME, "disable-compression": True}):
            path = roads.write(tmp_path / "config", {**world.by_proxy, **more}, user)
            assert "node-0" in await _asks(tmp_path, path)
            assert await works(connect(path, patience=roads.QUICK))
        told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines() if line]
        assert told[1] == told[0]
        assert told[3] == told[2]
        assert told[2]["spec"]["cluster"]["config"]["audience"] == "me"

    play(story, tmp_path, pki)


@pytest.mark.parametrize(
    ("host", "exceptions"),
    [
        ("0.0.0.0", ""),  # this machine, and no loopback address
        ("0.0.0.0", "0.0.0.0"),
        ("0.0.0.0", "10.0.0.0/8, 0.0.0.0/8"),
        ("0.0.0.0", "10.0.0.0/8,.0.0,0.0"),
        ("0.0.0.0", "0.0.0.0:PORT"),
        ("0.0.0.0", "0.0.0.0:1"),
        ("0.0.0.0", "*"),
        ("0.0.0.0", "0.0.0.0/255.0.0.0"),
        ("127.0.0.1", ""),
        (NAME, "example.tes,xample.test,.api.example.test,*.api.example.test"),
        (NAME, "example.test:1,[api.example.test],https://api.example.test"),
    ],
)
def test_the_proxy_of_the_environment_is_asked_when_kubectl_asks_it(
    tmp_path: Path, pki: Path, host: str, exceptions: str
) -> None:
    async def story(world: World) -> None:
        way = {**world.named, "server": f"https://{host}:{world.port}", "tls-server-name": NAME}
        variables = {
            "HTTPS_PROXY": f"127.0.0.1:{world.proxy.port}",
            "NO_PROXY": exceptions.replace("PORT", str(world.port)),
            "ALL_PROXY": "http://127.0.0.1:9",
        }
        assert "node-0" in await _asks(tmp_path, roads.write(tmp_path / "config", way, {"token": "t"}), **variables)
        assert bool(proxies.chosen(way["server"], variables)) is bool(world.proxy.asked)

    play(story, tmp_path, pki)
