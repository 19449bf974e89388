"""The suite for real clusters, run against the fake: what strangers run must not be wrong by itself."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cluster import ground, judging
from tests.unit.cluster.clusters import until
from tools.build_image import Layout

from hitless import __version__
from hitless.errors import ApiError
from hitless.kube.api import connect
from hitless.kube.objects import CONFIG_MAPS
from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_server import FakeApi

ROOT = Path(__file__).parents[3]
IMAGE = f"ghcr.io/hitless/hitless:{__version__}"
Suite = Callable[..., Coroutine[Any, Any, tuple[int, str]]]
pytestmark = pytest.mark.timeout(300)


def admin(folder: Path) -> tuple[ssl.SSLContext, dict[str, Any], dict[str, Any]]:
    """As kubeadm, K3s and kind leave it: TLS by a CA of one's own, and a client's certificate instead of a token."""
    key, certificate = folder / "key", folder / "crt"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*words, "-keyout", str(key), "-out", str(certificate)], capture_output=True, check=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    tls.load_verify_locations(certificate)
    tls.verify_mode = ssl.CERT_OPTIONAL  # accounts have tokens
    data = {path: base64.b64encode(path.read_bytes()).decode() for path in (key, certificate)}
    user = {"client-certificate-data": data[certificate], "client-key-data": data[key]}
    return tls, {"certificate-authority-data": data[certificate]}, user


def play(story: Callable[[FakeNodes, Suite], Coroutine[Any, Any, None]], folder: Path, *unstartable: str) -> None:
    """A cluster of one control-plane node by hand: no network agent, no pod network in the node, no second node."""

    async def run() -> None:
        tls, authority, user = admin(folder)
        async with FakeApi().serve(tls) as api:
            fake = FakeNodes(api, start_delay=0.05, status_delay=4.0, unstartable=set(unstartable))
            api.faults.authorizer_delay = 4.0
            fake.add_node("only", version="v1.34.1", labels={"node-role.kubernetes.io/control-plane": ""})
            api.store.change("nodes", "", "only", lambda node: node.__setitem__("spec", {}))
            config = folder / "kubeconfig"
            document = json.loads(api.kubeconfig())
            document["clusters"][0]["cluster"] |= authority
            document["users"][0]["user"] = user
            config.write_text(json.dumps(document))

            async def suite(*words: str, **environment: str) -> tuple[int, str]:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/cluster", *words,
                    cwd=ROOT,
                    env={**os.environ, "KUBECONFIG": str(config), **environment},
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                )  # fmt: skip
                try:
                    out, _ = await process.communicate()
                finally:
                    if process.returncode is None:
                        process.kill()
                        await process.communicate()
                assert process.returncode is not None
                return process.returncode, out.decode()

            try:
                await story(fake, suite)
            finally:
                await fake.close()

    asyncio.run(run())


def left(fake: FakeNodes) -> list[tuple[str, str, str]]:
    return [key for key in fake.api.store.objects if "hitless" in key[1] + key[2]]


def test_it_brings_what_a_cluster_of_one_node_lacks_passes_and_leaves_nothing(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, suite: Suite) -> None:
        store = fake.api.store
        killed = {"metadata": {"name": "hitless-e2e-0-stage"}}  # of a suite that was killed yesterday
        store.create("namespaces", "", killed)
        code, out = await suite("-k", "dry_run or admitted or delete-pod or image")
        assert code == 0, out
        assert "5 passed" in out
        assert left(fake) == []
        assert fake.api.faults.early > 0
        made = {one["metadata"]["name"] for one in fake.pods_made}
        assert {"greeting-0", "world"} <= made
        assert any(name.startswith("hitless-e2e-agent") for name in made)

    play(story, tmp_path, "localhost/no-such-image:1")


@pytest.mark.parametrize("minor", [27, 30])
def test_it_asks_an_older_server_in_its_own_words(tmp_path: Path, minor: int) -> None:
    """Before 1.30 a server that is asked to be strict refuses ``appArmorProfile``, and reads an annotation instead."""

    async def story(fake: FakeNodes, suite: Suite) -> None:
        fake.api.minor = minor
        security = {"appArmorProfile": {"type": "Unconfined"}}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": "a",
                "annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"},
            },
            "spec": {"containers": [{"name": "c", "securityContext": security}]},
        }
        async with connect(tmp_path / "kubeconfig") as api:
            assert await ground.minor(api) == minor
            params = {"dryRun": "All", "fieldValidation": "Strict"}
            asked = [pod, ground.in_words_of(pod, minor)]
            path = "/api/v1/namespaces/default/pods"
            answers = [await api.client.post(path, params=params, json=one) for one in asked]
        assert [one.is_success for one in answers] == [minor >= 30, True], [one.text for one in answers]
        assert "appArmorProfile" in answers[0].text
        if minor < 30:
            code, out = await suite("-k", "strictly")
            assert (code, "1 passed" in out) == (0, True), out

    play(story, tmp_path)


def test_what_an_older_server_does_not_read_must_stand_in_the_older_form_too() -> None:
    security = {"appArmorProfile": {"type": "Unconfined"}}
    spec = {"containers": [{"name": "c", "securityContext": security}]}
    for told in ({}, {"container.apparmor.security.beta.kubernetes.io/c": "runtime/default"}):
        pod = {"kind": "Pod", "metadata": {"annotations": told}, "spec": spec}
        with pytest.raises(AssertionError, match="without its older form"):
            ground.in_words_of(pod, 29)
        assert ground.in_words_of(pod, 30) == pod


def test_a_node_without_the_image_is_said_at_once_with_the_command_that_loads_it(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, suite: Suite) -> None:
        loaded = tmp_path / "loaded"
        (tmp_path / "image.tar").write_text("an archive")
        environment = {"HITLESS_ARCHIVE": str(tmp_path / "image.tar"), "HITLESS_LOAD": f"cp -t {loaded}"}
        loaded.mkdir()
        code, out = await suite("-k", "admitted", **environment)
        assert code == 1
        assert (loaded / "image.tar").exists()
        assert f"node only lacks the image {IMAGE}" in out
        assert f"ctr -n k8s.io images import {tmp_path / 'image.tar'}" in out
        assert "ErrImageNeverPull" not in out.partition("the cluster")[0]
        assert left(fake) == []

    play(story, tmp_path, IMAGE)


def test_a_drill_that_was_disturbed_is_given_a_second_chance(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, suite: Suite) -> None:
        running = asyncio.create_task(suite("-k", "delete-pod"))

        async def made(role: str, number: int) -> None:
            await until(
                lambda: running.done() or sum(role in one["metadata"]["name"] for one in fake.pods_made) >= number
            )

        try:
            await made("hitless-watch", 1)
            fake.cut_off("only", 100)  # no egress before the first restart
            await made("hitless-peer", 2)
            assert fake.reconnect("only"), "until the second drill begins"
            code, out = await running
        finally:
            running.cancel()
        assert code == 0, out
        assert "1 passed" in out
        assert left(fake) == []

    play(story, tmp_path)


def test_it_passes_where_no_namespace_ever_goes(tmp_path: Path) -> None:
    """K3s without internet: metrics-server has no image, and its part of the API is registered all the same."""

    async def story(fake: FakeNodes, suite: Suite) -> None:
        store = fake.api.store
        store.broken = "metrics.k8s.io/v1beta1"
        condition = {"type": "Available", "status": "False", "reason": "MissingEndpoints"}
        name = "v1beta1.metrics.k8s.io"
        store.create(
            "apiservices.apiregistration.k8s.io",
            "",
            {"metadata": {"name": name}, "status": {"conditions": [condition]}},
        )
        store.create("namespaces", "", {"metadata": {"name": "hitless-e2e-0"}})
        store.remove("namespaces", "", "hitless-e2e-0")  # an earlier suite's
        code, out = await suite("-k", "dry_run or swept")
        assert code == 0, out
        assert "3 passed" in out
        names = {(kind, place, name) for kind, place, name in left(fake)}
        assert {kind for kind, _, _ in names} == {"namespaces"}
        assert all("deletionTimestamp" in store.get(*key)["metadata"] for key in names)

    play(story, tmp_path)


def test_an_archive_of_another_image_is_not_loaded(tmp_path: Path) -> None:
    layout = Layout("ghcr.io/hitless/hitless:0.0.1")
    layout.add("amd64", b"", "sha256:0", "0.0.1", "2026-01-01T00:00:00Z")
    layout.write(tmp_path / "image.tar")

    async def story(fake: FakeNodes, suite: Suite) -> None:
        environment = {"HITLESS_ARCHIVE": str(tmp_path / "image.tar"), "HITLESS_LOAD": "false"}
        code, out = await suite("-k", "admitted", **environment)
        assert code == 1
        assert f"image.tar holds ghcr.io/hitless/hitless:0.0.1, and the pods ask for {IMAGE}" in out
        code, out = await suite("-k", "admitted", **environment, HITLESS_IMAGE="hitless/hitless:0.0.1")
        assert "HITLESS_LOAD: false" in out

    play(story, tmp_path)


def lock(fake: FakeNodes, holder: str) -> None:
    document = {"metadata": {"name": ground.LOCK}, "data": {"holder": holder}}
    fake.api.store.create("configmaps", "default", document)


def holder(fake: FakeNodes) -> str:
    return str(fake.api.store.get("configmaps", "default", ground.LOCK)["data"]["holder"])


class Clock:
    """The suite's own clock, which a test sets; it looks again without waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(ground, "time", SimpleNamespace(monotonic=lambda: self.now, time=time.time))
        monkeypatch.setattr(ground, "LOOK", 0.01)


