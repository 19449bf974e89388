"""A cluster as a drill's target: pods on its nodes, the agent's pods restarted.

Problem: the rounds and the verdict of the lab must hold where an operator needs them. Promise: one node at a time
by default; beside the probe through the egress path, one from the host's network and one between pods tell
an outage of egress from one of everything; too many losses end the drill (``Abort``); whatever was made is removed
when the block ends, and what could not be removed is named with the command that does. Next stage: ``hitless.drill``
runs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from hitless.cluster import heartbeat, manifests
from hitless.cluster.manifests import Document, PodOptions
from hitless.cluster.pods import DrillPod, gone, sweep
from hitless.cluster.signals import killer
from hitless.drill.drill_log import SubjectRecorder
from hitless.drill.plans import DrillPlan
from hitless.drill.targets import Subject, SubjectName
from hitless.errors import ApiError, HitlessError, InputError, MissingError
from hitless.evidence.records import CONTROL
from hitless.kernel.clock import Clock
from hitless.kube.api import Api
from hitless.kube.objects import CONFIG_MAPS, NAMESPACES, Node
from hitless.model import events as e
from hitless.restarts.agents import AgentPods, Step
from hitless.restarts.execution import restart
from hitless.restarts.methods import ApiMethod, entry_of
from hitless.survey.cni import Survey

__all__ = ["Abort", "ClusterTarget", "SharedObjects", "far_ends", "helper_nodes", "placed"]

OWN_FAR_END = "node"
"""``--to node``: a far end of ours on another node's network."""

_START = 180.0  # an image may have to be pulled, and a node be small
_LAST_WORDS = 45.0  # the relay gives its tools 15 s
_GONE = 60.0  # for pods that are being deleted, and for a namespace that an earlier drill left behind


@dataclass
class Abort:
    """When to stop a drill: after so many losses, or so many seconds without egress (0: never)."""

    losses: int = 0
    seconds: float = 0.0
    lost: int = 0
    reason: str = ""
    _since: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def see(self, event: e.Event, stream: str, node: str) -> bool:
        """Take an event; True when a limit is reached with it."""
        if self.reason or stream.startswith(CONTROL):
            return False
        match event:
            case e.Loss():
                self.lost += 1
            case e.RuleState():
                key = (node, event.family, event.network)
                if event.state == "not_carried":
                    self._since.setdefault(key, event.t)
                else:
                    self._since.pop(key, None)
            case _:
                pass
        away = max((event.t - since for since in self._since.values()), default=0) / 1e9
        if self.losses and self.lost >= self.losses:
            self.reason = f"{self.lost} losses (--abort-after {self.losses})"
        elif self.seconds and away >= self.seconds:
            self.reason = f"{away:.1f} s without egress (--abort-after {self.seconds:g}s)"
        return bool(self.reason)


@dataclass(frozen=True, slots=True)
class SharedObjects:
    """What all nodes share: the owners by namespace, nodes for our far ends, (node, address) of control pods."""

    owners: Mapping[str, Document]
    far_ends: tuple[Node, ...] = ()
    peers: tuple[tuple[str, str], ...] = ()
    troubles: list[str] = field(default_factory=list)
    """Problems of the shared pods, for the record of the node that is drilled then."""
    helpers: tuple[DrillPod, ...] = ()
    """The control pods themselves."""


