"""Tokens that end, login programs, and servers that break off in the middle of a word."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster.clusters import client, cluster, until

from hitless.errors import ApiError, InputError
from hitless.kube import streams
from hitless.kube.access import access
from hitless.kube.api import Api, Patience, connect
from hitless.kube.objects import CONFIG_MAPS, NODES
from hitless.testing.api_kubelet import FakeNodes, Spool

QUICK = Patience(total=30.0, first=0.02, longest=0.1)


def play(story: Callable[[FakeNodes, Path], Coroutine[Any, Any, None]], folder: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(240), cluster(2) as fake:
            await story(fake, folder)

    asyncio.run(run())


def kubeconfig(fake: FakeNodes, folder: Path, user: dict[str, Any]) -> Path:
    document = json.loads(fake.api.kubeconfig())
    document["users"][0]["user"] = user
    path = folder / "kubeconfig"
    path.write_text(json.dumps(document))
    return path


def test_a_token_that_ended_is_read_again_from_the_kubeconfig(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, folder: Path) -> None:
        fake.api.faults.token = "first"
        async with connect(kubeconfig(fake, folder, {"token": "first"}), patience=QUICK) as api:
            assert len(await api.all(NODES)) == 2
            fake.api.faults.token = "second"
            kubeconfig(fake, folder, {"token": "second"})
            assert len(await api.all(NODES)) == 2
            assert fake.api.faults.unauthorized == 1

    play(story, tmp_path)


def test_a_server_that_knew_us_is_given_time_and_one_that_never_did_is_not(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, folder: Path) -> None:
        path = kubeconfig(fake, folder, {"token": "mine"})
        async with connect(path, patience=QUICK) as api:
            fake.api.faults.token = "another"
            with pytest.raises(ApiError, match="Unauthorized") as caught:
                await api.all(NODES)
            assert caught.value.status == 401
            assert fake.api.faults.unauthorized == 1
            fake.api.faults.token = "mine"
            await api.all(NODES)
            fake.api.faults.token = "another"
            asking = asyncio.create_task(api.all(NODES))
            await until(lambda: asking.done() or fake.api.faults.unauthorized > 3)
            fake.api.faults.token = "mine"
            assert len(await asking) == 2

    play(story, tmp_path)


def test_a_stream_goes_on_over_a_token_that_ended(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, folder: Path) -> None:
        fake.api.faults.token = "old"
        pod = {"metadata": {"name": "pod"}, "spec": {"nodeName": "node-0", "containers": [{"name": "c", "image": "i"}]}}
        fake.api.store.create("pods", "default", pod)
        spool = fake.spools["pod"] = Spool()
        await until(
            lambda: (fake.api.store.get("pods", "default", "pod").get("status") or {}).get("phase") == "Running"
        )
        async with connect(kubeconfig(fake, folder, {"token": "old"}), patience=QUICK) as api:
            await api.all(NODES)
            got: list[bytes] = []
            command = ["hitless", "relay", "read", "--spool", "/spool", "--from"]
            following = asyncio.create_task(
                streams.follow(api, "pod", "default", "c", lambda at: [*command, str(at)], got.append)
            )
            spool.data += b"one\ntw"
            spool.grown.set()
            spool.grown = asyncio.Event()
            await until(lambda: got == [b"one"])
            fake.api.faults.token = "new"
            fake.api.faults.cut(0.05)
            await until(lambda: fake.api.faults.unauthorized > 0)
            kubeconfig(fake, folder, {"token": "new"})
            spool.data += b"o\nthree\n"
            spool.done = True
            spool.grown.set()
            await following
            assert got == [b"one", b"two", b"three"]

    play(story, tmp_path)


@pytest.mark.parametrize("version", ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"])
def test_a_login_program_is_asked_once_and_again_after_a_refusal(tmp_path: Path, version: str) -> None:
    async def story(fake: FakeNodes, folder: Path) -> None:
        program = folder / "login"
        program.write_text(
            "#!/bin/sh\necho asked >> $COUNT\n"
            'case "$KUBERNETES_EXEC_INFO" in *ExecCredential*) ;; *) exit 9;; esac\n'
            'echo "{\\"kind\\": \\"ExecCredential\\", \\"status\\": {\\"token\\": \\"$(cat $TOKEN)\\"}}"\n'
        )
        program.chmod(0o755)
        count, token = folder / "count", folder / "token"
        token.write_text("a")
        env = [{"name": "COUNT", "value": str(count)}, {"name": "TOKEN", "value": str(token)}]
        user = {"exec": {"apiVersion": version, "command": str(program), "args": [], "env": env}}
        fake.api.faults.token = "a"
        async with connect(kubeconfig(fake, folder, user), patience=QUICK) as api:
            for _ in range(3):
                assert len(await api.all(NODES)) == 2
            assert count.read_text().count("asked") == 1
            token.write_text("b")
            fake.api.faults.token = "b"
            assert len(await api.all(NODES)) == 2
            assert count.read_text().count("asked") == 2

    play(story, tmp_path)


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"exec": {"apiVersion": "x/v9", "command": "true"}}, "x/v9"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-login"}}, "no-such-login"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "false"}}, "ended with 1"),
        ({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "true"}}, "no credential"),
        ({"tokenFile": "/nonexistent/token"}, "cannot be read"),
        ({"auth-provider": {"name": "gcp"}}, "auth-provider"),
    ],
)
def test_a_login_that_cannot_work_is_said_with_the_kubeconfig(tmp_path: Path, user: dict[str, Any], said: str) -> None:
    async def story(fake: FakeNodes, folder: Path) -> None:
        with pytest.raises(InputError, match=said) as caught:
            async with connect(kubeconfig(fake, folder, user), patience=QUICK) as api:
                await api.all(NODES)
        assert "kubeconfig" in str(caught.value)

    play(story, tmp_path)


@pytest.mark.slow
def test_a_watch_that_is_torn_in_the_middle_of_a_line_goes_on_without_a_hole(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, folder: Path) -> None:
        async with client(fake, folder) as api:
            fake.api.faults.tear(3)
            seen: set[str] = set()

            async def look() -> None:
                async for state in api.states(CONFIG_MAPS, "default"):
                    seen.update(one.name for one in state.values())
                    if "last" in seen:
                        return

            looking = asyncio.create_task(look())
            for number in range(20):
                fake.api.store.create("configmaps", "default", {"metadata": {"name": f"c{number}"}})
                await asyncio.sleep(0.02)
            fake.api.store.create("configmaps", "default", {"metadata": {"name": "last"}})
            await looking
            assert fake.api.faults.torn == 3
            assert seen == {"last", *(f"c{number}" for number in range(20))}

    play(story, tmp_path)


@pytest.mark.slow
def test_time_in_which_the_server_was_silent_does_not_count_as_waiting(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, folder: Path) -> None:
        async with client(fake, folder) as api:
            asyncio.get_running_loop().call_later(0.2, fake.api.faults.cut, 3.5)
            create = fake.api.store.create
            asyncio.get_running_loop().call_later(3.8, create, "configmaps", "default", {"metadata": {"name": "late"}})
            found = await api.wait_for(CONFIG_MAPS, "default", lambda state: bool(state), within=3.0)
            assert found, "it came as soon as the server was back, and three seconds were to be waited"
            assert await api.wait_for(CONFIG_MAPS, "default", lambda state: len(state) > 9, within=0.3) is None

    play(story, tmp_path)


@pytest.mark.slow
def test_a_new_namespaces_service_account_is_waited_for(tmp_path: Path) -> None:
    from hitless.testing.api_store import StatusError

    async def story(fake: FakeNodes, folder: Path) -> None:
        words = 'pods "x" is forbidden: error looking up service account a/default: serviceaccount "default" not found'
        fake.api.faults.failures = [StatusError(403, "Forbidden", words)]
        async with client(fake, folder) as api:
            station = _station(api)
            await station.start(10.0)
            await station.dismiss()
        assert fake.api.store.get("pods", "default", "x")

    play(story, tmp_path)


def test_a_pod_that_is_not_admitted_is_said_with_the_remedy(tmp_path: Path) -> None:
    from hitless.errors import MissingError
    from hitless.testing.api_store import StatusError

    async def story(fake: FakeNodes, folder: Path) -> None:
        words = 'pods "x" is forbidden: violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)'
        fake.api.faults.failures = [StatusError(403, "Forbidden", words)]
        async with client(fake, folder) as api:
            with pytest.raises(MissingError, match=r"host namespaces.*Pod Security"):
                await _station(api).start(10.0)

    play(story, tmp_path)


def _station(api: Api) -> Any:
    from hitless.cluster.pods import DrillPod

    document = {
        "metadata": {"name": "x", "namespace": "default", "labels": {"app.kubernetes.io/component": "probe"}},
        "spec": {"nodeName": "node-0", "containers": [{"name": "hitless", "image": "i"}]},
    }
    return DrillPod(api, document, lambda: 0, lambda *_: None, lambda _: None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is not a kubeconfig"),
        ("[]", "it is not a kubeconfig"),
        ("foo: bar", "it has no clusters"),
        ("{", "while parsing a flow node expected the node content"),
    ],
)
def test_what_is_no_kubeconfig_is_said_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(f"{path}: {said}")) as caught:
        access(path, None)
    assert "\n" not in str(caught.value)
