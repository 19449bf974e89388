"""The agent's loop in virtual time, on a fake node; the test says when time goes on and when events arrive."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any, TypeVar

from hitless.agent.change_watch import ChangeWatch
from hitless.agent.health import Health
from hitless.agent.judge import NodeJudge
from hitless.agent.loop import AgentLoop
from hitless.agent.metrics import agent_metrics
from hitless.agent.reporter import AgentReporter
from hitless.agent.worker import RulesWorker
from hitless.daemon.logs import Log
from hitless.daemon.notify import Notifier
from hitless.model.families import Backend
from hitless.sources import SourceSnapshot
from hitless.testing.fake_node import FakeNode

_T = TypeVar("_T")
RESYNC = 5.0
_MOST_TURNS, _LEAST = 200, 0.01  # turns without a pause, and seconds that each takes then at least


class _Pause:
    """The loop sleeps until then."""

    def __init__(self, until: float) -> None:
        self.until = until

    def __await__(self) -> Generator[_Pause, None, None]:
        yield self


class Time:
    """A ``Runtime``: nothing runs but what ``Agent.turn`` lets run."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.since_1970 = 1.7e9  # at zero of ``now``; changed when the clock is set
        self.awake = False
        self.cost = 0.0  # seconds that each call of the kernel's thread takes
        self.reading = 0.0  # seconds of an evaluation; its result is of the rules at its begin
        self.begun: list[tuple[float, Callable[[], None]]] = []
        self.ended = False

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.since_1970 + self.now

    async def wait(self, seconds: float) -> None:
        if not self.awake:
            await _Pause(self.now + max(0.0, seconds))
        self.awake = False

    def wake(self) -> None:
        self.awake = True

    async def run(self, action: Callable[[], _T]) -> _T:
        end = self.now + self.cost
        while self.answer_at <= end:  # the judging thread works meanwhile
            self.now = max(self.now, self.answer_at)
            self.finish()
        self.now = end
        return action()

    def begin(self, action: Callable[[], _T]) -> Future[_T]:
        assert not self.begun, "one evaluation at a time"
        inner, outer = Future[_T](), Future[_T]()
        try:
            inner.set_result(action())
        except Exception as error:  # noqa: BLE001 - the caller gets it from the Future
            inner.set_exception(error)

        def over() -> None:
            error = inner.exception()
            outer.set_result(inner.result()) if error is None else outer.set_exception(error)
            self.awake = True

        self.begun.append((self.now + self.reading, over))
        self.finish()
        return outer

    @property
    def answer_at(self) -> float:
        return min((when for when, _ in self.begun), default=float("inf"))

    def finish(self) -> None:
        """What was begun is over when its time has come."""
        while self.answer_at <= self.now:
            self.begun.pop(0)[1]()

    async def end(self, action: Callable[[], None], judging: Callable[[], None]) -> None:
        action()
        judging()
        self.ended = True


class _Legacy:
    def __init__(self) -> None:
        self.costs: list[float] = []

    def pass_ended(self, cost: float) -> None:
        self.costs.append(cost)

    def close(self) -> None:
        pass


class Agent:
    """One life of an agent. ``log``: its lines."""

    def __init__(
        self, node: FakeNode, time: Time, snapshot: SourceSnapshot | None, *, backend: Backend | None = None
    ) -> None:
        self.node, self.time = node, time
        self._stream = io.StringIO()
        self.health, self.metrics = Health(stale_after=15.0), agent_metrics()
        writer = Log(self._stream, verbosity=2, monotonic=time.monotonic)
        reporter = AgentReporter(writer, self.metrics, self.health, Notifier({}), started=time.now)
        self.watch = ChangeWatch(node.events, time, listen=lambda _: lambda: None, legacy=self._legacy)
        self.worker = RulesWorker(node, backend, time)
        self.loop = AgentLoop(self.worker, NodeJudge(node, time), self.watch, reporter, time, resync=RESYNC, heal=True)
        self.watch.on_change, self.watch.on_foreign_change = self.loop.rules_changed, self.loop.foreign_rules_changed
        if snapshot is not None:
            self.loop.desire(snapshot, native=False)
        self._running: Coroutine[Any, Any, None] = self.loop.run()
        self._until = 0.0
        self.over = False

    def _legacy(self, changed: Callable[[int, str], None]) -> _Legacy:
        self.node.legacy = changed
        return _Legacy()

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [one for one in self.log if one["event"] == name]

    def ready(self) -> bool:
        return not self.health.reasons(self.time.now)

    def deliver(self) -> None:
        """Events arrive."""
        self.watch.collect()

    def turn(self) -> None:
        """Let the loop run until it waits again, if it is awake or its time has come."""
        self.time.finish()
        begun, turns = self.time.now, 0
        while not self.over and (self.time.awake or self.time.now >= self._until):
            turns += 1
            assert turns < _MOST_TURNS or self.time.now - begun > _LEAST * turns, "the loop turns at full speed"
            try:
                pause = self._running.send(None)
            except StopIteration:
                self.over = True
                return
            self._until = pause.until

    def sleep(self, seconds: float) -> None:
        """Time goes on, and the loop runs whenever its time has come."""
        end = self.time.now + seconds
        self.turn()
        while not self.over and (due := min(self._until, self.time.answer_at)) <= end:
            self.time.now = max(self.time.now, due)
            self.turn()
        self.time.now = max(self.time.now, end)

    def kill(self) -> None:
        """The end, as by SIGKILL: nothing of it runs any more."""
        self.over = True
        self.node.legacy = None
        self.time.begun.clear()
        self._running.close()