@dataclass
class ClusterTarget:
    """The nodes to drill, ``at_once`` of them at a time (all of them for a rollout)."""

    api: Api
    survey: Survey
    nodes: Sequence[Node]
    pods: PodOptions
    plan: DrillPlan
    agent: AgentPods
    method: ApiMethod
    places: SharedObjects
    to: Sequence[str]
    at_once: int = 1
    abort: Abort = field(default_factory=Abort)
    joins: bool = False
    """The pods run already: those of a driver that died, whose streams are read from their first line."""
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the group that is being drilled: the next one's far end wants the same port of the same node."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What the header says of the cluster."""
        cni = self.survey.cni
        return {
            "target": "cluster",
            "far_end": bool(self.places.far_ends),  # a user's own far end (--to farend://…) keeps its own record
            "server": self.api.server,
            "cni": cni.title,
            "image": cni.image,
            "nodes": [node.name for node in self.nodes],
            "helpers": sorted({*(one.name for one in self.places.far_ends), *(name for name, _ in self.places.peers)}),
            "kubelets": sorted({node.status.node_info.kubelet_version for node in self.nodes}),
            "at_once": self.at_once,
            "method": self.method,
            "to": list(self.to),
            "drill": self.pods.identity,
            **({} if self.pods.rules else {"judged_by": "traffic"}),
        }

    @property
    def title(self) -> str:
        """The agent's name in the table."""
        return self.survey.cni.daemon_set.name if self.survey.cni.daemon_set else self.survey.cni.name

    def _groups(self) -> list[list[Node]]:
        size = len(self.nodes) if entry_of(self.method).everywhere else max(1, self.at_once)
        return [list(self.nodes[start : start + size]) for start in range(0, len(self.nodes), size)]

    def subjects(self) -> Sequence[SubjectName]:
        """One for each node, or for the first node of each group."""
        return [SubjectName(self.title, group[0].name) for group in self._groups()]

    @asynccontextmanager
    async def open(self, name: SubjectName, recorder: SubjectRecorder) -> AsyncIterator[Subject]:
        """Pods on the nodes of the group, streaming."""
        if self.abort.reason:
            raise InputError(f"not drilled: {self.abort.reason}", where=name.node)
        async with self._turn, self._opened(name, recorder) as subject:
            yield subject

    @asynccontextmanager
    async def _opened(self, name: SubjectName, recorder: SubjectRecorder) -> AsyncIterator[Subject]:
        group = next(group for group in self._groups() if group[0].name == name.node)
        recorder.watched = self.pods.rules
        recorders = {name.node: recorder}
        for node in group[1:]:
            recorders[node.name] = recorder.log.recorder(name.agent, node.name)
            recorder.companions.append(recorders[node.name])
        stations: list[DrillPod] = []
        try:
            await self._start(stations, self._far_ends(group, recorders), recorder)
            await asyncio.gather(*(one.listening(_START) for one in stations))
            await self._start(
                stations,
                [(document, [recorders[node.name]]) for node in group for document in self._documents(node, group)],
                recorder,
            )
            yield _ClusterSubject(self, recorder, [node.name for node in group], stations)
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from None
        finally:
            await asyncio.gather(*(station.remove() for station in stations), return_exceptions=True)
            if name != self.subjects()[-1]:
                await gone(self.api, stations, _GONE)

    def _far_end(self, node: Node, group: Sequence[Node]) -> Node | None:
        """The far end that the node's pods use: one on a node that is not restarted at the same time, if there is."""
        return _outside(self.places.far_ends, node, group)

    def _far_ends(
        self, group: Sequence[Node], recorders: Mapping[str, SubjectRecorder]
    ) -> list[tuple[Document, list[SubjectRecorder]]]:
        """Our far ends for these nodes; what one saw belongs to the record of every node that used it."""
        owner = self.places.owners[self.pods.namespace]
        found: list[tuple[Document, list[SubjectRecorder]]] = []
        for place in self.places.far_ends:
            users = [recorders[node.name] for node in group if self._far_end(node, group) == place]
            if users:
                addresses = manifests.far_addresses(self.pods, place.internal_ips)
                document = manifests.farend_pod(self.pods, place.name, addresses, owner)
                found.append((document, users))
        return found

    def _documents(self, node: Node, group: Sequence[Node]) -> list[Document]:
        to, far = list(self.to), self._far_end(node, group)
        if far is not None:
            to += manifests.far_urls(manifests.far_addresses(self.pods, far.internal_ips))
        names = {one.name for one in group}
        peers = sorted(self.places.peers, key=lambda one: (one[0] in names, one[0] == node.name))
        peer = peers[0][1] if peers else ""
        pods, owners = self.pods, self.places.owners
        return [
            manifests.watch_pod(pods, node.name, owners[pods.namespace], to),
            manifests.probe_pod(pods, node.name, owners[pods.traffic_namespace], to, peer=peer),
        ]

    async def _start(
        self,
        stations: list[DrillPod],
        documents: Sequence[tuple[Document, list[SubjectRecorder]]],
        first: SubjectRecorder,
    ) -> None:
        async with asyncio.TaskGroup() as starting:
            for document, recorders in documents:
                station = self._station(document, recorders, first)
                stations.append(station)
                starting.create_task(station.join() if self.joins else station.start(_START))

    def _station(self, document: Document, recorders: Sequence[SubjectRecorder], first: SubjectRecorder) -> DrillPod:
        def say(event: e.Event, stream: str) -> None:
            for recorder in recorders:
                recorder.write(event, stream)
                if recorder is not first:  # the rounds read the first recorder only, as that of the group
                    first.observe(event, recorder.node)
            if self.abort.see(event, stream, recorders[0].node):
                first.fail(f"aborted: {self.abort.reason}")

        return DrillPod(self.api, document, lambda: first.now, say, first.fail)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class _ClusterSubject:
    def __init__(
        self, target: ClusterTarget, recorder: SubjectRecorder, nodes: Sequence[str], stations: Sequence[DrillPod]
    ) -> None:
        self._target = target
        self._recorder = recorder
        self._nodes = nodes
        self._stations = stations

    async def restart(self, round: int) -> None:
        recorders = {recorder.node: recorder for recorder in (self._recorder, *self._recorder.companions)}
        method = self._target.method

        def tell(node: str, step: Step, detail: str, evidence: str = "", code: e.RestartCode = "", /) -> None:
            event = e.Restart(
                t=self._recorder.now, step=step, round=round, method=method, detail=detail, evidence=evidence, code=code
            )
            recorders[node].write(event)
            if code == "no_sign":  # more restarts of this kind would prove as little
                self._recorder.fail(detail)

        agent, patience = self._target.agent, self._target.plan.patience
        kill = killer(self._target.api, {one.node: (one.name, one.namespace) for one in self._of("watch")})
        await restart(agent, method, self._nodes, tell, patience=patience, kill=kill)

    def _of(self, *roles: str) -> list[DrillPod]:
        return [one for one in self._stations if one.role in roles]

    async def quiet(self) -> None:
        await asyncio.gather(*(one.clock.check() for one in self._of("watch")))
        for role in ("probe", "watch", "farend"):  # the watch and the far end see the last packets
            await asyncio.gather(*(one.stop(_LAST_WORDS) for one in self._of(role)))
        if self._recorder.trouble.is_set():
            await asyncio.gather(*(one.confirm() for one in (*self._stations, *self._target.places.helpers)))
        for text in self._target.places.troubles:
            self._recorder.note("error", text)


