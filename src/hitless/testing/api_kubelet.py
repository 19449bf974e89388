"""Fake nodes for the fake API server: they run pods, restart agents, and serve exec.

Problem: a drill in a cluster needs pods that come up late, agents whose rules are gone for a while, and streams whose
connection breaks. Promise: every pod becomes Running and Ready after a while; a DaemonSet's pod that ends is replaced;
pods that run ``hitless relay`` write events (``api_relays``), and exec runs ``relay read``, ``stop``, ``clock`` and
``signal``. No program is started. Used by ``api_server``.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from hitless.testing import api_relays
from hitless.testing.api_daemons import DaemonSets
from hitless.testing.api_relays import Relays, Spool
from hitless.testing.api_server import Command, FakeApi
from hitless.testing.api_store import Document, StatusError, Stored

__all__ = ["FakeNodes", "Spool"]


@dataclass
class FakeNodes:
    """The nodes. Times in seconds; ``offsets`` are clock offsets in nanoseconds by node. ``busy``: probes write as
    much as the real one at 1,000 attempts a second; ``gap``: how long a node's rules are gone after a restart;
    ``back_off``: how long a killed container is held back; ``status_delay``: how long a DaemonSet's status lags;
    ``unstartable``: images that cannot be pulled; ``failing``: images whose containers fail, and what they log.
    """

    api: FakeApi
    start_delay: float = 0.02
    ready_delay: float = 0.05
    status_delay: float = 0.0
    gap: float = 0.3
    back_off: float = 0.0
    busy: bool = False
    offsets: dict[str, int] = field(default_factory=dict)
    unstartable: set[str] = field(default_factory=set)
    failing: dict[str, str] = field(default_factory=dict)
    spools: dict[str, Spool] = field(default_factory=dict)
    retired: list[Spool] = field(default_factory=list)
    pods_made: list[Document] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _count: int = 0

    def __post_init__(self) -> None:
        self.api.kubelet = self
        self.daemon_sets = DaemonSets(self, self._go)
        self.relays = Relays(self)
        self.api.store.listeners.append(self._seen)

    async def close(self) -> None:
        """End everything that runs."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def add_node(
        self, name: str, *, version: str = "v1.32.5+rke2r1", ready: bool = True, labels: Document | None = None
    ) -> None:
        """A node with an address and a pod network."""
        number = len(self.api.store.all("nodes")) + 1
        self.api.store.create(
            "nodes",
            "",
            {
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **(labels or {})}},
                "spec": {"podCIDR": f"10.42.{number}.0/24", "podCIDRs": [f"10.42.{number}.0/24"]},
                "status": {
                    "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                    "nodeInfo": {"kubeletVersion": version, "operatingSystem": "linux", "architecture": "amd64"},
                    "addresses": [{"type": "InternalIP", "address": f"192.0.2.{number}"}],
                },
            },
        )

    def add_daemon_set(self, document: Document) -> None:
        """A DaemonSet and its pods on every node, running and ready."""
        self.daemon_sets.add(document)

    def _seen(self, event: Stored) -> None:
        if event.resource == "pods" and event.type == "ADDED":
            self.pods_made.append(event.document)
            self._go(self._run(event.document))
        self.daemon_sets.seen(event)

    def _go(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, pod: Document) -> None:
        await asyncio.sleep(self.start_delay)
        container = pod["spec"]["containers"][0]
        if container["image"] in self.unstartable:
            waiting = {"reason": "ErrImageNeverPull", "message": "image is not present with pull policy of Never"}
            self._status(
                pod,
                {"phase": "Pending", "containerStatuses": [{"name": container["name"], "state": {"waiting": waiting}}]},
            )
            return
        if container["image"] in self.failing:
            ended: Document = {"exitCode": 3, "reason": "Error"}
            if container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
                ended["message"] = self.failing[container["image"]]
            self._status(
                pod,
                {"phase": "Failed", "containerStatuses": [{"name": container["name"], "state": {"terminated": ended}}]},
            )
            return
        self._count += 1
        status = {
            "phase": "Running",
            "podIP": self.address(pod),
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [
                {
                    "name": one["name"],
                    "ready": True,
                    "restartCount": 0,
                    "containerID": f"containerd://{self._count:060x}{at:04x}",
                }
                for at, one in enumerate(pod["spec"]["containers"])
            ],
        }
        self._status(pod, status)
        if (container.get("command") or [])[:3] == ["hitless", "relay", "run"]:
            self._go(self.relay(pod))
        await self.started(pod)
        self._status(pod, status | {"conditions": [{"type": "Ready", "status": "True"}]})

    def address(self, pod: Document) -> str:
        """A pod's address: its node's on the host's network, else one of its own."""
        node = self.api.store.get("nodes", "", pod["spec"]["nodeName"])
        host = pod["spec"].get("hostNetwork")
        return str(node["status"]["addresses"][0]["address"]) if host else f"10.42.0.{self._count % 250 + 1}"

    async def started(self, pod: Document) -> None:
        """Until its containers are ready; a kubelet that runs real programs starts them here."""
        await asyncio.sleep(self.ready_delay)

    async def stopped(self, pod: Document, grace: int | None) -> None:
        """Until its containers have ended."""
        await asyncio.sleep(0.0 if grace == 0 else self.start_delay)

    def _status(self, pod: Document, status: Document) -> None:
        place, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if self._there(pod):
            self.api.store.change("pods", place, name, lambda one: one.__setitem__("status", copy.deepcopy(status)))

    def _there(self, pod: Document) -> bool:
        """Whether this pod is still in the store."""
        try:
            found = self.api.store.get("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
        except StatusError:
            return False
        return bool(found["metadata"]["uid"] == pod["metadata"]["uid"])

    def terminate(self, pod: Document, grace: int | None) -> None:
        """The kubelet's part of a delete: first a deletionTimestamp, removed a little later."""
        place, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        if "deletionTimestamp" in pod["metadata"]:
            return

        given = grace if grace is not None else pod["spec"].get("terminationGracePeriodSeconds", 30)

        def mark(one: Document) -> None:
            one["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:01Z", "deletionGracePeriodSeconds": given}

        self._agent_went(pod)
        if given == 0:  # the object is removed at once, and its replacement may run before its containers have ended
            self._gone(pod)
        else:
            self.api.store.change("pods", place, name, mark)
        self._go(self._end(pod, grace))

    def _agent_went(self, pod: Document) -> None:
        owners = pod["metadata"].get("ownerReferences") or []
        if any(owner["kind"] == "DaemonSet" for owner in owners):
            self.cut_off(pod["spec"]["nodeName"], self.gap)

    def cut_off(self, node: str, seconds: float) -> None:
        """The node's pods reach nothing for so long."""
        self.relays.cut_off(node, seconds)

    def reconnect(self, node: str) -> bool:
        """The node's pods reach everything from now on; whether they were cut off."""
        return self.relays.reconnect(node)

    mend = reconnect  # its name in earlier releases

    def now(self, node: str) -> int:
        """A node's clock in nanoseconds."""
        return self.relays.now(node)

    async def relay(self, pod: Document) -> None:
        """Run the pod's ``hitless relay run``; a kubelet that runs real programs overrides this."""
        await self.relays.run(pod)

    async def _end(self, pod: Document, grace: int | None) -> None:
        await self.stopped(pod, grace)
        if spool := self.spools.get(pod["metadata"]["name"]):
            spool.stopping = True
        if self._there(pod):
            self._gone(pod)

    def _gone(self, pod: Document) -> None:
        place, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self.api.store.remove("pods", place, name)
        for owner in pod["metadata"].get("ownerReferences") or []:
            daemon_set = self.api.store.objects.get(("daemonsets.apps", place, owner["name"]))
            here = self.api.store.objects.get(("namespaces", "", place))
            stays = here is not None and "deletionTimestamp" not in here["metadata"]
            if owner["kind"] == "DaemonSet" and daemon_set is not None and stays:
                self.daemon_sets.replace(daemon_set, pod["spec"]["nodeName"])

    def log(self, pod: Document, container: str) -> str:
        """A line with the container's name."""
        return f"log of {pod['metadata']['name']}/{container}\n"

    def command(self, pod: Document, container: str) -> Command:
        """Run ``hitless relay …`` in this pod."""
        if (pod.get("status") or {}).get("phase") != "Running":
            raise StatusError(500, "InternalError", f"container {container} is not running")
        name, node = pod["metadata"]["name"], pod["spec"]["nodeName"]

        async def run(
            argv: list[str], stdin: asyncio.Queue[bytes | None], out: Callable[[bytes], Awaitable[None]]
        ) -> int:
            match argv[:3]:
                case ["hitless", "relay", "read"]:
                    await api_relays.read(self.spools[name], int(argv[argv.index("--from") + 1]), out)
                case ["hitless", "relay", "stop"]:
                    self.spools[name].stopping = True
                case ["hitless", "relay", "clock"]:
                    while await stdin.get() is not None:
                        await out(b"%d\n" % self.now(node))
                case ["hitless", "relay", "signal"]:
                    self._killed(argv[argv.index("--container") + 1])
                case _:
                    return 127
            return 0

        return run

    def _killed(self, container: str) -> None:
        for pod in self.api.store.all("pods"):
            statuses = (pod.get("status") or {}).get("containerStatuses") or []
            for at, status in enumerate(statuses):
                if status.get("containerID") == container:
                    self._agent_went(pod)
                    self._go(self._again(pod, at))

    async def _again(self, pod: Document, at: int) -> None:
        status = copy.deepcopy(pod["status"])
        status["containerStatuses"][at] |= {"ready": False, "containerID": f"containerd://{self._count + 7:064x}"}
        if self.back_off:
            waiting = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
            status["containerStatuses"][at]["state"] = {"waiting": waiting}
        self._status(pod, status | {"conditions": [{"type": "Ready", "status": "False"}]})
        await asyncio.sleep(self.ready_delay + self.back_off)
        status["containerStatuses"][at].pop("state", None)
        status["containerStatuses"][at] |= {
            "ready": True,
            "restartCount": status["containerStatuses"][at]["restartCount"] + 1,
        }
        self._status(pod, status | {"conditions": [{"type": "Ready", "status": "True"}]})
