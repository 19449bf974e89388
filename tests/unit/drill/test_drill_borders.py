"""Where a drill meets the world: full disks and readers that go away. None of it may read as a verdict."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.unit.drill.fake_targets import FakeSubject, FakeTarget, VirtualClock
from tests.unit.lab.virtual_time import run as virtually

from hitless.cli.drill import carry_out
from hitless.cli.tools import run_tools
from hitless.drill import DrillPlan, run
from hitless.errors import MissingError
from hitless.evidence import LogWriter, RecordedDrill, Verdict, grouped, judge, read
from hitless.model.events import Event

PLAN = DrillPlan(rounds=2, baseline=1.0, settle=0.5, recovery=3.0, patience=5.0)
HANG = 120.0


def drill(log: Path) -> None:
    target = FakeTarget({"lossy": partial(FakeSubject, gap=0.2, lost=3)})
    virtually(run(PLAN, target, log, judged="lossy", clock=VirtualClock()))


@pytest.mark.parametrize("lines", [1, 40])
def test_a_log_that_cannot_be_written_any_more_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int
) -> None:
    write, written = LogWriter.write, 0

    def until_full(self: LogWriter, event: Event) -> None:
        nonlocal written
        written += 1
        if written > lines:
            raise MissingError("cannot write the log: No space left on device", remedy="make room")
        write(self, event)

    monkeypatch.setattr(LogWriter, "write", until_full)
    with pytest.raises(MissingError, match="No space left"):
        drill(tmp_path / "events.jsonl")


def report(log: Path, output: int | Path) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "hitless", "report", "--format", "html", str(log)]
    if isinstance(output, int):
        return subprocess.run(command, stdout=output, stderr=subprocess.PIPE, timeout=HANG, check=False)
    with output.open("wb") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.PIPE, timeout=HANG, check=False)


def test_output_that_has_no_room_is_an_error_and_not_the_verdict_fail(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    drill(log)
    assert report(log, tmp_path / "report.html").returncode == 1
    done = report(log, Path("/dev/full"))
    assert (done.returncode, done.stderr) == (3, b"hitless: cannot write the output: No space left on device\n")


@pytest.mark.parametrize("as_object", [True, False])
def test_a_report_without_room_is_an_error_that_keeps_verdict_and_log_and_has_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_object: bool
) -> None:
    whole = os.write

    def until_full(fd: int, data: bytes) -> int:
        if b"<!doctype html" in bytes(data[:100]).lower():
            whole(fd, data[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(fd, data)

    monkeypatch.setattr(os, "write", until_full)
    out = tmp_path / "out"

    async def work(log: Path, observer: Callable[[Event], None]) -> tuple[RecordedDrill, Verdict]:
        await asyncio.to_thread(drill, log)
        told = grouped(read(log).events)
        return told, judge(told)

    with pytest.raises(MissingError) as error:
        carry_out(work, ["lossy"], 2, out=out, as_object=as_object, quiet=True)
    assert f"the log is whole, but cannot write {out}/report.html: No space left on device" in str(error.value)
    assert f"hitless report {out}/events.jsonl --format html" in str(error.value)
    # what was measured is not lost for that, and nothing that looks like a report is left behind
    assert "lossy" in capsys.readouterr().out
    assert sorted(one.name for one in out.iterdir()) == ["events.jsonl", "junit.xml", "report.json"]
    assert read(out / "events.jsonl").whole


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("", "--out: is empty (expected a folder, there or to be made)"),
        ("  ", "--out: is empty"),
        ("{file}", "is a file"),
        ("{file}/deeper", "cannot be made: {file} is not a folder"),
    ],
)
@pytest.mark.parametrize("words", [["drill"], ["selftest"], ["node-drill", "--restart-command", "true"]])
def test_a_folder_that_cannot_be_is_refused_before_anything_is_done(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    out: str,
    told: str,
) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    assert run_tools([*words, "--out", out.format(file=file)]) == 3
    said = capsys.readouterr()
    assert (said.out, told.format(file=file) in said.err) == ("", True), said.err
    assert not list(here.iterdir())
    assert file.read_text() == "precious"


def test_a_reader_that_went_away_hears_no_verdict(tmp_path: Path) -> None:
    log = tmp_path / "events.jsonl"
    drill(log)
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    assert reader.wait(HANG) == 0
    assert reader.stdin is not None
    with reader.stdin:
        done = report(log, reader.stdin.fileno())
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_defect_is_an_error_and_not_the_verdict_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(path: Path) -> None:
        raise ZeroDivisionError("by mistake")

    monkeypatch.setattr("hitless.cli.report.read", broken)
    assert run_tools(["report", str(tmp_path)]) == 3
    assert "this is a defect of hitless, and no verdict" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("/no/such/flanneld --ip-masq", "/no/such/flanneld is not a program"),
        ("no-such-flanneld", "the program no-such-flanneld is not installed"),
        ("/etc/passwd", "/etc/passwd may not be run"),
        ("/etc", "/etc is not a program"),
    ],
)
def test_an_agent_that_can_never_run_is_refused_before_a_lab_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, told: str
) -> None:
    assert run_tools(["drill", "--agent-command", command, "--out", str(tmp_path / "out")]) == 3
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("named", "told"),
    [("/etc/passwd", "/etc/passwd is not a namespace"), ("/no/such", "there is no namespace /no/such")],
)
@pytest.mark.parametrize("words", [["watch", "--once"], ["farend"], ["probe", "--to", "tcp://192.0.2.1:1"]])
def test_an_invalid_namespace_is_reported(
    capsys: pytest.CaptureFixture[str], words: list[str], named: str, told: str
) -> None:
    assert run_tools([*words, "--namespace", named]) == 3
    assert f"--namespace: {told} (expected a process id" in capsys.readouterr().err
