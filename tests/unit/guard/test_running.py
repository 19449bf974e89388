"""The guard's process in virtual time: what is opened, in which order, and closed whatever ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.guard.flannels import nat
from tests.unit.guard.worlds import Guarded, World

from hitless.errors import HitlessError, MissingError
from hitless.guard import running, statements
from hitless.guard.loop import GuardSettings
from hitless.guard.running import Guard
from hitless.guard.standby_table import StandbyTable
from hitless.guard.statements import Statement
from hitless.kernel.clock import Clock
from hitless.model.families import Family

PORTS = ("rules", "table", "connections", "surroundings")


class Process:
    """A guard's process on a node in memory; ``steps`` is what was opened and closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, *, observe: bool = False) -> None:
        self.world, self.stop = World(), threading.Event()
        self.steps: list[str] = []
        self.readies = 0
        self.refuses = ""
        self.asked: list[tuple[object, ...]] = []
        made = Guarded(self.world, folder, settings=GuardSettings(families=self.world.families, observe=observe))
        self.reporter, self.journal = made.reporter, made
        for name, make in (
            ("RulesObserver", self._rules),
            ("StandbyTable", self._table),
            ("Healer", lambda *_: self._port("connections")),
            ("Places", lambda *_: self._port("surroundings")),
            ("GuardMachineTime", lambda _clock: self.world),
        ):
            monkeypatch.setattr(running, name, make)
        monkeypatch.setattr(statements, "read", self._stated)
        self.guard = Guard(made.settings, self.reporter, made.loop._log, clock=Clock(0), ready=self._ready)

    def run(self, seconds: float, action: Callable[[], None] | None = None) -> None:
        """Until the end, which comes after so long; ``action`` happens before."""
        self.world.at(seconds / 2, action or (lambda: None))
        self.world.at(seconds, self.stop.set)
        self.guard.run(self.stop)

    def _ready(self) -> None:
        self.readies += 1

    def _stated(self, *asked: object) -> Statement | None:
        self.asked.append(asked)
        return self.world.said

    def _open(self, name: str) -> None:
        if name == self.refuses:
            raise MissingError(f"no {name}", remedy="none")
        self.steps.append(f"+{name}")

    @contextmanager
    def _rules(self, *_: Any, **__: Any) -> Any:
        self._open("rules")
        try:
            yield self.world
        finally:
            self.steps.append("-rules")

    def _table(self, families: Sequence[Family], _namespace: object) -> StandbyTable:
        self._open("table")
        table = StandbyTable(tuple(families), tables=self.world, read=self.world.read)
        table.close = lambda: self.steps.append("-table")  # type: ignore[method-assign]
        return table

    def _port(self, name: str) -> Any:
        self._open(name)
        process = self

        class Port:
            def __getattr__(self, method: str) -> Any:
                return getattr(process.world, method)

            def close(self) -> None:
                process.steps.append(f"-{name}")

        return Port()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Process:
    return Process(monkeypatch, tmp_path)


def closed(*names: str) -> list[str]:
    return [*(f"+{name}" for name in names), *(f"-{name}" for name in reversed(names))]


def test_it_stands_by_until_it_is_told_to_stop_and_the_kernel_keeps_the_standby(process: Process) -> None:
    process.run(5.0)
    assert process.steps == closed(*PORTS) and process.readies == 1
    assert set(process.world.written) == set(process.world.families)
    assert process.reporter.ended == ""
    assert process.world.seconds >= 5.0


def test_who_only_observes_opens_no_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = Process(monkeypatch, tmp_path, observe=True)
    process.run(5.0)
    assert process.steps == closed(*(name for name in PORTS if name != "table"))
    assert not process.world.written and process.world.writes == 0


@pytest.mark.parametrize("name", PORTS)
def test_what_was_opened_is_closed_when_the_next_cannot_be(process: Process, name: str) -> None:
    process.refuses = name
    with pytest.raises(MissingError, match=name):
        process.run(5.0)
    assert process.steps == closed(*PORTS[: PORTS.index(name)])
    assert process.readies == 0 and not process.world.written


def test_an_error_that_nobody_foresaw_is_reported_and_everything_is_closed(process: Process) -> None:
    def breaks() -> None:
        raise ZeroDivisionError("a mistake")

    with pytest.raises(HitlessError, match="a mistake") as raised:
        process.run(5.0, breaks)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert process.steps == closed(*PORTS)
    assert "a mistake" in process.reporter.ended
    assert set(process.world.written) == set(process.world.families)


def test_an_interrupt_goes_through_as_it_is(process: Process) -> None:
    def interrupts() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.run(5.0, interrupts)
    assert process.steps == closed(*PORTS) and process.reporter.ended


def test_a_gap_that_is_open_at_the_end_is_reported(process: Process) -> None:
    process.run(5.0, lambda: process.world.commit(Family.IPV4, nat(Family.IPV4, chain=()).tables))
    (gap,) = process.journal.records("gap")
    assert gap["open"] and gap["family"] == "ipv4"


def test_when_all_rules_are_gone_the_agent_is_asked_what_it_said(process: Process) -> None:
    process.world.said = Statement(False, "flanneld runs with --ip-masq=false")

    def gone() -> None:
        process.world.commit(Family.IPV4, ())

    process.run(5.0, gone)
    primary = process.guard.settings.primary
    assert process.asked[-1][:2] == (primary.subnet_files, primary.processes)
    assert [one["family"] for one in process.journal.records("withdrawn")] == ["ipv4"]
