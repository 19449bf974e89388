"""This machine as a target: its own agent restarted by its own means, without Kubernetes access.

Problem: K3s runs flannel in its own process, and not everybody who has a node has the API. Promise: the rules' watch
runs in this network namespace, the probe in a pod's (or here, which is said), a control probe beside it; the agent is
restarted by systemctl, by the container runtime (the kubelet starts it again) or by a command, and counts as back when
its own question is answered: the unit is active, another container of that name runs, the ready command ends with 0,
and when there is a sign that it restarted at all (``signs``); without one the drill ends, and is inconclusive.
Nothing on the machine is changed but by the restart itself. Next stage: ``running``.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

from hitless.drill import restart_signs
from hitless.drill.containers import Containers
from hitless.drill.drill_log import SubjectLog, Tool
from hitless.drill.labs import HITLESS
from hitless.drill.plans import DrillPlan
from hitless.drill.restart_signs import BeforeRestart
from hitless.drill.targets import Subject, SubjectName
from hitless.errors import HitlessError, InputError, ProgramError
from hitless.evidence.criteria import NO_SIGN
from hitless.kernel import processes
from hitless.kernel.namespaces import HERE, Namespace
from hitless.model import events as e
from hitless.probe.targets import is_far_end

__all__ = ["NodeTarget", "RestartMethod"]

_HEADER = 20.0
_DRAIN = 15.0
_PERIOD = 0.05
_LOOK = 0.25
_COMMAND = 120.0  # a unit such as rke2-server takes its time to stop
_SIGN = 30.0  # seconds after a command ended well in which what it restarts must be seen to
_WORDS = 400  # of what a command said on standard error

Step = Literal["stop", "exited", "started", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class RestartMethod:
    """How the agent is restarted: a systemd ``unit``, a ``container`` by its name, or a ``command``; exactly one.

    ``runtime`` is for containers; ``ready`` a command that ends with 0 when the agent is ready; ``grace`` in seconds;
    ``process`` is the name of the agent's process where another is to be looked at than the known ones;
    ``name``: what the agent is called.
    """

    unit: str = ""
    container: str = ""
    command: str = ""
    runtime: Literal["crictl", "ctr"] = "crictl"
    grace: int | None = None
    ready: str = ""
    process: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        given = [one for one in (self.unit, self.container, self.command) if one]
        if len(given) != 1:
            raise InputError(
                f"{len(given)} ways to restart were given",
                where="node-drill",
                expected="one of --restart-unit, --restart-container and --restart-command",
            )
        for text, flag in ((self.command, "--restart-command"), (self.ready, "--ready-command")):
            try:
                words = shlex.split(text)
            except ValueError as error:
                raise InputError(f"{text!r}: {error}", where=flag, expected="a command line") from error
            if text and not words:
                raise InputError("is empty", where=flag, expected="a command line")

    @property
    def title(self) -> str:
        """The agent's name in the table."""
        return self.name or self.unit or self.container or shlex.split(self.command)[0].rsplit("/", 1)[-1]

    @property
    def words(self) -> str:
        """What is done, for the record."""
        if self.unit:
            return f"systemctl restart {self.unit}"
        return f"{self.runtime}: stop container {self.container}" if self.container else self.command

    def check(self) -> None:
        """Refuse what this machine does not have: ``MissingError`` for a program, ``InputError`` for the agent."""
        if self.unit:
            processes.program("systemctl")
            if not _succeeds(["systemctl", "is-active", "--quiet", self.unit]):
                raise InputError(f"{self.unit} is not active", where="--restart-unit", expected="a unit that runs")
        elif self.container:
            if not self._containers.running():
                raise InputError(f"no container {self.container} runs", where="--restart-container", expected="one")
        else:
            processes.program(shlex.split(self.command)[0])
        if self.ready:
            processes.program(shlex.split(self.ready)[0])
        if self.process and not restart_signs.processes_of(self.process)[0]:
            raise InputError(
                f"no process {self.process} runs in this network namespace",
                where="--agent-process",
                expected="the name of the agent's process (ps -e), or none, to look for the known agents",
            )

    @property
    def _containers(self) -> Containers:
        return Containers(self.container, self.runtime, self.grace)

    def look(self) -> BeforeRestart:
        """What is there before the restart, to know it again afterwards."""
        containers = frozenset(self._containers.running()) if self.container else frozenset()
        agents, others = restart_signs.processes_of(self.process)
        return BeforeRestart(containers, restart_signs.unit_state(self.unit) if self.unit else (), agents, others)

    def stop(self) -> str:
        """Begin the restart; returns what the program that did it said on standard error."""
        if self.container:
            self._containers.stop()
            return ""
        line = ["systemctl", "restart", self.unit] if self.unit else shlex.split(self.command)
        said = " ".join(processes.errors_of(line, timeout=_COMMAND).split())
        return said if len(said) <= _WORDS else f"…{said[-_WORDS:]}"

    def back(self, before: BeforeRestart) -> bool:
        """Whether the agent runs again, and is ready where a question for that was given."""
        if self.unit and not _succeeds(["systemctl", "is-active", "--quiet", self.unit]):
            return False
        if self.container and not self._containers.running() - before.containers:
            return False
        return not self.ready or _succeeds(shlex.split(self.ready))

    def gone(self, before: BeforeRestart) -> str:
        """What says that the agent ended, whether or not it began again; empty where nothing does."""
        if self.container:
            ended = sorted(before.containers - self._containers.running())
            return f"container {ended[0][:12]} has ended" if ended else ""
        if self.unit and not _succeeds(["systemctl", "is-active", "--quiet", self.unit]):
            return f"{self.unit} is not active"
        return restart_signs.ended(before)

    def sign(self, before: BeforeRestart, changes: Sequence[e.Change], since: int) -> tuple[str, str]:
        """What says that the agent restarted, and what speaks against it; each empty where nothing does."""
        if self.container:
            fresh = sorted(self._containers.running() - before.containers)
            was = ", ".join(one[:12] for one in sorted(before.containers)) or "none"
            return (f"container {fresh[0][:12]} runs (before: {was})", "") if fresh and before.containers else ("", "")
        if self.unit and before.unit and not self.process:
            told = restart_signs.of_unit(self.unit, before)
            return told, "" if told else f"systemd reports no new activation of {self.unit}"
        sign, against = restart_signs.of_processes(before, self.process)
        if sign or against:
            return sign, against
        return restart_signs.of_rules(changes, since), ""


