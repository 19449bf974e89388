"""Rollouts of fake clusters: a driver that can be killed at any request, and what was done to each pod."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from tests.unit.cluster.clusters import canal, cluster, until

from hitless.kube.api import Api, Patience, connect
from hitless.kube.objects import Node
from hitless.model.events import RestartCode
from hitless.operations.rollout import preconditions, record
from hitless.operations.rollout.driver import drive
from hitless.operations.rollout.ports import DriverContext, StepOutcome, Work
from hitless.operations.rollout.record import RolloutRecord
from hitless.operations.rollout.values import Rollout, RolloutChange, RolloutChoices, read, text
from hitless.restarts.agents import AgentPods, Step
from hitless.survey.cni import survey_cluster
from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_store import Document

SETS = "daemonsets.apps"
PLACE, NAME = "kube-system", "rke2-canal"
IMAGE = RolloutChange(
    "image", "image", {"spec": {"containers": [{"name": "kube-flannel", "image": "flannel:v0.28.9"}]}}
)
RESTART = RolloutChange("restart", "restart")


class Killed(BaseException):
    """The driver's process is gone: nothing of it runs any more."""


@dataclass
class Mortal:
    """Kills the driver at its ``at``-th writing request (from 1; 0: never), before or after the server has it."""

    at: int = 0
    after: bool = False
    count: int = 0
    dead: bool = False
    did: list[str] = field(default_factory=list)

    def hang_on(self, api: Api) -> None:
        """From now on every request of this client passes here."""
        request = api.client.request

        async def passing(method: str, path: str, **rest: Any) -> httpx2.Response:
            if self.dead:
                raise Killed
            body = rest.get("content")
            written = (
                (method == "PATCH" and '"data"' in str(body)) or method in ("DELETE", "POST") or "/daemonsets/" in path
            )
            if method == "GET" or not written:  # a sign of life changes nothing
                return await request(method, path, **rest)
            self.count += 1
            self.did.append(f"{method} {path.rpartition('/')[2]}")
            if self.count == self.at and not self.after:
                self.dead = True
                raise Killed
            answer = await request(method, path, **rest)
            if self.count == self.at:
                self.dead = True
                raise Killed
            return answer

        api.client.request = passing  # type: ignore[method-assign, assignment]


def silent(node: str, step: Step, detail: str, evidence: str = "", code: RestartCode = "", /) -> None:
    """Listens to nobody."""


@dataclass
class Hands:
    """A prober that measures nothing: it says what ``felt`` says of a node, and a pass of all others."""

    felt: Mapping[str, StepOutcome] = field(default_factory=dict)
    steps: list[tuple[str, ...]] = field(default_factory=list)
    meanwhile: Callable[[Sequence[str]], None] = lambda _: None

    async def around(self, nodes: Sequence[Node], work: Work, *, unseen: bool) -> Mapping[str, StepOutcome]:
        names = tuple(node.name for node in nodes)
        self.meanwhile(names)
        await work(silent)
        self.steps.append(names)
        well = StepOutcome("inconclusive" if unseen else "pass", 100)
        return {name: self.felt.get(name, well) for name in names}

    async def rejoin(self, nodes: Sequence[Node], drill: str, work: Work) -> Mapping[str, StepOutcome] | None:
        return None


async def _quick(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.01))


QUICK = Patience(total=60.0, first=0.01, longest=0.05, sleep=_quick)