async def looked(fake: FakeNodes) -> None:
    """Wait until the lock was read twice: the second time, after now, and with what the clock says now."""

    def looks() -> int:
        return sum(one.verb == "get" and one.resource == "configmaps" for one in fake.api.rights.requests)

    before = looks()
    await until(lambda: looks() >= before + 3)  # the third is asked for when the second has been judged


def test_a_killed_suites_lock_is_taken_when_nobody_renews_it_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)

    async def story(fake: FakeNodes, suite: Suite) -> None:
        lock(fake, "killed")
        async with asyncio.timeout(90), connect(tmp_path / "kubeconfig") as api:
            taking = asyncio.create_task(ground.take(api))
            await looked(fake)
            clock.now += ground.STALE - 1
            await looked(fake)
            assert not taking.done()
            clock.now += 1
            await taking
            assert holder(fake) == ground.TOKEN
            await ground.renew(api)
            await ground.release(api)
        assert left(fake) == []

    play(story, tmp_path)


def test_a_suite_waits_for_another_that_renews_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    async def story(fake: FakeNodes, suite: Suite) -> None:
        lock(fake, "another")
        async with asyncio.timeout(90), connect(tmp_path / "kubeconfig") as api:
            taking = asyncio.create_task(ground.take(api))
            renewal = {"data": {"renewed": ""}}
            for number in range(5):
                renewal["data"]["renewed"] = str(number)
                await api.patch(CONFIG_MAPS, ground.LOCK, "default", renewal, "application/merge-patch+json")
                await looked(fake)
                clock.now += ground.STALE - 1
                await looked(fake)
            assert not taking.done()
            assert holder(fake) == "another"
            with pytest.raises(ApiError, match="another suite"):
                await ground.renew(api)
            fake.api.store.remove("configmaps", "default", ground.LOCK)
            await taking
            assert holder(fake) == ground.TOKEN
            await ground.release(api)

    play(story, tmp_path)


