from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import pytest
from tests.unit.lab.virtual_time import run

from hitless.errors import MissingError
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.lab.agents import Agent, Readiness
from hitless.lab.clusters import LabNode
from hitless.lab.plans import LabPlan
from hitless.lab.supervisor import How, Method, Supervisor
from hitless.model.events import Restart
from hitless.model.families import Family

READY = "/run/ready"


@dataclass
class Fake:
    """A process that does as it is told: ``dies`` seconds after its start, ready after ``ready``, deaf to SIGTERM."""

    pid: int
    root: Path
    ready: float | None = 0.1
    dies: float | None = None
    code: int = 3
    deaf: bool = False
    cleanup: float = 0.0
    signals: list[int] = field(default_factory=list)
    kills: int = 0

    def live(self) -> None:
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        if self.ready is not None:
            loop.call_later(self.ready, self._say_ready)
        if self.dies is not None:
            loop.call_later(self.dies, self._end, self.code)

    def _say_ready(self) -> None:
        if not self.ended.done():
            (self.root / READY.lstrip("/")).parent.mkdir(exist_ok=True)
            (self.root / READY.lstrip("/")).write_text("")

    def _end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)

    def signal(self, number: int) -> None:
        self.signals.append(number)
        if not self.deaf:
            asyncio.get_running_loop().call_later(self.cleanup, self._end, 0)

    def kill(self) -> None:
        self.kills += 1
        self._end(-signal.SIGKILL)


@dataclass
class Story:
    """A supervisor, the processes that it will be given, and what it said, with the loop's times."""

    root: Path
    fakes: list[Fake]
    steps: list[tuple[float, str, str]] = field(default_factory=list)
    events: list[Restart] = field(default_factory=list)
    launched: int = 0

    async def launch(
        self,
        command: Sequence[str],
        namespace: Namespace,
        environment: Mapping[str, str],
        receive: Callable[[str], None],
    ) -> Fake:
        assert environment["HITLESS_SUBNET"] == "10.42.0.0/24"
        if self.launched >= len(self.fakes):
            raise MissingError("the program agent is not installed", remedy="install it")
        fake = self.fakes[self.launched]
        self.launched += 1
        receive("hello")
        fake.live()
        return fake

    def heard(self, event: Restart) -> None:
        self.events.append(event)
        self.steps.append((round(asyncio.get_running_loop().time(), 1), event.step, event.detail))

    def supervisor(
        self, grace: float = 30.0, patience: float = 5.0, backoff: float = 10.0, probe: Readiness | None = None
    ) -> Supervisor:
        plan = LabPlan()
        subnets = MappingProxyType({family: plan.subnet(family, 0) for family in Family})
        node = LabNode("node0", 0, HERE, self.root, (), MappingProxyType({}), subnets)
        probe = probe or Readiness("file", READY, patience=patience)
        agent = Agent("agent", lambda _plan, _node: ("agent",), probe, grace)
        return Supervisor(node, agent, plan, emit=self.heard, clock=Clock(0), launcher=self.launch, backoff=backoff)

    @property
    def names(self) -> list[str]:
        return [step for _, step, _ in self.steps]


def test_an_agent_that_starts_is_reported_ready(tmp_path: Path) -> None:
    story = Story(tmp_path, [Fake(7, tmp_path)])

    async def main() -> None:
        async with story.supervisor() as supervisor:
            assert await supervisor.start()
            assert supervisor.ready
            assert supervisor.pid == 7

    run(main())
    assert story.names == ["started", "ready"]
    assert {event.pid for event in story.events} == {7}


def test_a_restart_by_sigterm_waits_for_the_clean_up_within_the_grace_period(tmp_path: Path) -> None:
    old, new = Fake(1, tmp_path, cleanup=1.5), Fake(2, tmp_path)
    story = Story(tmp_path, [old, new])

    async def main() -> None:
        async with story.supervisor() as supervisor:
            await supervisor.start()
            assert await supervisor.restart(How(Method.SIGTERM, start_delay=2.0), round=4)
            assert supervisor.restarts == 1

    run(main())
    assert story.names == ["started", "ready", "stop", "exited", "started", "ready"]
    times = {step: when for when, step, _ in story.steps[2:]}
    assert times["exited"] - times["stop"] == pytest.approx(1.5, abs=0.11)
    assert times["started"] - times["exited"] == pytest.approx(2.0, abs=0.11)
    assert [(event.round, event.method) for event in story.events[2:]] == [(4, "sigterm")] * 4
    assert (old.signals, old.kills) == ([signal.SIGTERM], 0)