def _succeeds(command: Sequence[str]) -> bool:
    try:
        processes.errors_of(command, timeout=30)
    except ProgramError:
        return False
    return True


class NodeTarget:
    """This machine. ``pod``: where the probe runs; ``HERE`` measures the host's egress and not a pod's."""

    def __init__(
        self,
        way: RestartMethod,
        plan: DrillPlan,
        *,
        node: str,
        to: Sequence[str],
        pod: Namespace,
        networks: Sequence[str],
        profile: str,
    ) -> None:
        if not to:
            raise InputError("there is no far end", where="--to", expected="a URL, e.g. https://example.org/")
        self._way = way
        self._plan = plan
        self._node = node
        self._to = tuple(to)
        self._pod = pod
        self._networks = tuple(networks)
        self._profile = profile

    @property
    def config(self) -> Mapping[str, Any]:
        """What the header says of the machine."""
        return {
            "target": "node",
            "far_end": False,
            "method": self._way.words,
            "to": list(self._to),
            "probe_from": self._pod.name,
        }

    def subjects(self) -> Sequence[SubjectName]:
        """One: this machine's agent."""
        return [SubjectName(self._way.title, self._node)]

    @asynccontextmanager
    async def open(self, name: SubjectName, desk: SubjectLog) -> AsyncIterator[Subject]:
        """Watch and probes, running."""
        await asyncio.to_thread(self._way.check)
        family = "dual" if len(self._plan.families) > 1 else self._plan.families[0]
        watch = ["watch", "--json", "--family", family, "--profile", self._profile]
        for network in self._networks:
            watch += ["--network", network]
        ours = any(is_far_end(one) for one in self._to)
        probe = ["probe", "--json", "--family", family]
        probe += ["--rate", str(self._plan.rate), "--streams", str(self._plan.streams)] if ours else []
        control = ["probe", "--json", "--family", family, *(["--rate", "20"] if ours else [])]
        for target in self._to:
            probe += ["--to", target]
            control += ["--to", target]
        tools: list[Tool] = []
        async with AsyncExitStack() as stack:
            wanted = [("probe", probe, self._pod), ("watch", watch, HERE)]
            if self._pod.net is None:
                desk.note("warning", "the probe runs on the host: it does not pass the pods' egress path")
            else:
                wanted.append(("control_host", control, HERE))
            for stream, words, namespace in wanted:
                tool = await Tool.start(stream, [*HITLESS, *words], desk, namespace=namespace, stream=stream)
                stack.push_async_callback(tool.hasten)
                tools.append(tool)
            for tool in tools:
                heard = await tool.heard(_HEADER)
                if tool.refused:  # here everything that the tools are told comes from people
                    raise HitlessError(tool.refused)
                if not heard and not desk.trouble.is_set():
                    desk.fail(f"{tool.name} said nothing within {_HEADER:g} s")
            yield _NodeSubject(self._way, self._plan, desk, tools)


