"""The lab as a target: for each agent a fresh node with a pod, so that no agent inherits another's rules.

Problem: agents shall be compared under the same conditions, on a machine where nothing else is needed. Promise: each
subject gets a lab of its own (node, pod, far end without a route back), its agent under a supervisor that stands in for
the kubelet, the far end's answers, the rules' watch in the node and the probe in the pod, all on one clock. Everything
is taken away when the subject closes or this process dies. Nothing outside the lab's namespaces is touched.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hitless import lab
from hitless.drill.guarding import SUFFIX, guarded
from hitless.drill.plans import Method, Plan
from hitless.drill.recording import Desk, Tool
from hitless.drill.targets import Name, Subject
from hitless.errors import InputError
from hitless.kernel.namespaces import Namespace
from hitless.lab.agents import Agent
from hitless.lab.supervisor import How, Supervisor

__all__ = ["HITLESS", "LabSubject", "LabTarget", "Opened"]

_HEADER = 20.0
"""Seconds until a tool must have said its first word: Python starts in 0.2 s, or in many on a machine that is busy."""

_DRAIN = 10.0
"""Seconds that a tool may take to end: the prober waits for what it has open, 2.5 s by default."""

HITLESS = (sys.executable, "-P", "-m", "hitless")
"""This very installation, whatever PATH says in the namespace."""


class LabTarget:
    """Agents in labs of their own, one after another; ``place`` is what each lab looks like.

    ``guard``: each agent gets a second row, with ``hitless guard`` on its node (ours, which needs none, only where it
    is alone).
    """

    def __init__(self, agents: Sequence[Agent], plan: Plan, place: lab.Plan, *, guard: bool = False) -> None:
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

    @property
    def config(self) -> Mapping[str, Any]:
        """What the header says of the lab."""
        return {
            "target": "lab",
            "far_end": True,
            "stand_ins": {agent.name: agent.replays for agent in self._agents.values() if agent.replays},
            "backend": str(self._place.backend),
            "services": self._place.services,
            "forward_policy": self._place.forward_policy,
        }

    def subjects(self) -> Sequence[Name]:
        """The agents in their order, each on the first node of its lab."""
        rows = [row for name in self._agents for row in (name, f"{name}{SUFFIX}") if row in self._rows]
        return [Name(row, self._place.node_name(0)) for row in rows]

    @property
    def _rows(self) -> Mapping[str, Agent]:
        return {**self._agents, **self._guarded}

    @asynccontextmanager
    async def open(self, name: Name, desk: Desk) -> AsyncIterator[Subject]:
        """A lab with the agent running and everything streaming."""
        agent = self._rows[name.agent]
        async with lab.up_async(self._place) as built:
            supervisor = Supervisor(
                built.nodes[0], agent, built.plan, emit=desk.write, clock=desk.record.clock, backoff=1.0
            )
            async with supervisor, AsyncExitStack() as stack:
                if not await supervisor.start():
                    words = supervisor.last_words[-1:] or ("it wrote nothing",)
                    desk.fail(f"{agent.name} did not become ready: {words[0]}")
                if name.agent in self._guarded:
                    guard = guarded(built.nodes[0], built.plan.families, HITLESS, desk)
                    await stack.enter_async_context(guard)
                opened = Opened(name, desk, built, supervisor, await self._stream(built, desk, stack))
                yield self.subject(opened)

    def subject(self, opened: Opened) -> Subject:
        """What is drilled, once all of it runs."""
        return LabSubject(self._plan, opened)

    async def _stream(self, built: lab.Lab, desk: Desk, stack: AsyncExitStack) -> Mapping[str, Tool]:
        """Start far end, watch and probe; whatever happens, ``stack`` ends them."""
        node, pod, far = built.nodes[0], built.nodes[0].pods[0], built.far_end
        families = built.plan.families
        addresses = [str(address) for family in families for address in far.addresses[family]]
        watch, farend = ["watch", "--json"], ["farend", "--json"]
        for address in addresses:
            farend += ["--bind", address]
        for family in families:
            watch += ["--network", str(built.plan.network(family))]
            farend += ["--leaks", str(built.plan.network(family))]
        probe = ["probe", "--json", "--rate", str(self._plan.rate), "--streams", str(self._plan.streams)]
        probe += ["--family", "dual" if len(families) > 1 else str(families[0])]
        for address in addresses:
            probe += ["--to", f"farend://[{address}]" if ":" in address else f"farend://{address}"]
        tools: dict[str, Tool] = {}

        async def start(name: str, words: Sequence[str], namespace: Namespace) -> None:
            tools[name] = await Tool.start(name, [*HITLESS, *words], desk, namespace=namespace)
            stack.push_async_callback(tools[name].hasten)

        await start("farend", farend, far.namespace)
        await start("watch", watch, node.namespace)
        for name in ("farend", "watch"):
            await _heard(tools[name], desk)
        await start("probe", probe, pod.namespace)
        await _heard(tools["probe"], desk)
        return tools


async def _heard(tool: Tool, desk: Desk) -> None:
    if not await tool.heard(_HEADER) and not desk.trouble.is_set():
        desk.fail(f"{tool.name} said nothing within {_HEADER:g} s")


@dataclass(frozen=True, slots=True)
class Opened:
    """Everything of a subject that runs in a lab."""

    name: Name
    desk: Desk
    lab: lab.Lab
    supervisor: Supervisor
    tools: Mapping[str, Tool]


class LabSubject:
    """An agent in a lab, restarted by the plan's method."""

    def __init__(self, plan: Plan, opened: Opened) -> None:
        self.opened = opened
        if not isinstance(plan.method, Method):
            raise InputError(f"{plan.method} is for clusters", where="--restart", expected=", ".join(Method))
        self.how = How(plan.method, away=plan.stop_for, crashes=plan.crashes)

    async def restart(self, round: int) -> None:
        """As ``targets.Subject``."""
        await self.opened.supervisor.restart(self.how, round)

    async def quiet(self) -> None:
        """As ``targets.Subject``: the probe ends first, so that nobody else's end looks like a loss."""
        for name in ("probe", "watch", "farend"):
            await self.opened.tools[name].stop(_DRAIN)
