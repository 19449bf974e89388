"""A small stand-in for the kubelet: runs one agent in one node, and restarts it as a cluster does.

Problem: an agent's restart is more than a signal: a grace period, a SIGKILL for the whole container, a delay before the
next start, a readiness probe, a back-off when it keeps crashing. Promise: each of these is done as the kubelet does it,
and reported with its time as ``model.events.Restart``; an agent that cannot be started, or does not become ready in
time, is reported as ``failed`` with its last output; all that it started, daemons included, ends with it, and it ends
with this process. Times are the event loop's, so tests run in virtual time. Next stage: ``hitless.drill``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType

from hitless.errors import HitlessError
from hitless.kernel.clock import Clock
from hitless.lab import readiness
from hitless.lab.agents import Agent, environment
from hitless.lab.clusters import LabNode
from hitless.lab.launching import Launch, RunningProgram, launch
from hitless.lab.plans import LabPlan
from hitless.lab.restart_steps import RestartSteps, Step
from hitless.model.events import Restart

__all__ = ["How", "Method", "Supervisor"]

_STILL_READY_PERIOD = 1.0  # seconds between probes once it is ready
_SETTLE = 0.1  # seconds that a program without a probe must live: one that cannot be executed has ended by then
_HEALTHY = 600.0  # seconds of good running after which the kubelet forgets earlier crashes
_LAST_LINES = 30  # of its output, kept for a failure report
_CRASH_FIRST, _CRASH_LAST = 0.01, 0.6  # seconds; Python agents read their rules after 0.2 and are ready by 0.6
_GOLDEN = 0.6180339887498949
_KILL_WITHIN = 10.0  # seconds; a process that SIGKILL does not end within this hangs in the kernel


class Method(StrEnum):
    """The methods to restart an agent."""

    SIGTERM = "sigterm"
    SIGKILL = "sigkill"
    CRASH_LOOP = "crash-loop"
    STOP = "stop"
    REPLACE = "replace"
    """Another agent is started in its place."""


@dataclass(frozen=True, slots=True)
class How:
    """A restart: ``method``; ``start_delay`` between its end and the next start; ``away`` how long ``stop`` stays away;
    ``crashes`` how often a crash loop kills it, each time ``crash_after`` its start. Seconds."""

    method: Method = Method.SIGTERM
    start_delay: float = 0.0
    away: float = 5.0
    crashes: int = 3
    backoff: float = 0.2

    def crash_after(self, round: int, crash: int) -> float:
        """Seconds from a start to the SIGKILL that follows it; ``round`` and ``crash`` count from 1.

        What a crash costs depends on what the agent does at that moment, so that each crash must come at another one.
        Multiples of the golden ratio are spread evenly over the span, for any number of them, and are the same in each
        drill.
        """
        number = max(0, round - 1) * (self.crashes - 1) + crash
        return _CRASH_FIRST + (_CRASH_LAST - _CRASH_FIRST) * (number * _GOLDEN % 1.0)


class Supervisor:
    """Runs ``agent`` in ``node``; ``emit`` gets every step.

    ``backoff`` is the first wait after a crash that was not requested, doubled up to ``longest_backoff`` (the kubelet's
    are 10 s and 300 s). ``output`` gets every line that the agent writes.
    """

    def __init__(
        self,
        node: LabNode,
        agent: Agent,
        plan: LabPlan,
        *,
        emit: Callable[[Restart], None],
        clock: Clock,
        backoff: float = 10.0,
        longest_backoff: float = 300.0,
        output: Callable[[str], None] | None = None,
        launcher: Launch = launch,
    ) -> None:
        self.node = node
        self.agent = agent
        self.plan = plan
        self.restarts = 0
        self.ready = False
        self._steps = RestartSteps(node.name, emit, clock)
        self._backoff = backoff
        self._longest_backoff = longest_backoff
        self._output = output
        self._launch = launcher
        self._running: RunningProgram | None = None
        self._watch: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)

    @property
    def pid(self) -> int:
        """The agent's process; 0 while it does not run."""
        return self._running.pid if self._running else 0

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines of its output."""
        return tuple(self._lines)

    # --- what a cluster does ----------------------------------------------------------------------------------------

    async def start(self) -> bool:
        """Start the agent and wait until it is ready; false (and a ``failed`` step) when it does not become ready."""
        if not await self._begin():
            return False
        ready = await self._until_ready()
        self._watch = asyncio.create_task(self._keep_running())
        return ready

    async def restart(self, how: How, round: int = 0, *, then: Agent | None = None) -> bool:
        """Restart it as in ``how``; whether it became ready again. ``round`` goes into every step's record.

        ``then``: the agent that is started in its place.
        """
        self._steps.round, self._steps.method = round, str(how.method)
        try:
            match how.method:
                case Method.SIGTERM | Method.REPLACE:
                    await self.stop()
                case Method.SIGKILL:
                    await self.kill()
                case Method.CRASH_LOOP:
                    await self._crash_loop(how)
                case Method.STOP:
                    await self.stop()
                    await asyncio.sleep(how.away)
            await asyncio.sleep(how.start_delay)
            self.restarts += 1
            self.agent = then or self.agent
            return await self.start()
        finally:
            self._steps.method = ""

    async def stop(self, grace: float | None = None) -> None:
        """SIGTERM, wait for the grace period, then SIGKILL for the whole container."""
        running = await self._detach()
        if running is None:
            return
        self._report("stop", running.pid, "SIGTERM")
        running.signal(signal.SIGTERM)  # the kubelet's signal goes to the container's first process
        patience = self.agent.grace if grace is None else grace
        try:
            code = await asyncio.wait_for(running.wait(), patience)
        except TimeoutError:
            await self._kill(running, f"still there after its grace period of {patience:g} s")
        else:
            self._ended(running.pid, _ending(code))

    async def kill(self, why: str = "SIGKILL") -> None:
        """SIGKILL for the whole container, as when the kernel runs out of memory."""
        running = await self._detach()
        if running is not None:
            await self._kill(running, why)

    async def close(self) -> None:
        """Kill the agent, if it runs, and end every task."""
        running = await self._detach()
        if running is not None:
            running.kill()
            try:
                await asyncio.wait_for(running.wait(), _KILL_WITHIN)
            except TimeoutError:  # it hangs in the kernel; the lab is taken down nevertheless
                self._report("failed", running.pid, f"SIGKILL did not end it within {_KILL_WITHIN:g} s")

    async def __aenter__(self) -> Supervisor:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --- how -------------------------------------------------------------------------------------------------------

    async def _crash_loop(self, how: How) -> None:
        await self.kill()
        wait = how.backoff
        for crash in range(1, how.crashes):
            await asyncio.sleep(wait)
            wait = min(wait * 2, self._longest_backoff)
            self.restarts += 1
            if await self._begin():
                after = how.crash_after(self._steps.round, crash)
                await asyncio.sleep(after)
                await self.kill(f"SIGKILL {after * 1000:.0f} ms after its start")
        await asyncio.sleep(wait)

    async def _kill(self, running: RunningProgram, why: str) -> None:
        self._report("killed", running.pid, why)
        running.kill()
        try:
            code = await asyncio.wait_for(running.wait(), _KILL_WITHIN)
        except TimeoutError:
            self._report("failed", running.pid, f"SIGKILL did not end it within {_KILL_WITHIN:g} s")
        else:
            self._ended(running.pid, _ending(code))

    async def _detach(self) -> RunningProgram | None:
        """Stop supervising the agent, which is then ended on purpose."""
        self.ready = False
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        running, self._running = self._running, None
        return running

    async def _begin(self) -> bool:
        self.ready = False
        self._lines.clear()
        command = self.agent.command(self.plan, self.node)
        try:
            readiness.forget(self.agent.readiness, self.node.root)
            self._running = await self._launch(
                command, self.node.namespace, environment(self.plan, self.node), self._receive
            )
        except (HitlessError, OSError) as error:
            self._report("failed", 0, f"{command[0]} cannot be started: {error}")
            return False
        self._steps.started(self.agent.name, self.pid, f"{self.agent.name}: {command[0]}")
        return True

    async def _until_ready(self) -> bool:
        probe, running = self.agent.readiness, self._running
        assert running is not None
        ended = asyncio.ensure_future(running.wait())
        try:
            if probe.kind == "started":
                await asyncio.wait({ended}, timeout=_SETTLE)
            async with asyncio.timeout(probe.patience):
                while not ended.done():
                    if await readiness.probe(probe, self.node.namespace, self.node.root):
                        self.ready = True
                        self._report("ready", running.pid)
                        return True
                    await asyncio.wait({ended}, timeout=probe.period)
        except TimeoutError:
            self._report("failed", running.pid, f"not ready after {probe.patience:g} s{self._last()}")
            return False
        finally:
            if not ended.done():
                ended.cancel()
        self._ended(running.pid, _ending(ended.result()))
        self._report("failed", running.pid, f"ended before it was ready ({_ending(ended.result())}){self._last()}")
        self._running = None
        return False

    async def _keep_running(self) -> None:
        """Until cancelled: report changes of its readiness, and start it again when it ends by itself."""
        wait = self._backoff
        loop = asyncio.get_running_loop()
        while True:
            running, begin = self._running, loop.time()
            if running is not None:
                code = await self._while_it_runs(running)
                self.ready, self._running = False, None
                self._ended(running.pid, f"by itself: {_ending(code)}{self._last()}")
            if loop.time() - begin > _HEALTHY:
                wait = self._backoff
            await asyncio.sleep(wait)
            wait = min(wait * 2, self._longest_backoff)
            self.restarts += 1
            if await self._begin():
                await self._until_ready()

    async def _while_it_runs(self, running: RunningProgram) -> int:
        ended = asyncio.ensure_future(running.wait())
        try:
            while not ended.done():
                await asyncio.wait({ended}, timeout=_STILL_READY_PERIOD)
                if not ended.done():
                    now = await readiness.probe(self.agent.readiness, self.node.namespace, self.node.root)
                    if now != self.ready:
                        self.ready = now
                        self._report("ready" if now else "unready", running.pid)
            return ended.result()
        finally:
            ended.cancel()

    def _receive(self, line: str) -> None:
        self._lines.append(line)
        if self._output is not None:
            self._output(line)

    def _last(self) -> str:
        return f": {self._lines[-1]}" if self._lines else ""

    def _ended(self, pid: int, detail: str) -> None:
        self._steps.ended(self.agent.name, pid, detail)

    def _report(self, step: Step, pid: int, detail: str = "") -> None:
        self._steps.report(step, self.agent.name, pid, detail)


def _ending(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
