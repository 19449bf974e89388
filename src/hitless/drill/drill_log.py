"""The record of a drill: streams of many tools, merged into one log as they arrive.

Problem: watch, probe and far end write JSON lines in namespaces of their own, they may die at any moment, and what they
said until then must be in the log. Promise: each line that arrives is one event of the log, with the agent, node and
stream that it belongs to filled in; a line that is none, or an event that its tool cannot know (``claims``), is a note
of level error, never silently dropped (from the fourth on it is counted); a tool that ends before it was told to is a
note of level error and an ``Ended`` that the drill waits for. The drill's own events (phases, restarts, notes) go
through the same door. Next stage: ``hitless.evidence`` judges the log.
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

__all__ = ["DrillLog", "SubjectLog", "Tool"]

_LONGEST_LINE = 1 << 20
_CHANGES = 200
_LAST_WORDS = 2000
_AT_ONCE = 3.0  # seconds for a tool to write its last lines when a drill is cut off
_REFUSED = 3  # the exit code of every command for wrong input or a machine that cannot do it
"""Bytes of a tool's standard error that are kept: the end says why it died."""


class DrillLog:
    """The log, its clock, and whoever looks on (the live view)."""

    def __init__(
        self,
        log: LogWriter,
        clock: Clock,
        onlooker: Callable[[e.Event], None] = lambda _: None,
        mask: Mask | None = None,
    ) -> None:
        self.log = log
        self.clock = clock
        self._onlooker = onlooker
        self._mask = mask or Mask()

    def write(self, event: e.Event) -> None:
        """Append an event and show it, without what does not belong into a record."""
        event = self._mask.event(event)
        self.log.write(event)
        self._onlooker(event)

    def begin(self, tool: str, config: Mapping[str, Any], *, drill: str = "", origin: Origin | None = None) -> None:
        """The log's first line."""
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
        """The log's last line: without it the log counts as cut off."""
        self.write(e.Summary(t=self.clock.now(), tool=tool))

    def note(self, level: Literal["info", "warning", "error"], text: str) -> None:
        """Tell people something about the drill as a whole."""
        self.write(e.Note(t=self.clock.now(), level=level, text=text))

    def desk(self, agent: str, node: str) -> SubjectLog:
        """The door for the events of one agent on one node."""
        return SubjectLog(self, agent, node)


@dataclass
class SubjectLog:
    """Writes events of one agent on one node; keeps what the drill itself must know of them."""

    record: DrillLog
    agent: str
    node: str
    states: dict[tuple[str, str], str] = field(default_factory=dict)
    attempted: int = 0
    trouble: asyncio.Event = field(default_factory=asyncio.Event)
    changes: deque[e.Change] = field(default_factory=lambda: deque(maxlen=_CHANGES))
    """The latest changes of rules that the watch told of."""
    companions: list[SubjectLog] = field(default_factory=list)
    """Desks of other nodes that go through the same rounds: the calendar is theirs too."""
    watched: bool = True
    """Whether a watch of the rules writes here; else traffic alone tells."""
    earliest: int = 0
    """When the first attempt was begun that was heard of."""
    when: Callable[[str], int] | None = None
    """When a phase began, where that was before this record was."""

    def write(self, event: e.Event, stream: str = "drill") -> None:
        """Append an event under this agent's and node's name."""
        self.hear(event)
        node = event.node or self.node
        self.record.write(msgspec.structs.replace(event, agent=self.agent, node=node, stream=event.stream or stream))

    def hear(self, event: e.Event, node: str = "") -> None:
        """Take note of an event for the rounds; ``node`` where it is a companion's."""
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
        """The record's time."""
        return self.record.clock.now()

    def restored(self, before: Mapping[tuple[str, str], str]) -> bool:
        """Whether every pod network that the watch spoke of is carried now, or what it was ``before``: rules that could
        not be understood then will not be now."""
        states = self.states.items()
        return not self.watched or (bool(states) and all(now in ("carried", before.get(key)) for key, now in states))

    def phase(self, phase: Literal["baseline", "round", "recovery", "end"], round: int = 0) -> None:
        """Turn the calendar."""
        now = self.now if self.when is None else self.when(phase)
        for desk in (self, *self.companions):
            desk.write(e.Phase(t=now, phase=phase, round=round))

    def note(self, level: Literal["info", "warning", "error"], text: str, code: str = "") -> None:
        """Tell people something; an ``error`` keeps the verdict from being a pass."""
        self.write(e.Note(t=self.now, level=level, text=text, code=code))

    def fail(self, text: str, code: str = "") -> None:
        """Something broke that the measurement needs: noted, and the drill of this agent ends early."""
        try:
            self.note("error", text, code)
        finally:  # also when the log cannot be written any more
            self.trouble.set()