@asynccontextmanager
async def placed(
    api: Api,
    survey: Survey,
    nodes: Sequence[Node],
    pods: PodOptions,
    *,
    own_far_end: bool,
    tell: Callable[[str], None],
    at_once: int = 1,
) -> AsyncIterator[SharedObjects]:
    """Create what all nodes share, and remove everything of this drill at the end, whatever happened."""
    helpers: list[DrillPod] = []
    troubles: list[str] = []
    beating: asyncio.Task[None] | None = None

    def trouble(text: str) -> None:
        troubles.append(text)
        tell(text)

    try:
        for place in pods.namespaces:
            await _namespace(api, pods, place)
        owners: dict[str, Document] = {}
        for place in pods.namespaces:
            document = manifests.owner(pods, place)
            document["metadata"]["uid"] = await _made(api, document, place)
            owners[place] = document
        names = {place: str(document["metadata"]["name"]) for place, document in owners.items()}
        beating = asyncio.create_task(heartbeat.beat(api, names, trouble, tell))
        chosen = helper_nodes(survey, nodes, at_once)
        clock = Clock()
        for node in chosen:
            document = manifests.peer_pod(pods, node.name, owners[pods.traffic_namespace])
            helpers.append(DrillPod(api, document, clock.now, lambda *_: None, trouble))
        await asyncio.gather(*(one.start(_START) for one in helpers))
        peers = tuple((one.node, one.ip) for one in helpers)
        yield SharedObjects(owners, tuple(chosen) if own_far_end else (), peers, troubles, tuple(helpers))
    finally:
        if beating is not None:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        await asyncio.gather(*(one.dismiss() for one in helpers))
        await _clean(api, pods, tell)


