"""The log of a drill: the streams of many tools, merged as they arrive.

Problem: watch, probe and far end write JSON lines in namespaces of their own and may be killed at any moment; what they
wrote until then must be in the log. Promise: each line becomes an event of the log, with its agent, node and stream. A
line that is not an event, or an event that its tool cannot know (``event_checks``), becomes a note of level error (from
the fourth on, it is only counted). A tool that ends by itself is a note of level error, and ends the drill of its
agent. The drill's own events (phases, restarts, notes) are written the same way. Next stage: ``hitless.evidence``.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from hitless import __version__
from hitless.drill.event_checks import EventCheck
from hitless.drill.origins import Origin
from hitless.errors import ours
from hitless.evidence import LogWriter
from hitless.evidence.provenance import utc
from hitless.evidence.redaction import Mask
from hitless.kernel import processes
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.model import events as e

__all__ = ["DrillLog", "SubjectRecorder", "Tool"]

_LONGEST_LINE = 1 << 20
_CHANGES = 200
_ERROR_OUTPUT = 2000  # bytes of a tool's standard error that are kept: its end has the reason
_AT_ONCE = 3.0  # seconds for a tool to write its last lines when a drill is cut off
_REFUSED = 3  # the exit code of all commands for invalid input or a missing prerequisite


class DrillLog:
    """The log file and its clock; ``observer`` gets each event too (the live view)."""

    def __init__(
        self,
        log: LogWriter,
        clock: Clock,
        observer: Callable[[e.Event], None] = lambda _: None,
        mask: Mask | None = None,
    ) -> None:
        self.log = log
        self.clock = clock
        self._observer = observer
        self._mask = mask or Mask()

    def write(self, event: e.Event) -> None:
        """Append an event, without secrets, and pass it to the observer."""
        event = self._mask.event(event)
        self.log.write(event)
        self._observer(event)

    def begin(self, tool: str, config: Mapping[str, Any], *, drill: str = "", origin: Origin | None = None) -> None:
        """Write the log's first line."""
        now, origin = self.clock.now(), origin or Origin()
        self.write(
            e.Header(
                t=now,
                tool=tool,
                version=__version__,
                config=dict(config),
                drill=drill,
                utc=utc(now),
                command=origin.command,
                machine=origin.machine,
            )
        )

    def end(self, tool: str) -> None:
        """Write the log's last line: without it, the log counts as cut off."""
        self.write(e.Summary(t=self.clock.now(), tool=tool))

    def note(self, level: Literal["info", "warning", "error"], text: str) -> None:
        """Write a note about the drill as a whole."""
        self.write(e.Note(t=self.clock.now(), level=level, text=text))

    def recorder(self, agent: str, node: str) -> SubjectRecorder:
        """The recorder of one agent on one node."""
        return SubjectRecorder(self, agent, node)


@dataclass
class SubjectRecorder:
    """Writes the events of one agent on one node, and keeps what the rounds need to know of them."""

    log: DrillLog
    agent: str
    node: str
    states: dict[tuple[str, str], str] = field(default_factory=dict)
    attempted: int = 0
    trouble: asyncio.Event = field(default_factory=asyncio.Event)
    changes: deque[e.Change] = field(default_factory=lambda: deque(maxlen=_CHANGES))
    """The latest rule changes that the watch reported."""
    companions: list[SubjectRecorder] = field(default_factory=list)
    """Recorders of other nodes in the same rounds: phases are written to them as well."""
    watched: bool = True
    """Whether a watch writes here; if not, only traffic is judged."""
    earliest: int = 0
    """The time of the earliest attempt."""
    when: Callable[[str], int] | None = None
    """The time of a phase that began before this recorder was made."""

    def write(self, event: e.Event, stream: str = "drill") -> None:
        """Append an event with this agent and node."""
        self.observe(event)
        node = event.node or self.node
        self.log.write(msgspec.structs.replace(event, agent=self.agent, node=node, stream=event.stream or stream))

    def observe(self, event: e.Event, node: str = "") -> None:
        """Keep what the rounds need of an event; ``node``: of a companion."""
        match event:
            case e.RuleState():
                self.states[event.family, f"{event.network} {node}".rstrip()] = event.state
            case e.Attempts():
                self.attempted += event.sent
                self.earliest = min(self.earliest or event.t, event.t)
            case e.Change():
                self.changes.append(event)
            case _:
                pass

    @property
    def now(self) -> int:
        """The log's time."""
        return self.log.clock.now()

    def restored(self, before: Mapping[tuple[str, str], str]) -> bool:
        """Whether all reported pod networks are carried, or in the state of ``before``: rules that could not be
        understood then cannot be understood now."""
        states = self.states.items()
        return not self.watched or (bool(states) and all(now in ("carried", before.get(key)) for key, now in states))

    def phase(self, phase: Literal["baseline", "round", "recovery", "end"], round: int = 0) -> None:
        """Begin a phase."""
        now = self.now if self.when is None else self.when(phase)
        for recorder in (self, *self.companions):
            recorder.write(e.Phase(t=now, phase=phase, round=round))

    def note(self, level: Literal["info", "warning", "error"], text: str, code: str = "") -> None:
        """Write a note; with level ``error`` the verdict cannot be a pass."""
        self.write(e.Note(t=self.now, level=level, text=text, code=code))

    def fail(self, text: str, code: str = "") -> None:
        """Write an error, and end the drill of this agent: something that the measurement needs has failed."""
        try:
            self.note("error", text, code)
        finally:  # also if the log cannot be written
            self.trouble.set()


