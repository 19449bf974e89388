"""An API server with Node objects, fake or real, as an administrator drives it over HTTP."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hitless.kube.client import Client
from hitless.kube.contexts import Connection, KubeconfigCluster
from hitless.sources.annotations import PREFIX
from hitless.testing.api_server import FakeApi

__all__ = ["Cluster", "fake", "vxlan_says"]


@dataclass
class Cluster:
    """``token`` is the administrator's, ``flannel`` that of the account with flannel's rights."""

    url: str
    token: str = ""
    flannel: str = ""
    authority: bytes = b""

    def client(self) -> Client:
        return Client(
            Connection("a test", None, "", KubeconfigCluster(self.url, self.authority), "", token=self.flannel), {}
        )

    def ask(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        context = ssl.create_default_context(cadata=self.authority.decode()) if self.authority else None
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return json.loads(answer.read())

    def add(self, name: str, cidr: str, said: Mapping[str, str] = {}, size: int = 0) -> None:
        images = [{"names": [f"registry.example/{'x' * 100}-{at}"], "sizeBytes": at} for at in range(size // 150)]
        self.ask(
            "POST",
            "/api/v1/nodes",
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "annotations": dict(said)},
                "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
            },
        )
        if images:
            status = {"status": {"images": images}}
            self.ask("PATCH", f"/api/v1/nodes/{name}/status", status, "application/merge-patch+json")

    def annotate(self, name: str, said: Mapping[str, str | None]) -> None:
        body = {"metadata": {"annotations": dict(said)}}
        self.ask("PATCH", f"/api/v1/nodes/{name}", body, "application/merge-patch+json")

    def set_condition(self, name: str, status: str) -> None:
        one = {"type": "NetworkUnavailable", "status": status, "reason": "NoRouteCreated", "message": "a test"}
        body = {"status": {"conditions": [one]}}
        self.ask("PATCH", f"/api/v1/nodes/{name}/status", body, "application/strategic-merge-patch+json")

    def node(self, name: str) -> dict[str, Any]:
        found = self.ask("GET", f"/api/v1/nodes/{name}")
        assert isinstance(found, dict)
        return found

    def said(self, name: str) -> dict[str, str]:
        """flannel's annotations of a node, without their prefix."""
        held = self.node(name)["metadata"].get("annotations", {})
        return {key.removeprefix(PREFIX): text for key, text in held.items() if key.startswith(PREFIX)}

    def remove(self, name: str) -> None:
        self.ask("DELETE", f"/api/v1/nodes/{name}")

    def clear(self) -> None:
        for one in self.ask("GET", "/api/v1/nodes")["items"]:
            self.remove(one["metadata"]["name"])


def vxlan_says(number: int) -> dict[str, str]:
    """What a node with vxlan says."""
    return {
        f"{PREFIX}kube-subnet-manager": "true",
        f"{PREFIX}backend-type": "vxlan",
        f"{PREFIX}backend-data": f'{{"VNI":1,"VtepMAC":"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"}}',
        f"{PREFIX}public-ip": f"192.0.{2 + (number >> 8)}.{number & 255}",
    }


@contextmanager
def fake() -> Iterator[tuple[Cluster, FakeApi, asyncio.AbstractEventLoop]]:
    """The fake API server in a thread of its own."""
    api, loop, ready, over = FakeApi(bookmark_every=0.2), asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with api.serve():
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(30)
        yield Cluster(api.url), api, loop
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
        loop.close()