class _NodeSubject:
    def __init__(self, way: RestartMethod, plan: DrillPlan, desk: SubjectLog, tools: Sequence[Tool]) -> None:
        self._way = way
        self._plan = plan
        self._desk = desk
        self._tools = tools

    async def restart(self, round: int) -> None:
        def tell(step: Step, detail: str = "", evidence: str = "", code: e.RestartCode = "") -> None:
            self._desk.write(
                e.Restart(
                    t=self._desk.now,
                    step=step,
                    round=round,
                    method=self._way.words,
                    detail=detail,
                    evidence=evidence,
                    code=code,
                )
            )

        before = await asyncio.to_thread(self._way.look)
        since = self._desk.now
        tell("stop")
        try:
            said = await asyncio.to_thread(self._way.stop)
            sign, against, back = await self._wait(before, since)
        except HitlessError as error:
            changes = list(self._desk.changes)
            tell("failed", str(error), self._way.gone(before) or self._way.sign(before, changes, since)[0])
            raise
        if not sign and not back and (gone := await asyncio.to_thread(self._way.gone, before)):
            tell("failed", f"not back {self._plan.patience:g} s after the restart", gone)
            return
        if not sign:
            text = f"{NO_SIGN} in round {round}: {against or 'no process of it is known, and no rule was written'}"
            if not self._way.container:
                text += f"; {self._way.words} said on standard error: {said or 'nothing'}"
            tell("failed", text, code="no_sign")
            self._desk.fail(text)  # more restarts of this kind would prove as little
            return
        tell("started", evidence=sign)
        if back:
            tell("ready")
        else:
            tell("failed", f"not back {self._plan.patience:g} s after the restart")

    async def _wait(self, before: BeforeRestart, since: int) -> tuple[str, str, bool]:
        """Until the agent is back, and there is a sign that it restarted: that, what speaks against it, and whether it
        is back."""
        loop = asyncio.get_running_loop()
        begin, look, sign, against = loop.time(), 0.0, "", ""
        while True:
            back = await asyncio.to_thread(self._way.back, before)
            if not sign and (back or loop.time() >= look):  # reading all of /proc takes its time
                look = loop.time() + _LOOK
                sign, against = await asyncio.to_thread(self._way.sign, before, list(self._desk.changes), since)
            waited = loop.time() - begin
            if (sign and back) or waited > self._plan.patience or (back and not sign and waited > _SIGN):
                return sign, against, back
            await asyncio.sleep(_LOOK if back else _PERIOD)

    async def quiet(self) -> None:
        for tool in self._tools:
            await tool.stop(_DRAIN)
