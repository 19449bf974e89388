"""The loop's own clock: what was slept through does not count towards deadlines."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hitless.kernel.clock import Clock
from hitless.probe.engine import Delay, Engine

MS = 1_000_000


class FakeClock(Clock):
    """A clock that advances only when a test moves it."""

    def __init__(self) -> None:
        super().__init__(0)
        self.time = 1_000_000 * MS

    def now(self) -> int:
        return self.time


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def engine(clock: FakeClock) -> Iterator[Engine]:
    made = Engine(clock, sleep_ns=100 * MS)
    yield made
    made.close()


def turn(engine: Engine, clock: FakeClock, passed: int) -> None:
    """One turn that took ``passed`` nanoseconds and was meant to take none."""
    clock.time += passed
    engine.turn(clock.time)


def test_a_deadline_comes_after_its_delay_and_in_order(clock: FakeClock, engine: Engine) -> None:
    fired: list[str] = []
    queue: Delay[str] = engine.delay(30 * MS, fired.append)
    queue.add(engine.awake, "first")
    turn(engine, clock, 20 * MS)
    queue.add(engine.awake, "second")
    assert fired == []
    turn(engine, clock, 10 * MS)
    assert fired == ["first"]
    turn(engine, clock, 20 * MS)
    assert fired == ["first", "second"]


def test_a_deadline_is_put_off_by_as_long_as_the_process_was_asleep(clock: FakeClock, engine: Engine) -> None:
    fired: list[str] = []
    queue: Delay[str] = engine.delay(500 * MS, fired.append)
    queue.add(engine.awake, "attempt")
    turn(engine, clock, 3000 * MS)
    assert fired == []
    assert engine.asleep == 3000 * MS
    for _ in range(9):
        turn(engine, clock, 50 * MS)
    assert fired == []
    turn(engine, clock, 50 * MS)
    assert fired == ["attempt"]


def test_everyday_lags_are_measured_and_do_not_put_anything_off(clock: FakeClock, engine: Engine) -> None:
    for lag in (1, 80, 3):
        turn(engine, clock, lag * MS)
    assert engine.asleep == 0
    assert engine.lag() == 80 * MS
    assert engine.lag() == 0


def test_an_answer_is_read_before_its_deadline_is_checked(clock: FakeClock, engine: Engine) -> None:
    """Both are there when the process wakes: the answer came, so nothing was lost."""
    seen: list[str] = []
    reader, writer = os.pipe()
    queue: Delay[str] = engine.delay(10 * MS, seen.append)
    queue.add(engine.awake, "deadline")
    engine.watch(reader, select.EPOLLIN, lambda _: seen.append("answer"))
    os.write(writer, b"x")
    turn(engine, clock, 20 * MS)
    engine.forget(reader)
    os.close(reader)
    os.close(writer)
    assert seen == ["answer", "deadline"]


def test_what_is_forgotten_is_not_called(clock: FakeClock, engine: Engine) -> None:
    reader, writer = os.pipe()
    engine.watch(reader, select.EPOLLIN, lambda _: pytest.fail("called"))
    assert engine.watched == 1
    engine.forget(reader)
    os.write(writer, b"x")
    turn(engine, clock, MS)
    os.close(reader)
    os.close(writer)
    assert engine.watched == 0


def test_real_time_priority_reports_what_the_kernel_granted() -> None:
    """In a process of its own: the setting is for life."""
    code = (
        "import os; from hitless.kernel.cpu_priority import hasten; said = hasten();"
        "policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK; nice = os.getpriority(os.PRIO_PROCESS, 0);"
        "is_so = {'realtime': policy == os.SCHED_RR, 'nice': nice == -15, 'normal': policy == os.SCHED_OTHER};"
        "child = os.posix_spawn('/bin/sh', ['sh', '-c', 'exit 0'], {}); os.waitpid(child, 0);"
        "print(said, is_so[said])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() in (["realtime", "True"], ["nice", "True"], ["normal", "True"])