@pytest.mark.parametrize(
    ("reasons", "foreign", "judgement"),
    [
        (
            ["rule events were lost (1 time, 31.0 ms)", "the prober sent less than half of its rate in round 1"],
            False,
            "accepted",
        ),
        (
            ["the prober was up to 1.2 s late: this machine was too busy to see shorter outages of traffic"],
            False,
            "accepted",
        ),
        (["2 failures without proof (2 the prober was starved)"], False, "accepted"),
        (["2 failures without proof (1 the far end was down, 1 the prober was starved)"], False, "again"),
        (["unhealthy before the first restart: 3 of 300 attempts failed (3 no answer although …)"], False, "again"),
        (["the agent was never restarted (the rules did not carry egress before any restart: …)"], False, "again"),
        (["for 2.0 s the rules could not be understood: meta cgroup"], True, "accepted"),
        (["for 2.0 s the rules could not be understood: meta cgroup"], False, "failed"),
        (["only 1 of 2 restarts came to ready again"], False, "failed"),
        (["the record of probe is cut off: it did not come to its end", "rule events were lost (…)"], False, "failed"),
        ([], False, "failed"),
    ],
)
def test_only_a_busy_machine_and_rules_of_others_excuse_a_drill_without_verdict(
    reasons: list[str], foreign: bool, judgement: str
) -> None:
    assert judging.judge(reasons, foreign=foreign) == judgement