def test_an_agent_deaf_to_sigterm_is_killed_after_its_grace_period_with_all_it_started(tmp_path: Path) -> None:
    deaf = Fake(1, tmp_path, deaf=True)
    story = Story(tmp_path, [deaf])

    async def main() -> None:
        async with story.supervisor(grace=2.0) as supervisor:
            await supervisor.start()
            await supervisor.stop()

    run(main())
    assert story.names == ["started", "ready", "stop", "killed", "exited"]
    assert story.steps[3][0] - story.steps[2][0] == pytest.approx(2.0, abs=0.11)
    assert (deaf.signals, deaf.kills) == ([signal.SIGTERM], 1)


def test_stop_stays_away_for_as_long_as_it_was_told(tmp_path: Path) -> None:
    story = Story(tmp_path, [Fake(1, tmp_path), Fake(2, tmp_path)])

    async def main() -> None:
        async with story.supervisor() as supervisor:
            await supervisor.start()
            assert await supervisor.restart(How(Method.STOP, away=60.0))

    run(main())
    exited, started = story.steps[3], story.steps[4]
    assert (exited[1], started[1]) == ("exited", "started")
    assert started[0] - exited[0] == pytest.approx(60.0, abs=0.11)


def test_a_crash_loop_kills_it_as_often_as_told_and_waits_longer_each_time(tmp_path: Path) -> None:
    story = Story(tmp_path, [Fake(n, tmp_path) for n in range(1, 5)])

    async def main() -> None:
        async with story.supervisor() as supervisor:
            await supervisor.start()
            assert await supervisor.restart(How(Method.CRASH_LOOP, crashes=3, backoff=1.0))
            assert supervisor.restarts == 3

    run(main())
    kills = [when for when, step, _ in story.steps if step == "killed"]
    starts = [when for when, step, _ in story.steps if step == "started"]
    assert len(kills) == 3
    waits = [start - kill for kill, start in zip(kills, starts[1:], strict=True)]
    assert waits == [pytest.approx(wait, abs=0.11) for wait in (1.0, 2.0, 4.0)]
    assert story.names[-1] == "ready"
    # when each crash came is in the record
    words = [detail for _, step, detail in story.steps if step == "killed"]
    assert words[0] == "SIGKILL"
    assert all(word.startswith("SIGKILL ") and word.endswith(" ms after its start") for word in words[1:])
    assert words[1] != words[2]


def test_the_crashes_of_a_loop_fall_evenly_over_the_start_and_are_the_same_in_every_drill() -> None:
    how = How(Method.CRASH_LOOP, crashes=3)
    moments = sorted(how.crash_after(round, crash) for round in range(1, 21) for crash in (1, 2))
    assert len(set(moments)) == 40
    assert moments[0] < 0.05 < 0.55 < moments[-1] < 0.6
    assert max(later - earlier for earlier, later in pairwise(moments)) < 0.05
    assert how.crash_after(7, 2) == How(Method.CRASH_LOOP, crashes=3).crash_after(7, 2)


def test_an_agent_that_never_becomes_ready_is_reported_and_not_waited_for(tmp_path: Path) -> None:
    story = Story(tmp_path, [Fake(1, tmp_path, ready=None)])

    async def main() -> None:
        async with story.supervisor(patience=5.0) as supervisor:
            assert not await supervisor.start()
            assert not supervisor.ready

    run(main())
    assert story.names == ["started", "failed"]
    assert story.steps[1] == (5.0, "failed", "not ready after 5 s: hello")