class Tool:
    """A running ``hitless`` command whose lines go to a desk."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, desk: SubjectLog, stream: str) -> None:
        self.name = name
        self.process = process
        self.refused = ""  # its words, when it began nothing: wrong input, or this machine cannot do it
        self._desk = desk
        self._stream = stream
        self._stopping = False
        self._heard = asyncio.Event()
        self._errors = bytearray()
        self._check = EventCheck()
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._listen())]

    @classmethod
    async def start(
        cls, name: str, command: Sequence[str], desk: SubjectLog, *, namespace: Namespace = HERE, stream: str = ""
    ) -> Tool:
        """Start ``command`` in the namespace, with the record's clock."""
        # A session of its own: Ctrl-C is for the drill, which then ends its tools in good order.
        environment = desk.record.clock.environment()
        process = await processes.start_async(
            command, namespace=namespace, environment=environment, limit=_LONGEST_LINE, new_session=True
        )
        return cls(name, process, desk, stream or name)

    async def heard(self, patience: float) -> bool:
        """Whether its header arrived within ``patience`` seconds: from then on it works, or says why not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._heard.wait()
        return self._heard.is_set() and self.process.returncode is None

    async def _pump(self) -> None:
        try:
            await self._follow()
        except Exception as error:
            # whatever it is, nobody listens any more: the process is ended, and the drill of this agent with it
            self._stopping = True
            processes.send(self.process, signal.SIGKILL)
            self._desk.fail(str(ours(error, f"listening to {self.name}")))
            raise
        finally:
            self._heard.set()

    async def _follow(self) -> None:
        assert self.process.stdout is not None
        try:
            async for line in self.process.stdout:
                self._take(line)
        except ValueError as error:  # a line longer than the limit: the stream cannot be followed any more
            self._desk.fail(f"{self.name} wrote a line that is not an event: {error}")
            self._stopping = True
            processes.send(self.process, signal.SIGKILL)
            while await self.process.stdout.read(_LONGEST_LINE):
                pass  # an unread pipe would keep the process from being waited for
        code = await self.process.wait()
        await self._tasks[1]
        self._note(self._check.last())
        words = self._errors.decode(errors="replace").strip().splitlines()
        if code == _REFUSED and words and not self._heard.is_set():
            self.refused = words[-1].removeprefix("hitless: ")
        self._heard.set()
        if not self._stopping:
            why = f": {words[-1]}" if words else ""
            self._desk.fail(f"{self.name} ended by itself with {_code(code)}{why}", f"{self.name}_ended")

    def _take(self, line: bytes) -> None:
        try:
            event = e.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if not self._stopping or line.endswith(b"\n"):
                self._note(self._check.broken(f"{self.name} wrote a line that is not an event: {error}"))
            return
        taken, why = self._check.admit(event, self._stream, self._desk.node)
        self._note(why)
        if taken:
            self._desk.write(event, self._stream)
            self._heard.set()

    def _note(self, text: str) -> None:
        if text:
            self._desk.note("error", text)

    async def _listen(self) -> None:
        assert self.process.stderr is not None
        while data := await self.process.stderr.read(4096):
            self._errors += data
            del self._errors[:-_LAST_WORDS]

    async def stop(self, patience: float) -> None:
        """Ask it to end, take in its last lines, and kill it when it does not end in time."""
        already = self._stopping
        self._stopping = True
        if not already:
            processes.send(self.process, signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await asyncio.shield(self._tasks[0])
        except TimeoutError:
            self._desk.note("error", f"{self.name} did not end within {patience:g} s and was killed")
            await self.kill()

    async def hasten(self) -> None:
        """End it without waiting for what it has open: it writes what it knows, and what is undecided."""
        self._stopping = True
        # two signals that do not merge: the prober takes the second as "at once"
        processes.send(self.process, signal.SIGTERM)
        processes.send(self.process, signal.SIGINT)
        with suppress(TimeoutError):
            async with asyncio.timeout(_AT_ONCE):
                await asyncio.shield(self._tasks[0])
        await self.kill()

    async def kill(self) -> None:
        """End it at once; what it wrote until then is taken in."""
        self._stopping = True
        processes.send(self.process, signal.SIGKILL)
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _code(code: int) -> str:
    try:
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    except ValueError:
        return f"signal {-code}"
