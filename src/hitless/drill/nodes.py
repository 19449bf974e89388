"""This machine as a target: its own agent is restarted by local means, without Kubernetes access.

Problem: K3s runs flannel in its own process, and not every node administrator has access to the API. Promise: the watch
runs in this network namespace, the probe in a pod's (or here, with a warning), with a control probe here. The agent is
restarted by systemctl, by the container runtime (the kubelet starts it again) or by a command. It counts as back when
its check succeeds (the unit is active, another container of that name runs, the ready command exits with 0), and when
there is evidence that it restarted at all (``restart_signs``); without evidence the drill ends, inconclusive. Only the
restart itself changes the machine. Next stage: ``running``.
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
from hitless.drill.drill_log import SubjectRecorder, Tool
from hitless.drill.labs import HITLESS
from hitless.drill.plans import DrillPlan
from hitless.drill.restart_signs import BeforeRestart
from hitless.drill.targets import Subject, SubjectName
from hitless.errors import HitlessError, InputError, ProgramError
from hitless.evidence.doubts import NO_SIGN
from hitless.kernel import processes
from hitless.kernel.namespaces import HERE, Namespace
from hitless.model import events as e
from hitless.probe.targets import is_far_end

__all__ = ["NodeTarget", "RestartMethod"]

_HEADER = 20.0
_DRAIN = 15.0
_PERIOD = 0.05
_CHECK = 0.25
_COMMAND = 120.0  # stopping a unit such as rke2-server can take long
_SIGN = 30.0  # seconds after a successful command in which the restart must be noticed
_ERROR_OUTPUT = 400  # characters of a command's standard error that are reported

Step = Literal["stop", "exited", "started", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class RestartMethod:
    """How the agent is restarted: by a systemd ``unit``, a ``container``'s name, or a ``command``; exactly one of them.

    ``runtime``: for containers; ``ready``: a command that exits with 0 when the agent is ready; ``grace``: in seconds;
    ``process``: the name of the agent's process, if it is not a known one; ``name``: the agent's name in reports.
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
                arguments = shlex.split(text)
            except ValueError as error:
                raise InputError(f"{text!r}: {error}", where=flag, expected="a command line") from error
            if text and not arguments:
                raise InputError("is empty", where=flag, expected="a command line")

    @property
    def title(self) -> str:
        """The agent's name in the table."""
        return self.name or self.unit or self.container or shlex.split(self.command)[0].rsplit("/", 1)[-1]

    @property
    def description(self) -> str:
        """What is done, for the record."""
        if self.unit:
            return f"systemctl restart {self.unit}"
        return f"{self.runtime}: stop container {self.container}" if self.container else self.command

    def check(self) -> None:
        """Raise ``MissingError`` for a missing program, ``InputError`` if the agent does not run."""
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

    def before(self) -> BeforeRestart:
        """The state before the restart, to compare with the state after it."""
        containers = frozenset(self._containers.running()) if self.container else frozenset()
        agents, others = restart_signs.processes_of(self.process)
        return BeforeRestart(containers, restart_signs.unit_state(self.unit) if self.unit else (), agents, others)

    def stop(self) -> str:
        """Begin the restart; returns the standard error output of the program that did it."""
        if self.container:
            self._containers.stop()
            return ""
        line = ["systemctl", "restart", self.unit] if self.unit else shlex.split(self.command)
        output = " ".join(processes.errors_of(line, timeout=_COMMAND).split())
        return output if len(output) <= _ERROR_OUTPUT else f"…{output[-_ERROR_OUTPUT:]}"

    def back(self, before: BeforeRestart) -> bool:
        """Whether the agent runs again, and is ready, if there is a check for that."""
        if self.unit and not _succeeds(["systemctl", "is-active", "--quiet", self.unit]):
            return False
        if self.container and not self._containers.running() - before.containers:
            return False
        return not self.ready or _succeeds(shlex.split(self.ready))

    def gone(self, before: BeforeRestart) -> str:
        """Evidence that the agent ended, whether or not it started again; empty if there is none."""
        if self.container:
            ended = sorted(before.containers - self._containers.running())
            return f"container {ended[0][:12]} has ended" if ended else ""
        if self.unit and not _succeeds(["systemctl", "is-active", "--quiet", self.unit]):
            return f"{self.unit} is not active"
        return restart_signs.ended(before)

    def sign(self, before: BeforeRestart, changes: Sequence[e.Change], since: int) -> tuple[str, str]:
        """Evidence that the agent restarted, and evidence against it; each empty if there is none."""
        if self.container:
            fresh = sorted(self._containers.running() - before.containers)
            was = ", ".join(one[:12] for one in sorted(before.containers)) or "none"
            return (f"container {fresh[0][:12]} runs (before: {was})", "") if fresh and before.containers else ("", "")
        if self.unit and before.unit and not self.process:
            sign = restart_signs.of_unit(self.unit, before)
            return sign, "" if sign else f"systemd reports no new activation of {self.unit}"
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
    """This machine. ``pod``: the namespace of the probe; ``HERE`` measures the host's egress, not a pod's."""

    def __init__(
        self,
        method: RestartMethod,
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
        self._method = method
        self._plan = plan
        self._node = node
        self._to = tuple(to)
        self._pod = pod
        self._networks = tuple(networks)
        self._profile = profile

    @property
    def config(self) -> Mapping[str, Any]:
        """The header's fields about the machine."""
        return {
            "target": "node",
            "far_end": False,
            "method": self._method.description,
            "to": list(self._to),
            "probe_from": self._pod.name,
        }

    def subjects(self) -> Sequence[SubjectName]:
        """The one agent of this machine."""
        return [SubjectName(self._method.title, self._node)]

    @asynccontextmanager
    async def open(self, name: SubjectName, recorder: SubjectRecorder) -> AsyncIterator[Subject]:
        """Start watch and probes."""
        await asyncio.to_thread(self._method.check)
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
                recorder.note("warning", "the probe runs on the host: it does not pass the pods' egress path")
            else:
                wanted.append(("control_host", control, HERE))
            for stream, arguments, namespace in wanted:
                tool = await Tool.start(stream, [*HITLESS, *arguments], recorder, namespace=namespace, stream=stream)
                stack.push_async_callback(tool.hasten)
                tools.append(tool)
            for tool in tools:
                heard = await tool.heard(_HEADER)
                if tool.refused:  # an option of the user that the tool does not accept
                    raise HitlessError(tool.refused)
                if not heard and not recorder.trouble.is_set():
                    recorder.fail(f"{tool.name} said nothing within {_HEADER:g} s")
            yield _NodeSubject(self._method, self._plan, recorder, tools)


class _NodeSubject:
    def __init__(
        self, method: RestartMethod, plan: DrillPlan, recorder: SubjectRecorder, tools: Sequence[Tool]
    ) -> None:
        self._method = method
        self._plan = plan
        self._recorder = recorder
        self._tools = tools

    async def restart(self, round: int) -> None:
        def report(step: Step, detail: str = "", evidence: str = "", code: e.RestartCode = "") -> None:
            self._recorder.write(
                e.Restart(
                    t=self._recorder.now,
                    step=step,
                    round=round,
                    method=self._method.description,
                    detail=detail,
                    evidence=evidence,
                    code=code,
                )
            )

        before = await asyncio.to_thread(self._method.before)
        since = self._recorder.now
        report("stop")
        try:
            output = await asyncio.to_thread(self._method.stop)
            sign, against, back = await self._wait(before, since)
        except HitlessError as error:
            changes = list(self._recorder.changes)
            report("failed", str(error), self._method.gone(before) or self._method.sign(before, changes, since)[0])
            raise
        if not sign and not back and (gone := await asyncio.to_thread(self._method.gone, before)):
            report("failed", f"not back {self._plan.patience:g} s after the restart", gone)
            return
        if not sign:
            text = f"{NO_SIGN} in round {round}: {against or 'no process of it is known, and no rule was written'}"
            if not self._method.container:
                text += f"; {self._method.description} said on standard error: {output or 'nothing'}"
            report("failed", text, code="no_sign")
            self._recorder.fail(text)  # further restarts would not be noticed either
            return
        report("started", evidence=sign)
        if back:
            report("ready")
        else:
            report("failed", f"not back {self._plan.patience:g} s after the restart")

    async def _wait(self, before: BeforeRestart, since: int) -> tuple[str, str, bool]:
        """Wait until the agent is back and there is evidence that it restarted.

        Returns the evidence, the evidence against it, and whether the agent is back.
        """
        loop = asyncio.get_running_loop()
        begin, next_check, sign, against = loop.time(), 0.0, "", ""
        while True:
            back = await asyncio.to_thread(self._method.back, before)
            if not sign and (back or loop.time() >= next_check):  # reading all of /proc takes time
                next_check = loop.time() + _CHECK
                sign, against = await asyncio.to_thread(self._method.sign, before, list(self._recorder.changes), since)
            waited = loop.time() - begin
            if (sign and back) or waited > self._plan.patience or (back and not sign and waited > _SIGN):
                return sign, against, back
            await asyncio.sleep(_CHECK if back else _PERIOD)

    async def quiet(self) -> None:
        for tool in self._tools:
            await tool.stop(_DRAIN)
