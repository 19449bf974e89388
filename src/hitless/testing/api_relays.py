"""The fake nodes' relays: what the tools of a drill's pods write, and the nodes' clocks.

Promise: a pod that runs ``hitless relay run`` writes the events that the real tools would (one attempt in ten
milliseconds, losses while its node is cut off), counted exactly, so that a test can compare what was written with what
arrived. Every node has its own clock offset. After this process was stopped, the events of that time are written. Used
by ``api_kubelet``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from hitless.kernel.clock import Clock
from hitless.model import events as e
from hitless.testing.api_store import Document

__all__ = ["Relays", "Spool", "read"]

_INTERVAL = 0.1
_USUAL: tuple[tuple[e.Kind, int], ...] = (("udp", 30), ("icmp", 9), ("http", 1))


@dataclass
class Spool:
    """The output that a pod's relay keeps; ``sent`` and ``lost`` count the attempts that its probe wrote."""

    data: bytearray = field(default_factory=bytearray)
    done: bool = False
    stopping: bool = False
    sent: int = 0
    lost: int = 0
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, name: str, event: e.Event) -> None:
        self.data += name.encode() + b"\t" + e.encode(event) + b"\n"
        self.grown.set()
        self.grown = asyncio.Event()


class _Nodes(Protocol):
    busy: bool
    offsets: dict[str, int]
    spools: dict[str, Spool]
    retired: list[Spool]


class Relays:
    """The relays of all pods of ``nodes``, and when each node was cut off."""

    def __init__(self, nodes: _Nodes) -> None:
        self._nodes = nodes
        self._clock = Clock()
        self._away: dict[str, list[tuple[float, float]]] = {}
        """By node, the intervals (in the loop's time) in which its pods reached nothing."""

    def now(self, node: str) -> int:
        """A node's clock in nanoseconds."""
        return self._clock.now() + self._nodes.offsets.get(node, 0)

    def cut_off(self, node: str, seconds: float) -> None:
        """The node's pods reach nothing for so long."""
        now = asyncio.get_running_loop().time()
        self._away.setdefault(node, []).append((now, now + seconds))

    def reconnect(self, node: str) -> bool:
        """The node's pods reach everything from now on; whether they were cut off."""
        now = asyncio.get_running_loop().time()
        before = self._away.get(node, [])
        self._away[node] = [(begin, min(end, now)) for begin, end in before]
        return self._away[node] != before

    async def run(self, pod: Document) -> None:
        """Write what the pod's tools would write, until the relay is stopped."""
        name = pod["metadata"]["name"]
        if name in self._nodes.spools and self._nodes.spools[name].stopping:
            self._nodes.retired.append(self._nodes.spools.pop(name))  # an earlier pod of that name
        spool = self._nodes.spools.setdefault(name, Spool())
        arguments = pod["spec"]["containers"][0]["args"]
        tools = [arguments[at + 1] for at, argument in enumerate(arguments) if argument == "--tool"]
        commands = {name: json.loads(rest) for name, _, rest in (tool.partition("=") for tool in tools)}
        node = pod["spec"]["nodeName"]
        for name, argv in commands.items():
            spool.write(name, e.Header(t=self.now(node), tool=argv[0], version="0", config={}))
        if "watch" in commands:
            spool.write("watch", self._rules(self.now(node), "carried"))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while not spool.stopping:
            await asyncio.sleep(_INTERVAL)
            while (end := begun + _INTERVAL) <= loop.time():  # more than one, when this process was stopped
                gone = any(a < b and a < end and begun < b for a, b in self._away.get(node, []))
                then = self.now(node) - int((loop.time() - end) * 1e9)
                for name, argv in commands.items():
                    if argv[0] == "probe":
                        self._attempts(spool, name, then, gone and not name.startswith("control"))
                    if argv[0] == "watch":
                        self._watched(spool, then, gone)
                begun = end
        for name, argv in commands.items():
            totals = {"sent": spool.sent} if name == "probe" else {}
            spool.write(name, e.Summary(t=self.now(node), tool=argv[0], totals=totals))
        spool.done = True
        spool.grown.set()

    @staticmethod
    def _rules(now: int, state: e.State) -> e.RuleState:
        return e.RuleState(t=now, family="ipv4", network="10.42.0.0/16", state=state)

    def _watched(self, spool: Spool, now: int, gone: bool) -> None:
        begun = spool.lost  # in a watch's spool: when the open gap began
        if gone and not begun:
            spool.lost = now
            spool.write("watch", self._rules(now, "not_carried"))
        elif not gone and begun:
            gap = e.Gap(t=now, family="ipv4", network="10.42.0.0/16", begin=begun, end=now, reason="emptied")
            spool.write("watch", gap)
            spool.write("watch", self._rules(now, "carried"))
            spool.lost = 0

    def _attempts(self, spool: Spool, name: str, now: int, gone: bool) -> None:
        begin = now - 100_000_000
        sent, lost = 10, 4 if gone else 0
        for kind, more in _USUAL if self._nodes.busy and name == "probe" else ():
            spool.sent += more
            counts = e.Attempts(
                t=begin, interval_ns=100_000_000, kind=kind, family="ipv4", sent=more, ok=more, latency_max_ns=700_000
            )
            spool.write(name, counts)
        if name == "probe":
            spool.sent += sent
            spool.lost += lost
        for number in range(lost):
            spool.write(
                name,
                e.Loss(
                    t=now - number,
                    kind="tcp",
                    family="ipv4",
                    src="10.42.1.9",
                    sport=40000 + spool.lost % 20000,
                    dst="192.0.2.9",
                    dport=7801,
                    planned=now - number,
                    end=now + 1_000_000,
                    cause="timeout",
                ),
            )
        counts = e.Attempts(
            t=begin, interval_ns=100_000_000, kind="tcp", family="ipv4", sent=sent, ok=sent - lost, lost=lost
        )
        spool.write(name, counts)


async def read(spool: Spool, offset: int, out: Callable[[bytes], Awaitable[None]]) -> None:
    """Send a spool from ``offset`` on, until its relay is done."""
    while True:
        grown, done = spool.grown, spool.done
        if offset < len(spool.data):
            piece = bytes(spool.data[offset : offset + 1000])  # splits lines on purpose
            await out(piece)
            offset += len(piece)
        elif done:
            return
        else:
            await grown.wait()
