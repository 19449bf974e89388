"""The lab as a target: a fresh lab for each agent, so that none inherits another's rules.

Problem: agents must be compared under the same conditions, on a machine that needs nothing else. Promise: each subject
gets its own lab (one node or several, each with a pod, and a far end without a route back), the agent of each node
under a supervisor in place of the kubelet, and its streams (``stations``), all with one clock. Everything is removed
when the subject is closed or this process ends. Nothing outside the lab's namespaces is touched.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hitless import lab
from hitless.drill import stations
from hitless.drill.drill_log import SubjectRecorder, Tool
from hitless.drill.plans import DrillPlan, Method
from hitless.drill.stations import PODS_FAR_END, CompanionRecorder, Station
from hitless.drill.targets import Subject, SubjectName
from hitless.drill.with_guard import SUFFIX, guarded
from hitless.errors import InputError
from hitless.evidence.records import PODS
from hitless.lab.agents import Agent
from hitless.lab.supervisor import How, Supervisor
from hitless.lab.teams import Team

__all__ = ["HITLESS", "LabSubject", "LabTarget", "LabVariation", "OpenedLab"]

_DRAIN = 10.0
"""Seconds that a tool may take to end: the prober waits for open attempts, 2.5 s by default."""

HITLESS = (sys.executable, "-P", "-m", "hitless")
"""The command of this installation, independent of PATH in the namespace."""


@dataclass(frozen=True, slots=True)
class LabVariation:
    """Variations: ``others`` run on their nodes in every row; ``at_once``: how many nodes are restarted at a time;
    ``by``: the agent that replaces the drilled one in odd rounds, and is replaced by it in even ones."""

    others: Mapping[str, Agent] | None = None
    at_once: int = 1
    by: Agent | None = None


class LabTarget:
    """Agents in labs of their own, one after another; ``place`` is the plan of each lab.

    ``guard``: each agent gets a second row with ``hitless guard`` on its node; ``hitless`` itself, which needs none,
    only if it is the only agent.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        plan: DrillPlan,
        place: lab.LabPlan,
        *,
        guard: bool = False,
        ways: LabVariation | None = None,
    ) -> None:
        names = [agent.name for agent in agents]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"{name!r} is named twice", where="--agents", expected="each agent once")
        if not names:
            raise InputError("names no agent", where="--agents", expected="one or more, separated by commas")
        self._agents = {agent.name: agent for agent in agents}
        self._guarded = {
            f"{agent.name}{SUFFIX}": agent
            for agent in agents
            if guard and (agent.name != "hitless" or len(agents) == 1)
        }
        self._plan = plan
        self._place = place
        self._ways = ways or LabVariation()

    @property
    def config(self) -> Mapping[str, Any]:
        """The header's fields about the lab."""
        agents, place, ways = self._agents.values(), self._place, self._ways
        config: dict[str, Any] = {
            "target": "lab",
            "far_end": True,
            "stand_ins": {agent.name: agent.replays for agent in agents if agent.replays},
            "backend": str(place.backend),
            "services": place.services,
            "forward_policy": place.forward_policy,
        }
        if place.nodes > 1:
            config |= {"nodes": [place.node_name(number) for number in range(place.nodes)], "pod_to_pod": True}
            config |= {"overlay": str(place.overlay or "none"), "underlay": str(place.wiring), "at_once": ways.at_once}
        if ways.others:
            config["agents_on"] = {node: agent.name for node, agent in ways.others.items()}
        return config | ({"replace_by": ways.by.name} if ways.by is not None else {})

    def subjects(self) -> Sequence[SubjectName]:
        """The agents in their order, each on the first node of its lab."""
        rows = [row for name in self._agents for row in (name, f"{name}{SUFFIX}") if row in self._rows]
        return [SubjectName(row, self._place.node_name(0)) for row in rows]

    @property
    def _rows(self) -> Mapping[str, Agent]:
        return {**self._agents, **self._guarded}

    @asynccontextmanager
    async def open(self, name: SubjectName, recorder: SubjectRecorder) -> AsyncIterator[Subject]:
        """A lab with the agents and all streams running."""
        team = Team(self._rows[name.agent], self._ways.others or {})
        async with lab.up_async(self._place) as built, AsyncExitStack() as stack:
            found: list[Station] = []
            for node in built.nodes:
                own = recorder
                if found:
                    own = CompanionRecorder(
                        recorder.log, name.agent, node.name, trouble=recorder.trouble, first=recorder
                    )
                    recorder.companions.append(own)
                supervisor = Supervisor(
                    node, team.on(node), built.plan, emit=own.write, clock=recorder.log.clock, backoff=1.0
                )
                found.append(Station(node, own, await stack.enter_async_context(supervisor)))
            await asyncio.gather(*(self._start(one) for one in found))
            if name.agent in self._guarded:
                for one in found:
                    await stack.enter_async_context(guarded(one.node, built.plan.families, HITLESS, one.recorder))
            farend = await stations.begin(built, found, self._plan, HITLESS, stack)
            yield self.subject(OpenedLab(name, recorder, built, tuple(found), farend, self._ways))

    @staticmethod
    async def _start(one: Station) -> None:
        if not await one.supervisor.start():
            output = one.supervisor.last_lines[-1:] or ("it wrote nothing",)
            one.recorder.fail(f"{one.supervisor.agent.name} did not become ready: {output[0]}")

    def subject(self, opened: OpenedLab) -> Subject:
        """The subject of a lab in which everything runs."""
        return LabSubject(self._plan, opened)


@dataclass(frozen=True, slots=True)
class OpenedLab:
    """Everything that runs in a lab, for one subject."""

    name: SubjectName
    recorder: SubjectRecorder
    lab: lab.Lab
    stations: tuple[Station, ...]
    farend: Tool
    ways: LabVariation

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The first node's streams by name, and the far end's."""
        return {**self.stations[0].tools, "farend": self.farend}


class LabSubject:
    """An agent in a lab, which is restarted on every node in every round."""

    def __init__(self, plan: DrillPlan, opened: OpenedLab) -> None:
        self.opened = opened
        if not isinstance(plan.method, Method):
            raise InputError(f"{plan.method} is for clusters", where="--restart", expected=", ".join(Method))
        self.how = How(plan.method, away=plan.stop_for, crashes=plan.crashes)
        self._settle = plan.settle
        self._own = {one.node.name: one.supervisor.agent for one in opened.stations}

    async def restart(self, round: int) -> None:
        """See ``targets.Subject``: ``at_once`` nodes at a time, with the settle time between them."""
        found, size = self.opened.stations, max(1, self.opened.ways.at_once)
        for start in range(0, len(found), size):
            if start:
                await asyncio.sleep(self._settle)
            await asyncio.gather(*(self._restart(one, round) for one in found[start : start + size]))

    async def _restart(self, one: Station, round: int) -> None:
        own, by = self._own[one.node.name], self.opened.ways.by
        then = by if by is not None and round % 2 else own
        await one.supervisor.restart(self.how, round, then=then)

    async def quiet(self) -> None:
        """See ``targets.Subject``: the probers end first, so that the end of other tools causes no losses."""
        for names in (("probe", PODS), ("watch", PODS_FAR_END)):
            tools = [one.tools[name] for one in self.opened.stations for name in names if name in one.tools]
            await asyncio.gather(*(tool.stop(_DRAIN) for tool in tools))
        await self.opened.farend.stop(_DRAIN)
