"""When the agent looks at the legacy tables: sizes at once, hints of the lock with a share of the time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from tests.unit.agent.virtual import Time

from hitless.agent.legacy import LegacyWatch
from hitless.kernel.xtables.lockwatch import Holder


class _Handle:
    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at, self.call, self.cancelled = at, call, False

    def cancel(self) -> None:
        self.cancelled = True


class _Turning:
    """An event loop's timers and readers, run by hand."""

    def __init__(self, time: Time) -> None:
        self.time = time
        self.timers: list[_Handle] = []
        self.readers: dict[int, Callable[[], None]] = {}

    def call_later(self, delay: float, call: Callable[[], None]) -> _Handle:
        self.timers.append(_Handle(self.time.now + delay, call))
        return self.timers[-1]

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        self.readers[fd] = call

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def sleep(self, seconds: float) -> None:
        end = self.time.now + seconds
        while due := sorted(
            (one for one in self.timers if one.at <= end and not one.cancelled), key=lambda one: one.at
        ):
            self.time.now = due[0].at
            self.timers.remove(due[0])
            due[0].call()
        self.time.now = end


class _Tables:
    def __init__(self) -> None:
        self.raw: dict[str, bytes] = {"nat": b"1", "filter": b"1"}
        self.closed = False

    def info_bytes(self, table: str) -> bytes | None:
        return self.raw.get(table)

    def close(self) -> None:
        self.closed = True


class _Lock:
    fds = (7,)

    def __init__(self) -> None:
        self.closes = False
        self.holder: Holder | None = Holder(12, "iptables-legacy", "", "")
        self.closed = False

    def drain(self, now: int) -> tuple[bool, bool]:
        return True, self.closes

    def writer(self, since: int) -> Holder | None:
        return self.holder

    def close(self) -> None:
        self.closed = True


class World:
    def __init__(self) -> None:
        self.time, self.tables, self.lock = Time(), _Tables(), _Lock()
        self.turning = cast("Any", _Turning(self.time))
        self.told: list[tuple[int, str]] = []
        self.watch = LegacyWatch(
            [self.tables], self.lock, self.turning, self.time, lambda pid, name: self.told.append((pid, name))
        )


def test_another_size_of_any_table_is_reported_within_a_twentieth_of_a_second() -> None:
    world = World()
    world.turning.sleep(1.0)
    assert not world.told
    for table in ("nat", "raw"):  # also one that is new
        world.tables.raw[table] = b"2"
        world.turning.sleep(0.06)
        assert world.told.pop() == (12, "iptables-legacy")


def test_the_lock_let_go_is_a_hint_that_is_followed_with_a_share_of_the_time() -> None:
    world = World()
    world.lock.closes = True
    world.turning.readers[7]()
    world.turning.sleep(0.0)
    assert len(world.told) == 1
    world.watch.pass_ended(0.1)  # looks cost: the next hint waits for four times as long
    world.turning.readers[7]()
    world.turning.readers[7]()
    world.turning.sleep(0.3)
    assert len(world.told) == 1
    world.turning.sleep(0.2)
    assert len(world.told) == 2


def test_a_use_of_the_lock_that_only_reads_is_nothing() -> None:
    world = World()
    world.turning.readers[7]()
    world.turning.sleep(1.0)
    assert not world.told


def test_a_change_of_size_at_the_lock_is_reported_without_delay() -> None:
    world = World()
    world.watch.pass_ended(10.0)
    world.lock.closes = True
    world.tables.raw["nat"] = b"3"
    world.turning.readers[7]()
    assert len(world.told) == 1


def test_a_writer_whose_name_is_unknown_is_reported_without_a_name() -> None:
    world = World()
    for holder, told in ((None, (0, "")), (Holder(5, "", "", ""), (5, ""))):
        world.lock.holder = holder
        world.tables.raw["nat"] += b"."
        world.turning.sleep(0.06)
        assert world.told.pop() == told


def test_the_end_stops_everything() -> None:
    world = World()
    world.watch.pass_ended(10.0)
    world.lock.closes = True
    world.turning.readers[7]()
    world.watch.close()
    assert world.tables.closed
    assert world.lock.closed
    assert not world.turning.readers
    world.tables.raw["nat"] = b"4"
    world.turning.sleep(60.0)
    assert not world.told