async def _made(api: Api, owner: Document, place: str) -> str:
    """Create the owner, and return its uid; by a list where the response was lost, since a drill may list and not
    get."""
    made = await api.create(CONFIG_MAPS, owner, place)
    if made is None:
        (made,) = await api.all(CONFIG_MAPS, place, fields=f"metadata.name={owner['metadata']['name']}")
    return made.metadata.uid


async def _namespace(api: Api, pods: PodOptions, place: str) -> None:
    end = api.patience.now() + _GONE
    try:
        while (there := await api.get(NAMESPACES, place)).metadata.deletion_timestamp is not None:
            if api.patience.now() > end:
                why = f" ({there.held})" if there.held else ""
                raise MissingError(
                    f"the namespace {place} is being deleted, and does not go{why}",
                    remedy="wait, or give another --namespace",
                )
            await api.patience.sleep(0.5)
    except ApiError as error:
        if error.status != 404:
            raise
        if place != pods.namespace:
            raise InputError(
                f"there is no namespace {place!r}", where="--probe-namespace", expected="one that is there"
            ) from error
        await api.create(NAMESPACES, manifests.namespace(pods))


def helper_nodes(survey: Survey, nodes: Sequence[Node], at_once: int = 1) -> list[Node]:
    """The ready nodes for far ends and control pods, those that are not drilled first. Two, so that each drilled node
    has another one; where ``at_once`` drilled nodes are restarted together, enough for one that is not among them."""
    drilled = {node.name for node in nodes}
    ready = [node for node in survey.nodes if node.ready and node.status.node_info.operating_system in ("", "linux")]
    ready.sort(key=lambda node: (node.name in drilled, node.name))
    if not ready or ready[0].name not in drilled or at_once >= len(ready):
        return ready[:2]  # the first one is always outside, or none is
    return ready[: max(2, at_once + 1)]


def far_ends(survey: Survey, nodes: Sequence[Node], at_once: int = 1) -> list[Node]:
    """The nodes that far ends of ours go to when these are drilled."""
    helpers = helper_nodes(survey, nodes, at_once)
    if helpers and helpers[0].name not in {node.name for node in nodes}:
        return helpers[:1]  # it is never restarted: all are measured from it
    if at_once > 1:
        return helpers  # which of them are used depends on the nodes of each step
    used = [_outside(helpers, node, [node]) for node in nodes]
    return [one for one in helpers if one in used]


def _outside(helpers: Sequence[Node], node: Node, group: Sequence[Node]) -> Node | None:
    """The helper node for a node that is restarted together with its group: one that is not restarted then, else at
    least another one."""
    names = {one.name for one in group}
    return min(helpers, key=lambda one: (one.name in names, one.name == node.name), default=None)


async def _clean(api: Api, pods: PodOptions, tell: Callable[[str], None]) -> None:
    try:
        await sweep(api, pods.namespaces, pods.identity)
    except HitlessError as error:
        where = " ".join(f"--namespace {one}" for one in pods.namespaces)
        tell(f"not everything could be removed ({error}); remove it with: hitless drill --cleanup {where}")
