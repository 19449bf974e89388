"""Kubelets whose pods really run: the drill's tools and a stand-in agent, in the namespaces of a lab.

The API server is the fake; everything below it is real: ``hitless relay`` with probe, watch and far end, by their own
manifests, in a pod's namespace or on the node, and flannel's command sequence with real rules.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from hitless import lab
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.lab import agents
from hitless.model.families import Family
from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_server import Command, FakeApi

HITLESS = (sys.executable, "-P", "-m", "hitless")
Document = dict[str, Any]


class LabKubelets(FakeNodes):
    """The fake nodes, with processes in them. ``agent`` names the stand-in that the DaemonSet's pods run."""

    def __init__(self, api: FakeApi, built: lab.Lab, folder: Path, agent: str) -> None:
        super().__init__(api)
        self.built, self.folder, self.agent = built, folder, agents.named(agent)
        self._agents: dict[str, asyncio.subprocess.Process] = {}
        self._relays: dict[str, asyncio.subprocess.Process] = {}
        self._free = {node.name: list(node.pods) for node in built.nodes}
        self._places: dict[str, lab.LabPod] = {}
        for node in built.nodes:
            subnet = str(node.subnets[Family.IPV4])
            document = {
                "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name}},
                "spec": {"podCIDR": subnet, "podCIDRs": [subnet]},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "nodeInfo": {"kubeletVersion": "v1.32.5+rke2r1", "operatingSystem": "linux"},
                    "addresses": [{"type": "InternalIP", "address": str(node.address)}],
                },
            }
            api.store.create("nodes", "", document)

    def _node(self, pod: Document) -> lab.LabNode:
        return next(node for node in self.built.nodes if node.name == pod["spec"]["nodeName"])

    def _namespace(self, pod: Document) -> Namespace:
        if pod["spec"].get("hostNetwork"):
            return self._node(pod).namespace
        name = pod["metadata"]["uid"]
        if name not in self._places:
            self._places[name] = self._free[pod["spec"]["nodeName"]].pop()
        return self._places[name].namespace

    def address(self, pod: Document) -> str:
        if pod["spec"].get("hostNetwork"):
            return str(self._node(pod).address)
        self._namespace(pod)
        return str(self._places[pod["metadata"]["uid"]].address)

    def _spool(self, pod: Document) -> Path:
        path = self.folder / str(pod["metadata"]["uid"])
        path.mkdir(exist_ok=True)
        return path

    async def started(self, pod: Document) -> None:
        if pod["metadata"]["name"].startswith("rke2-canal"):
            await self._start_agent(pod)

    async def _start_agent(self, pod: Document) -> None:
        node = self._node(pod)
        command = self.agent.command(self.built.plan, node)
        ready = node.root / self.agent.readiness.what.lstrip("/")
        ready.unlink(missing_ok=True)
        environment = agents.environment(self.built.plan, node)
        process = await processes.start_async(
            command,
            namespace=node.namespace,
            environment=environment,
            stdout=processes.DEVNULL,
            stderr=processes.DEVNULL,
        )
        self._agents[pod["metadata"]["uid"]] = process
        while not ready.exists() and process.returncode is None:  # noqa: ASYNC110 - as a kubelet asks
            await asyncio.sleep(0.02)

    async def stopped(self, pod: Document, grace: int | None) -> None:
        uid = pod["metadata"]["uid"]
        process = self._agents.pop(uid, None) or self._relays.pop(uid, None)
        if process is None:
            return
        given = grace if grace is not None else pod["spec"].get("terminationGracePeriodSeconds", 30)
        process.terminate()
        try:
            async with asyncio.timeout(max(2, given)):  # the kubelet allows two seconds where none were given
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        if uid in self._places:
            self._free[pod["spec"]["nodeName"]].append(self._places.pop(uid))

    async def relay(self, pod: Document) -> None:
        container = pod["spec"]["containers"][0]
        spool, ip = self._spool(pod), self.address(pod)
        words = [word.replace("$(POD_IP)", ip) for word in [*container["command"][1:], *container["args"]]]
        words[words.index("--spool") + 1] = str(spool)
        process = await processes.start_async(
            [*HITLESS, *words],
            namespace=self._namespace(pod),
            stdout=processes.DEVNULL,
            stderr=processes.DEVNULL,
        )
        self._relays[pod["metadata"]["uid"]] = process
        await process.wait()

    def command(self, pod: Document, container: str) -> Command:
        spool, namespace = self._spool(pod), self._namespace(pod)

        async def run(
            argv: list[str], stdin: asyncio.Queue[bytes | None], out: Callable[[bytes], Awaitable[None]]
        ) -> int:
            if argv[:3] == ["hitless", "relay", "signal"]:
                return self._kill(argv[argv.index("--container") + 1])
            words = [str(spool) if word == "/spool" else word for word in argv[1:]]
            process = await processes.start_async(
                [*HITLESS, *words], namespace=namespace, stdin=processes.PIPE, stderr=processes.DEVNULL
            )
            assert process.stdin is not None
            assert process.stdout is not None

            async def feed() -> None:
                assert process.stdin is not None
                while (data := await stdin.get()) is not None:
                    process.stdin.write(data)

            feeding = asyncio.create_task(feed())
            try:
                while data := await process.stdout.read(32768):
                    await out(data)
                return await process.wait()
            finally:
                feeding.cancel()
                process.stdin.close()
                if process.returncode is None:
                    process.kill()
                    await process.wait()

        return run

    def _kill(self, container: str) -> int:
        for pod in self.api.store.all("pods"):
            for at, status in enumerate((pod.get("status") or {}).get("containerStatuses") or []):
                if status.get("containerID") == container:
                    self._agents[pod["metadata"]["uid"]].send_signal(signal.SIGKILL)
                    self._go(self._run_again(pod, at))
                    return 0
        return 1

    async def _run_again(self, pod: Document, at: int) -> None:
        await self._agents[pod["metadata"]["uid"]].wait()
        await self._start_agent(pod)
        await self._again(pod, at)

    async def close(self) -> None:
        await super().close()
        for process in (*self._agents.values(), *self._relays.values()):
            if process.returncode is None:
                process.kill()
            await process.wait()


def record(path: Path) -> list[dict[str, Any]]:
    """The events of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]