@dataclass
class Place:
    """A fake cluster, and the pods of its agent that went."""

    fake: FakeNodes
    config: Path
    gone: Counter[str] = field(default_factory=Counter)

    @property
    def daemon_set(self) -> Document:
        return self.fake.api.store.objects[(SETS, PLACE, NAME)]

    @property
    def strategy(self) -> Document:
        found: Document = self.daemon_set["spec"]["updateStrategy"]
        return found

    @property
    def images(self) -> dict[str, str]:
        """By node, the image of the agent."""
        pods = self.fake.api.store.all("pods", PLACE)
        return {one["spec"]["nodeName"]: one["spec"]["containers"][1]["image"] for one in pods}

    @property
    def written(self) -> Rollout:
        """What is written down."""
        found = self.fake.api.store.objects[("configmaps", record.PLACE, record.NAME)]
        return read(found["data"]["state.json"], "test")

    def on(self, node: str) -> list[Document]:
        """The agent's pods on a node."""
        return [one for one in self.fake.api.store.all("pods", PLACE) if one["spec"]["nodeName"] == node]

    @asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        async with connect(self.config, patience=QUICK) as api:
            yield api

    def be_patient(self) -> None:
        """The rollout that is written down waits as long as others by default."""
        choices = msgspec.structs.replace(self.written.choices, patience=60.0)
        state = msgspec.structs.replace(self.written, choices=choices)

        def write(one: Document) -> None:
            one["data"]["state.json"] = text(state)

        self.fake.api.store.change("configmaps", record.PLACE, record.NAME, write)

    def change_set(self, change: Callable[[Document], None]) -> None:
        """Somebody else changes the DaemonSet."""
        self.fake.api.store.change(SETS, PLACE, NAME, change)


SURGE = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 2}}


@asynccontextmanager
async def place(folder: Path, nodes: int = 2, **options: Any) -> AsyncIterator[Place]:
    """A cluster whose agent is ready on all nodes."""
    agent = canal()
    agent["spec"]["updateStrategy"] = json.loads(json.dumps(SURGE))
    quick = {"start_delay": 0.0, "ready_delay": 0.0, **options}
    async with cluster(nodes, agent=agent, **quick) as fake:
        config = folder / "kubeconfig"
        config.write_text(fake.api.kubeconfig())
        found = Place(fake, config)
        await ready(found, nodes)

        def seen(event: Any) -> None:
            agent_pod = event.document["metadata"]["name"].startswith(f"{NAME}-")
            if event.resource == "pods" and event.type == "DELETED" and agent_pod:
                found.gone[event.document["spec"]["nodeName"]] += 1

        fake.api.store.listeners.append(seen)
        yield found


async def ready(found: Place, nodes: int) -> None:
    """Wait until the agent is ready on so many nodes."""

    def are_ready() -> bool:
        pods = found.fake.api.store.all("pods", PLACE)
        conditions = [one for pod in pods for one in pod.get("status", {}).get("conditions", ())]
        found_ready = [one for one in conditions if one["type"] == "Ready" and one["status"] == "True"]
        return len(found_ready) >= nodes

    await until(are_ready)


@dataclass
class Driver:
    """One process that drives: it begins, or goes on with what is there."""

    place: Place
    change: RolloutChange = IMAGE
    choices: RolloutChoices = field(default_factory=lambda: RolloutChoices(patience=60.0))
    mortal: Mortal = field(default_factory=Mortal)
    hands: Hands = field(default_factory=Hands)
    undo: bool = False
    permit: Callable[[Sequence[str]], str] = lambda _: ""
    most: int = 0
    others: Callable[[Sequence[str]], Awaitable[str]] | None = None
    said: list[str] = field(default_factory=list)

    async def run(self) -> Rollout:
        """Until it ended or stopped; ``Killed`` when it was."""
        async with self.place.api() as api:
            self.mortal.hang_on(api)
            survey = await survey_cluster(api)
            found = await record.read_record(api)
            mine = RolloutRecord(api)
            if found is None or (found.state.phase == "ended" and not self.undo):
                state, _ = await preconditions.new(api, survey, self.change, self.choices)
                await mine.begin(state, found)
            else:
                state = await preconditions.undone(api, found.state) if self.undo else found.state
                await mine.claim(record.StoredRollout(state, found.map))
            agent = AgentPods(api, survey.cni)
            context = DriverContext(api, agent, mine, self.hands, self.permit, self.said.append, self.most)
            if self.others is not None:
                context.others = self.others
            await drive(context)
            return mine.state