class Tool:
    """A running ``hitless`` command whose events go to a recorder."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, recorder: SubjectRecorder, stream: str) -> None:
        self.name = name
        self.process = process
        self.refused = ""  # its error message, if it refused to start
        self._recorder = recorder
        self._stream = stream
        self._stopping = False
        self._heard = asyncio.Event()
        self._errors = bytearray()
        self._check = EventCheck()
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._listen())]

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        recorder: SubjectRecorder,
        *,
        namespace: Namespace = HERE,
        stream: str = "",
    ) -> Tool:
        """Start ``command`` in the namespace, with the log's clock."""
        # a session of its own: Ctrl-C reaches only the drill, which then ends its tools in order
        environment = recorder.log.clock.environment()
        process = await processes.start_async(
            command, namespace=namespace, environment=environment, limit=_LONGEST_LINE, new_session=True
        )
        return cls(name, process, recorder, stream or name)

    async def heard(self, patience: float) -> bool:
        """Whether its header arrived within ``patience`` seconds: it is running then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._heard.wait()
        return self._heard.is_set() and self.process.returncode is None

    async def _pump(self) -> None:
        try:
            await self._follow()
        except Exception as error:
            # its output is no longer read: end the process, and the drill of this agent
            self._stopping = True
            processes.send(self.process, signal.SIGKILL)
            self._recorder.fail(str(ours(error, f"listening to {self.name}")))
            raise
        finally:
            self._heard.set()

    async def _follow(self) -> None:
        assert self.process.stdout is not None
        try:
            async for line in self.process.stdout:
                self._take(line)
        except ValueError as error:  # a line longer than the limit: the rest of the stream cannot be read
            self._recorder.fail(f"{self.name} wrote a line that is not an event: {error}")
            self._stopping = True
            processes.send(self.process, signal.SIGKILL)
            while await self.process.stdout.read(_LONGEST_LINE):
                pass  # an unread pipe would block the process
        code = await self.process.wait()
        await self._tasks[1]
        self._note(self._check.last())
        lines = self._errors.decode(errors="replace").strip().splitlines()
        if code == _REFUSED and lines and not self._heard.is_set():
            self.refused = lines[-1].removeprefix("hitless: ")
        self._heard.set()
        if not self._stopping:
            why = f": {lines[-1]}" if lines else ""
            self._recorder.fail(f"{self.name} ended by itself with {_code(code)}{why}", f"{self.name}_ended")

    def _take(self, line: bytes) -> None:
        try:
            event = e.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not self._stopping or line.endswith(b"\n"):
                self._note(self._check.broken(f"{self.name} wrote a line that is not an event: {error}"))
            return
        taken, why = self._check.admit(event, self._stream, self._recorder.node)
        self._note(why)
        if taken:
            self._recorder.write(event, self._stream)
            self._heard.set()

    def _note(self, text: str) -> None:
        if text:
            self._recorder.note("error", text)

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(4096):
            self._errors += data
            del self._errors[:-_ERROR_OUTPUT]

    async def stop(self, patience: float) -> None:
        """Send SIGTERM, read its last lines, and kill it if it does not end in time."""
        already = self._stopping
        self._stopping = True
        if not already:
            processes.send(self.process, signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(self._tasks[0])
        except TimeoutError:
            self._recorder.note("error", f"{self.name} did not end within {patience:g} s and was killed")
            await self.kill()

    async def hasten(self) -> None:
        """End it without waiting for open attempts, which it reports as undecided."""
        self._stopping = True
        # two different signals, which cannot merge: the prober takes the second as "at once"
        processes.send(self.process, signal.SIGTERM)
        processes.send(self.process, signal.SIGINT)
        with suppress(TimeoutError):
            async with asyncio.timeout(_AT_ONCE):
                await asyncio.shield(self._tasks[0])
        await self.kill()

    async def kill(self) -> None:
        """Kill it; what it wrote until then is read."""
        self._stopping = True
        processes.send(self.process, signal.SIGKILL)
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _code(code: int) -> str:
    try:
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
