"""Login programs: tokens, certificates, what they are told, and when they are asked again."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster import roads
from tests.unit.cluster.clusters import until
from tests.unit.cluster.roads import NAME, World, play, works

from hitless.errors import InputError
from hitless.kube.api import Patience, connect
from hitless.kube.objects import NODES

V1 = "client.authentication.k8s.io/v1"


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

    def forget(self) -> None:
        """It fails from now on."""
        (self._folder / "answer").unlink()

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
        ended = "2020-01-01T00:00:00.123456789Z"
        program.answer(token="t", expirationTimestamp=ended, clientCertificateData=None, clientKeyData=None)
        async with world.connect(world.by_proxy, program.user) as api:
            for _ in range(2):
                await api.all(NODES)
            assert len(program.told) == 3

    play(story, tmp_path, pki)


def test_a_login_that_cannot_be_renewed_yet_is_waited_for(tmp_path: Path, pki: Path) -> None:
    """The drill itself may have cut us off from whom the program asks."""

    async def story(world: World) -> None:
        program = LoginProgram(tmp_path)
        with pytest.raises(InputError, match="ended with 1"):
            await works(world.connect(world.by_proxy, program.user))
        program.answer(token="one")
        path = roads.write(tmp_path / "config", world.by_proxy, program.user)
        async with connect(path, patience=Patience(total=20.0, first=0.02, longest=0.1)) as api:
            await api.all(NODES)
            world.seen.token = "two"
            program.forget()
            before = len(program.told)
            asking = asyncio.create_task(api.all(NODES))
            await until(lambda: len(program.told) >= before + 2)
            program.answer(token="two")
            assert len(await asking) == 1

    play(story, tmp_path, pki)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, "gave no token"),
        ({"clientCertificateData": "secret"}, "gave half a certificate"),
        ({"token": "secret", "clientKeyData": "secret"}, "gave half a certificate"),
        ({"clientCertificateData": "secret", "clientKeyData": "secret"}, "is not PEM"),
        ({"token": ["secret"]}, "gave no credential"),
        ({"token": "secret", "expirationTimestamp": "secret"}, "gave no credential"),
    ],
)
def test_a_login_program_that_gives_no_credential_is_named_and_not_quoted(
    tmp_path: Path, pki: Path, status: dict[str, Any], said: str
) -> None:
    async def story(world: World) -> None:
        program = LoginProgram(tmp_path)
        program.answer(**status)
        with pytest.raises(InputError, match=said) as caught:
            await works(world.connect(world.by_proxy, program.user))
        assert "secret" not in str(caught.value)

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


def _runs(pid: int) -> bool:
    """Whether it does; its parent, which is not we, may take its time to take note of its end, or never do it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
def test_a_login_program_that_hangs_is_ended_with_the_one_who_waited(tmp_path: Path, pki: Path) -> None:
    async def story(world: World) -> None:
        program = tmp_path / "login"
        # it is late, as asyncio waits for the pipes of a process that it is made to give up while it starts it
        program.write_text(f"#!/bin/sh\nsleep 0.3\nsleep 1000 & echo $! > {tmp_path}/pid\nwait\n")
        program.chmod(0o755)
        async with world.connect(world.by_proxy, {"exec": {"apiVersion": V1, "command": "./login"}}) as api:
            asking = asyncio.create_task(api.all(NODES))
            await until(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()))
            await asyncio.sleep(0.05)  # some turns of the loop: it has taken note that the process began
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(90):
                    await asking
        child = int((tmp_path / "pid").read_text())
        await until(lambda: not _runs(child))

    play(story, tmp_path, pki)
