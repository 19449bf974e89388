"""Pods on every node that open connections all the time: to pods of the next node, and to the outside.

Promise: what was begun and what was lost can be told for any interval, for both ways apart. A connection counts where
it was begun; a long-lived stream that broke counts as lost. Next stage: ``replace`` and ``rollouts``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tools.real_cluster.folder import HUB, Folder
from tools.real_cluster.node import Node

from hitless import __version__

_NAMESPACE = "hitless-traffic"
_BILLION = 10**9
_OPEN = 4.0
"""Seconds after which an attempt has ended and been written."""

WAYS = ("pods", "outside")


@dataclass(frozen=True)
class Count:
    """Attempts that were begun, and those that were lost."""

    sent: int = 0
    lost: int = 0
    causes: tuple[str, ...] = ()

    def __add__(self, other: Count) -> Count:
        causes = tuple(sorted({*self.causes, *other.causes}))
        return Count(self.sent + other.sent, self.lost + other.lost, causes)

    def __str__(self) -> str:
        return f"{self.lost:,} of {self.sent:,}" + (f" ({', '.join(self.causes)})" if self.lost else "")


@dataclass(frozen=True)
class TrafficReport:
    """What the pods wrote: their events, by way."""

    events: dict[str, list[dict[str, Any]]]
    served: list[dict[str, Any]]

    def late(self, begin: float, end: float) -> float:
        """For how many seconds a far end in a pod stood still at most; it answers nothing meanwhile."""
        first, last = int(begin * _BILLION), int(end * _BILLION)
        beats = (one for one in self.served if one["type"] == "heartbeat" and first <= one["t"] < last)
        return max((one.get("max_lag_ns", 0) for one in beats), default=0) / _BILLION

    def between(self, begin: float, end: float) -> dict[str, Count]:
        """By way, what was begun in the interval (Unix seconds)."""
        first, last = int(begin * _BILLION), int(end * _BILLION)
        return {way: counted(event for event in self.events[way] if first <= event.get("t", 0) < last) for way in WAYS}


def counted(events: Iterable[dict[str, Any]]) -> Count:
    """What these events of a prober say."""
    sent = lost = 0
    causes = set()
    for one in events:
        match one["type"]:
            case "attempts":
                sent += one.get("sent", 0)
                lost += one.get("lost", 0)
            case "stream_break":
                lost += 1
                causes.add("stream")
            case "loss":
                causes.add(str(one.get("cause", "unknown")))
    return Count(sent, lost, tuple(sorted(causes)))


@dataclass(frozen=True)
class Traffic:
    """Running probers on each of the nodes."""

    folder: Folder
    nodes: Sequence[Node]

    def report(self) -> TrafficReport:
        """What they wrote until now, when what was begun until now has ended; it stays in the folder's traffic/."""
        time.sleep(_OPEN)
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        served = []
        for node in self.nodes:
            for way in WAYS:
                found[way] += self._log(f"probe-{node.name}", way)
            served += self._log(f"farend-{node.name}", "farend")
        return TrafficReport(found, served)

    def _log(self, pod: str, container: str) -> list[dict[str, Any]]:
        text = self.folder.kubectl("-n", _NAMESPACE, "logs", pod, "-c", container).stdout
        (self.folder.make("traffic") / f"{pod}-{container}.jsonl").write_text(text)
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@contextmanager
def running(folder: Folder, nodes: Sequence[Node], rate: int) -> Iterator[Traffic]:
    """``rate`` new connections a second on each node, each way, while it is entered; needs ``drills.far_end``."""
    folder.kubectl("create", "namespace", _NAMESPACE)
    try:
        for node in nodes:
            where = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
            arguments = ["hitless", "farend", "--bind", "$(POD_IP)", "--json"]
            _apply(folder, f"farend-{node.name}", node, [{**_container("farend", arguments), "env": [where]}])
        _ready(folder)
        served = [_address(folder, f"farend-{node.name}") for node in nodes]
        for place, node in enumerate(nodes):
            ways = {"pods": served[(place + 1) % len(nodes)], "outside": HUB}
            containers = [
                _container(
                    way, ["hitless", "probe", "--json", "--rate", str(rate), "--to", f"farend://{to}", *_STREAMS]
                )
                for way, to in ways.items()
            ]
            _apply(folder, f"probe-{node.name}", node, containers)
        _ready(folder)
        yield Traffic(folder, nodes)
    finally:
        folder.kubectl("delete", "namespace", _NAMESPACE, "--timeout=90s", check=False)


_STREAMS = ("--streams", "2", "--family", "ipv4")


def _container(name: str, command: list[str]) -> dict[str, object]:
    image = f"ghcr.io/hitless/hitless:{__version__}"
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "command": command,
        # Without a request a pod gets no time on a busy machine: the far end stood still for seconds.
        "resources": {"requests": {"cpu": "150m"}},
        "securityContext": {"runAsUser": 0, "capabilities": {"add": ["SYS_NICE"]}},
    }


def _apply(folder: Folder, name: str, node: Node, containers: list[dict[str, object]]) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": _NAMESPACE},
        "spec": {
            "nodeName": node.name,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 3,
            "containers": containers,
        },
    }
    folder.kubectl("apply", "-f", "-", text=json.dumps(pod))


def _ready(folder: Folder) -> None:
    folder.kubectl("-n", _NAMESPACE, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")


def _address(folder: Folder, name: str) -> str:
    return folder.kubectl("-n", _NAMESPACE, "get", "pod", name, "-o=jsonpath={.status.podIP}").stdout