def test_an_agent_that_ends_before_it_is_ready_is_reported_with_its_last_words(tmp_path: Path) -> None:
    story = Story(tmp_path, [Fake(1, tmp_path, ready=None, dies=0.5, code=1)])

    async def main() -> None:
        async with story.supervisor() as supervisor:
            assert not await supervisor.start()

    run(main())
    assert story.names == ["started", "exited", "failed"]
    assert story.steps[-1][2] == "ended before it was ready (exit code 1): hello"


@pytest.mark.parametrize(
    ("dies", "steps"),
    [(0.05, ["started", "exited", "failed"]), (0.5, ["started", "ready", "exited"])],
)
def test_an_agent_without_a_probe_is_ready_when_it_did_not_end_at_once(
    tmp_path: Path, dies: float, steps: list[str]
) -> None:
    story = Story(tmp_path, [Fake(1, tmp_path, ready=None, dies=dies)])

    async def main() -> None:
        async with story.supervisor(probe=Readiness()) as supervisor:
            assert await supervisor.start() == ("ready" in steps)
            await asyncio.sleep(1.0)

    run(main())
    assert story.names == steps


def test_a_program_that_is_not_there_is_reported(tmp_path: Path) -> None:
    story = Story(tmp_path, [])

    async def main() -> None:
        async with story.supervisor() as supervisor:
            assert not await supervisor.start()

    run(main())
    assert story.names == ["failed"]
    assert "cannot be started: the program agent is not installed" in story.steps[0][2]


def test_an_agent_that_crashes_by_itself_is_started_again_with_growing_patience(tmp_path: Path) -> None:
    crashing = [Fake(n, tmp_path, dies=1.0) for n in range(1, 4)]
    story = Story(tmp_path, [*crashing, Fake(4, tmp_path)])

    async def main() -> None:
        async with story.supervisor(backoff=10.0) as supervisor:
            assert await supervisor.start()
            await asyncio.sleep(200)
            assert supervisor.ready
            assert supervisor.restarts == 3

    run(main())
    exits = [when for when, step, _ in story.steps if step == "exited"]
    starts = [when for when, step, _ in story.steps if step == "started"]
    waits = [start - end for end, start in zip(exits, starts[1:], strict=True)]
    assert waits == [pytest.approx(wait, abs=0.11) for wait in (10.0, 20.0, 40.0)]


def test_a_long_good_run_lets_the_back_off_begin_anew(tmp_path: Path) -> None:
    story = Story(tmp_path, [Fake(1, tmp_path, dies=1.0), Fake(2, tmp_path, dies=1000.0), Fake(3, tmp_path)])

    async def main() -> None:
        async with story.supervisor(backoff=10.0) as supervisor:
            await supervisor.start()
            await asyncio.sleep(1100)

    run(main())
    exits = [when for when, step, _ in story.steps if step == "exited"]
    starts = [when for when, step, _ in story.steps if step == "started"]
    assert starts[2] - exits[1] == pytest.approx(10.0, abs=0.11)


def test_readiness_that_goes_is_reported_and_so_is_its_return(tmp_path: Path) -> None:
    story = Story(tmp_path, [Fake(1, tmp_path)])

    async def main() -> None:
        async with story.supervisor() as supervisor:
            await supervisor.start()
            (tmp_path / "run/ready").unlink()
            await asyncio.sleep(5)
            assert not supervisor.ready
            (tmp_path / "run/ready").write_text("")
            await asyncio.sleep(5)
            assert supervisor.ready

    run(main())
    assert story.names == ["started", "ready", "unready", "ready"]


def test_what_an_earlier_run_left_does_not_count_as_ready(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/ready").write_text("from long ago")
    story = Story(tmp_path, [Fake(1, tmp_path, ready=3.0)])

    async def main() -> None:
        async with story.supervisor() as supervisor:
            await supervisor.start()

    run(main())
    assert story.steps[1][1] == "ready"
    assert story.steps[1][0] >= 3.0


def test_closing_kills_it_with_all_it_started_and_leaves_no_task(tmp_path: Path) -> None:
    fake = Fake(1, tmp_path)
    story = Story(tmp_path, [fake])

    async def main() -> None:
        supervisor = story.supervisor()
        await supervisor.start()
        await supervisor.close()
        await supervisor.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())
    assert (fake.signals, fake.kills) == ([], 1)
