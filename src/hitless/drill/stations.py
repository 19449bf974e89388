"""The nodes of a lab that are drilled: for each its agent, its streams, and the recorder that they write to.

Problem: with several nodes, each has rules and pods of its own, and one drill does the same rounds on all of them.
Promise: a ``Station`` per node, with a watch in the node and a prober in its pod; with several nodes, also a far end
and a second prober in each pod, for connections to pods on other nodes. The rounds use the first node's recorder, which
also gets the states and errors of the others. What the far end outside saw is written for the node that it concerns.
Next stage: ``labs``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec

from hitless.drill.drill_log import SubjectRecorder, Tool
from hitless.drill.plans import DrillPlan
from hitless.errors import HitlessError
from hitless.evidence.records import PODS
from hitless.kernel import namespaces
from hitless.kernel.namespaces import Namespace
from hitless.lab import Lab
from hitless.lab.clusters import LabCluster, LabNode
from hitless.lab.supervisor import Supervisor
from hitless.model import events as e
from hitless.model import reading
from hitless.model.families import Family
from hitless.probe import BASE_PORT, ports

__all__ = ["PODS_FAR_END", "CompanionRecorder", "SharedRecorder", "Station", "begin", "paths"]

PODS_FAR_END = f"{PODS}_farend"

_HEADER = 20.0
"""Seconds in which a tool must write its header: Python starts in 0.2 s, on a busy machine in many times that."""

_TRY = 0.5


@dataclass
class CompanionRecorder(SubjectRecorder):
    """The recorder of another node in the same rounds."""

    first: SubjectRecorder | None = None

    def write(self, event: e.Event, stream: str = "drill") -> None:
        """As ``SubjectLog.write``, and the first node's log takes note of it."""
        super().write(event, stream)
        if self.first is not None:
            self.first.observe(event, self.node)


@dataclass
class SharedRecorder(SubjectRecorder):
    """The recorder of a tool for all nodes: a leak belongs to its pod's node, all other events to each node."""

    recorders: Sequence[SubjectRecorder] = ()
    owner: Callable[[e.Leak], int] = lambda _leak: 0
    _leaks: list[int] = field(default_factory=list)

    def write(self, event: e.Event, stream: str = "drill") -> None:
        """Write to the recorders that the event concerns; leaks that were only counted go to the first node's."""
        self._leaks = self._leaks or [0] * len(self.recorders)
        if isinstance(event, e.Leak):
            place = self.owner(event)
            self._leaks[place] += 1
            self.recorders[place].write(event, stream)
            return
        for place, recorder in enumerate(self.recorders):
            own = event
            if isinstance(event, e.Summary) and "leaks" in event.totals:
                rest = event.totals["leaks"] - sum(self._leaks)
                mine = self._leaks[place] + (rest if place == 0 else 0)
                own = msgspec.structs.replace(event, totals={**event.totals, "leaks": mine})
            recorder.write(own, stream)


@dataclass(frozen=True, slots=True)
class Station:
    """A node that is drilled."""

    node: LabNode
    recorder: SubjectRecorder
    supervisor: Supervisor
    tools: dict[str, Tool] = field(default_factory=dict)


def _farend(addresses: Sequence[object], leaks: Sequence[object] = ()) -> list[str]:
    argv = ["farend", "--json"]
    for address in addresses:
        argv += ["--bind", str(address)]
    for network in leaks:
        argv += ["--leaks", str(network)]
    return argv


def _probe(addresses: Sequence[object], families: Sequence[Family], rate: float, streams: int) -> list[str]:
    argv = ["probe", "--json", "--rate", f"{rate:g}", "--streams", str(streams)]
    argv += ["--family", "dual" if len(families) > 1 else str(families[0])]
    for address in addresses:
        argv += ["--to", f"farend://[{address}]" if ":" in str(address) else f"farend://{address}"]
    return argv


def _owner(cluster: LabCluster, stations: Sequence[Station]) -> Callable[[e.Leak], int]:
    """Finds the station whose pod has a leak's source address."""

    def owner(leak: e.Leak) -> int:
        source = reading.address_of(leak.src)
        found = (
            place
            for place, one in enumerate(stations)
            if any(source is not None and source in subnet for subnet in one.node.subnets.values())
        )
        return next(found, 0)

    return owner


