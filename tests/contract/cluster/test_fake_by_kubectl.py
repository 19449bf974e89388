"""The fake API server held against somebody else's client: a real kubectl."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster.clusters import cluster, until

from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_rights import RbacRule, Rights

KUBECTL = Path(sys.executable).parent / "kubectl"
pytestmark = pytest.mark.skipif(not KUBECTL.exists(), reason="no kubectl beside this Python")

CONFIG = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "c", "namespace": "default"},
    "data": {"a": "1"},
}


class Kubectl:
    """A kubectl for the fake."""

    def __init__(self, fake: FakeNodes, folder: Path) -> None:
        self.fake, self.store = fake, fake.api.store
        self._folder = folder
        (folder / "kubeconfig").write_text(fake.api.kubeconfig())

    async def begin(self, *words: str, given: Any = None) -> asyncio.subprocess.Process:
        environment = {**os.environ, "KUBECONFIG": str(self._folder / "kubeconfig"), "HOME": str(self._folder)}
        process = await asyncio.create_subprocess_exec(
            KUBECTL,
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        assert process.stdin is not None
        if given is not None:
            process.stdin.write((given if isinstance(given, str) else json.dumps(given)).encode())
            process.stdin.close()
        return process

    async def __call__(self, *words: str, given: Any = None, code: int = 0) -> str:
        process = await self.begin(*words, given=given)
        try:
            async with asyncio.timeout(90):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        assert process.returncode == code, (words, out, err)
        return (out if code == 0 else err).decode()

    def config(self) -> Any:
        return self.store.get("configmaps", "default", "c")


@contextlib.asynccontextmanager
async def ended(process: asyncio.subprocess.Process) -> AsyncIterator[asyncio.StreamReader]:
    """Its standard output; the process is taken away at the end."""
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def play(story: Callable[[Kubectl], Coroutine[Any, Any, None]], folder: Path, **options: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(240), cluster(1, **options) as fake:
            await until(lambda: _ready(fake))
            await story(Kubectl(fake, folder))

    asyncio.run(run())


def _ready(fake: FakeNodes) -> bool:
    return all((pod.get("status") or {}).get("phase") == "Running" for pod in fake.api.store.all("pods"))


def test_it_reads_lists_objects_and_watches_over_bookmarks(tmp_path: Path) -> None:
    async def story(kubectl: Kubectl) -> None:
        assert "node-0" in await kubectl("get", "nodes")
        assert "rke2-canal" in await kubectl("get", "daemonsets", "-A")
        found = json.loads(await kubectl("get", "pods", "-n", "kube-system", "-l", "k8s-app=canal", "-o", "json"))
        assert [one["spec"]["nodeName"] for one in found["items"]] == ["node-0"]
        assert 'pods "gone" not found' in await kubectl("get", "pod", "gone", code=1)
        watching = await kubectl.begin("get", "configmaps", "-w", "-o", "name")
        async with ended(watching) as lines:
            await until(lambda: any(one.verb == "watch" for one in kubectl.fake.api.rights.requests))
            await asyncio.sleep(0.5)  # over two bookmarks
            kubectl.store.create("configmaps", "default", CONFIG)
            assert await lines.readline() == b"configmap/c\n"

    play(story, tmp_path)


def test_it_creates_applies_and_patches_in_all_four_ways(tmp_path: Path) -> None:
    async def story(kubectl: Kubectl) -> None:
        apply = ("apply", "--validate=false", "-f", "-")
        await kubectl(*apply, given=CONFIG)
        await kubectl(*apply, given={**CONFIG, "data": {"a": "2", "b": "3"}})
        assert kubectl.config()["data"] == {"a": "2", "b": "3"}
        await kubectl("apply", "--server-side", "--force-conflicts", "--validate=false", "-f", "-", given=CONFIG)
        assert kubectl.config()["data"]["a"] == "1"
        for kind, patch in (
            ("merge", {"data": {"b": None, "m": "m"}}),
            ("strategic", {"data": {"s": "s"}}),
            ("json", [{"op": "replace", "path": "/data/a", "value": "j"}, {"op": "remove", "path": "/data/s"}]),
        ):
            await kubectl("patch", "configmap", "c", "--type", kind, "-p", json.dumps(patch))
        assert kubectl.config()["data"] == {"a": "j", "m": "m"}
        said = await kubectl("create", "--validate=false", "-f", "-", given=CONFIG, code=1)
        assert "(AlreadyExists)" in said
        assert 'configmaps "c" already exists' in said

    play(story, tmp_path)


def test_it_deletes_with_grace_by_force_and_whole_namespaces(tmp_path: Path) -> None:
    async def story(kubectl: Kubectl) -> None:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
        await kubectl("create", "--validate=false", "-f", "-", given=namespace)
        for name in ("slow", "forced", "left"):
            spec = {"nodeName": "node-0", "containers": [{"name": "c", "image": "i"}]}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"}, "spec": spec}
            kubectl.store.create("pods", "n", pod)
        assert "deleted" in await kubectl("delete", "pod", "slow", "-n", "n", "--grace-period=5")
        await kubectl("delete", "pod", "forced", "-n", "n", "--force", "--grace-period=0")
        assert [one["metadata"]["name"] for one in kubectl.store.all("pods", "n")] == ["left"]
        await kubectl("delete", "namespace", "n")  # waits until it is gone
        assert kubectl.store.all("pods", "n") == []
        assert 'namespaces "n" not found' in await kubectl("get", "namespace", "n", code=1)

    play(story, tmp_path, start_delay=0.3)


def test_it_runs_commands_follows_logs_and_evicts(tmp_path: Path) -> None:
    async def story(kubectl: Kubectl) -> None:
        (pod,) = kubectl.store.all("pods", "kube-system")
        name = pod["metadata"]["name"]
        place = ("-n", "kube-system", name, "-c", "kube-flannel")
        told = await kubectl("exec", "-i", *place, "--", "hitless", "relay", "clock", given="one line\n")
        assert int(told) > 0  # the end of standard input ends the command: channel.k8s.io v5
        assert "exit code 127" in await kubectl("exec", *place, "--", "no-such", code=127)
        following = await kubectl.begin("logs", "-f", "-n", "kube-system", name, "-c", "kube-flannel")
        async with ended(following) as lines:
            assert await lines.readline() == f"log of {name}/kube-flannel\n".encode()
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            path = f"/api/v1/namespaces/kube-system/pods/{name}/eviction"
            assert "Success" in await kubectl("create", "--raw", path, "-f", "-", given=eviction)
            assert await lines.read() == b""
            assert await following.wait() == 0

    play(story, tmp_path)


async def _may(kubectl: Kubectl, verb: str, resource: str, sub: str = "") -> bool:
    """As ``auth can-i``, which sends protobuf and which the fake refuses with 415."""
    asked = {"namespace": "default", "verb": verb, "resource": resource, "subresource": sub}
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    said = await kubectl("create", "--raw", path, "-f", "-", given={**kind, "spec": {"resourceAttributes": asked}})
    return bool(json.loads(said)["status"]["allowed"])


def test_it_is_told_what_it_may_and_what_is_forbidden(tmp_path: Path) -> None:
    async def story(kubectl: Kubectl) -> None:
        kubectl.fake.api.rights = Rights(
            [RbacRule("get", "", "pods", "default"), RbacRule("create", "", "pods/exec", "default")]
        )
        assert await _may(kubectl, "get", "pods")
        assert await _may(kubectl, "create", "pods", "exec")
        assert not await _may(kubectl, "delete", "pods")
        user = f'User "{kubectl.fake.api.rights.user}" cannot'
        said = await kubectl("get", "daemonsets", code=1)
        assert (
            f'(Forbidden): daemonsets.apps is forbidden: {user} list resource "daemonsets" in API group "apps"' in said
        )
        kubectl.store.create(
            "pods",
            "default",
            {"metadata": {"name": "p"}, "spec": {"nodeName": "node-0", "containers": [{"name": "c", "image": "i"}]}},
        )
        said = await kubectl("logs", "p", "-c", "c", code=1)
        assert f'pods "p" is forbidden: {user} get resource "pods/log" in API group ""' in said

    play(story, tmp_path)
