"""Fake clusters for the tests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from hitless.kube.api import Api, Patience, connect
from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_server import FakeApi
from hitless.testing.endings import finish_turns, stop_listening

NET_CONF = '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}'


def canal(image: str = "rancher/hardened-flannel:v0.26.7-build20250515") -> dict[str, Any]:
    """RKE2's DaemonSet, as its chart renders it, less what is of no interest here."""
    labels = {"k8s-app": "canal"}
    return {
        "metadata": {"name": "rke2-canal", "namespace": "kube-system", "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "hostNetwork": True,
                    "terminationGracePeriodSeconds": 0,
                    "containers": [
                        {"name": "calico-node", "image": "rancher/hardened-calico:v3.30.0-build20250515"},
                        {"name": "kube-flannel", "image": image, "command": ["/opt/bin/flanneld"]},
                    ],
                    "volumes": [{"name": "flannel-cfg", "configMap": {"name": "rke2-canal-config"}}],
                },
            },
        },
    }


@asynccontextmanager
async def cluster(
    nodes: int = 3, *, agent: dict[str, Any] | None = None, tls: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[FakeNodes]:
    """A fake RKE2 cluster that serves."""
    async with FakeApi(bookmark_every=0.2).serve(tls) as api:
        fake = FakeNodes(api, **options)
        for number in range(nodes):
            labels = {"node-role.kubernetes.io/control-plane": "true"} if number == 0 else {}
            fake.add_node(f"node-{number}", labels=labels)
        document = agent or canal()
        place = document["metadata"]["namespace"]
        if place != "kube-system":
            api.store.create("namespaces", "", {"metadata": {"name": place}})
        config = {"metadata": {"name": "rke2-canal-config"}, "data": {"net-conf.json": NET_CONF}}
        api.store.create("configmaps", place, config)
        fake.add_daemon_set(document)
        try:
            yield fake
        finally:
            await fake.close()


@asynccontextmanager
async def client(fake: FakeNodes, folder: Path, *, total: float = 30.0) -> AsyncIterator[Api]:
    """The port, connected to the fake by a kubeconfig."""
    path = folder / "kubeconfig"
    path.write_text(fake.api.kubeconfig())
    async with connect(path, patience=Patience(total=total, first=0.02, longest=0.1)) as api:
        yield api


async def until(true: Callable[[], bool]) -> None:
    """Wait until it holds; the test's own time limit bounds it."""
    while not true():  # noqa: ASYNC110 - the fake's state has no event of its own
        await asyncio.sleep(0.01)


@asynccontextmanager
async def gateway(pushed: list[tuple[str, str]]) -> AsyncIterator[str]:
    """A Pushgateway that keeps what it gets."""

    async def put(request: web.BaseRequest) -> web.StreamResponse:
        pushed.append((request.path, (await request.read()).decode()))
        return web.Response()

    pushes = web.Server(put)
    server = await asyncio.get_running_loop().create_server(pushes, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await stop_listening(server)
        await pushes.shutdown(1.0)
        await finish_turns()


Story = Callable[[FakeNodes, Api], Coroutine[Any, Any, None]]


def play(story: Story, folder: Path, nodes: int = 2, **options: Any) -> None:
    """Run a story in a cluster of its own, with a client."""

    async def run() -> None:
        async with asyncio.timeout(240), cluster(nodes, **options) as fake, client(fake, folder) as api:
            await story(fake, api)

    asyncio.run(run())