async def begin(
    built: Lab, stations: Sequence[Station], plan: DrillPlan, hitless: Sequence[str], stack: AsyncExitStack
) -> Tool:
    """Start all streams, in the order in which they need each other; ``stack`` ends them. Returns the far end."""
    families = built.plan.families
    networks = [built.plan.network(family) for family in families]
    outside = [address for family in families for address in built.far_end.addresses[family]]
    several = len(stations) > 1
    rate = plan.rate / (2 * len(stations)) if several else plan.rate

    async def start(
        argv: Sequence[str], recorder: SubjectRecorder, place: Namespace, name: str, stream: str = ""
    ) -> Tool:
        tool = await Tool.start(name, [*hitless, *argv], recorder, namespace=place, stream=stream)
        stack.push_async_callback(tool.hasten)
        return tool

    async def of_station(one: Station, argv: Sequence[str], place: Namespace, name: str, stream: str = "") -> None:
        one.tools[stream or name] = await start(argv, one.recorder, place, name, stream)

    first = stations[0].recorder
    shared: SubjectRecorder = first
    if several:
        shared = SharedRecorder(
            first.log, first.agent, "", trouble=first.trouble, recorders=[one.recorder for one in stations],
            owner=_owner(built.cluster, stations),
        )  # fmt: skip
    farend = await start(_farend(outside, networks), shared, built.far_end.namespace, "farend")
    watch = ["watch", "--json", *(word for network in networks for word in ("--network", str(network)))]
    for one in stations:
        await of_station(one, watch, one.node.namespace, "watch")
        if several:
            own = list(one.node.pods[0].addresses.values())
            await of_station(one, _farend(own), one.node.pods[0].namespace, "farend", PODS_FAR_END)
    await _heard([farend, *(tool for one in stations for tool in one.tools.values())], first)
    if several and not first.trouble.is_set():
        # flannel is ready before it knows its peers
        await paths(built.cluster, first, max(one.supervisor.agent.readiness.patience for one in stations))
    for one in stations:
        pod = one.node.pods[0]
        await of_station(one, _probe(outside, families, rate, plan.streams), pod.namespace, "probe")
        if several:
            others = [other.node.pods[0].addresses[family] for family in families for other in stations if other != one]
            await of_station(one, _probe(others, families, rate, plan.streams), pod.namespace, "probe", PODS)
    await _heard([one.tools[name] for one in stations for name in ("probe", PODS) if name in one.tools], first)
    return farend


async def _heard(tools: Sequence[Tool], recorder: SubjectRecorder) -> None:
    for tool, heard in zip(tools, await asyncio.gather(*(tool.heard(_HEADER) for tool in tools)), strict=True):
        if not heard and not recorder.trouble.is_set():
            recorder.fail(f"{tool.name} said nothing within {_HEADER:g} s")


async def paths(cluster: LabCluster, recorder: SubjectRecorder, patience: float) -> bool:
    """Wait until each node's first pod reaches those of the other nodes; if one does not, the drill ends."""
    port = ports(BASE_PORT).flow[0]
    loop = asyncio.get_running_loop()
    end = loop.time() + patience
    open_ = [
        (one, other, family)
        for one in cluster.nodes
        for other in cluster.nodes
        for family in cluster.plan.families
        if one != other
    ]
    while open_ and loop.time() < end:
        answers = await asyncio.gather(
            *(asyncio.to_thread(_reaches, one, other, family, port) for one, other, family in open_)
        )
        open_ = [path for path, answered in zip(open_, answers, strict=True) if not answered]
        if open_:
            await asyncio.sleep(0.1)
    if open_:
        one, other, family = open_[0]
        recorder.fail(
            f"{one.pods[0].name} did not reach {other.pods[0].name} by {family} within {patience:g} s, although the "
            f"agents are ready ({len(open_)} of the paths between pods are missing)"
        )
    return not open_


def _reaches(one: LabNode, other: LabNode, family: Family, port: int) -> bool:
    def connect() -> bool:
        try:
            with socket.create_connection((str(other.pods[0].addresses[family]), port), timeout=_TRY):
                return True
        except OSError:
            return False

    try:
        return namespaces.inside(one.pods[0].namespace, connect)
    except HitlessError:
        return False
