"""The log on disk: nothing lost by a kill, nothing wrong taken for right."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.evidence.drill_logs import Drill, outage_drill

from hitless.errors import InputError, MissingError
from hitless.evidence import LogWriter, decide, read
from hitless.model import events as e


def written(path: Path, events: list[e.Event]) -> Path:
    with LogWriter(path) as log:
        for event in events:
            log.write(event)
    return path


def test_what_was_written_is_read_in_the_same_order(tmp_path: Path) -> None:
    events = outage_drill().log()
    log = read(written(tmp_path / "deep" / "events.jsonl", events))
    assert list(log.events) == events
    assert log.whole
    assert not log.torn


def test_an_existing_log_is_never_touched(tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", Drill().log())
    before = path.read_bytes()
    with pytest.raises(InputError, match="never overwritten"):
        LogWriter(path)
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_written_is_reported_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MissingError, match="--out"):
        LogWriter(tmp_path / "file" / "events.jsonl")


def test_a_full_disk_in_the_middle_of_a_line_spoils_nothing_of_what_comes_before_or_after(tmp_path: Path) -> None:
    events = outage_drill().log()
    path = tmp_path / "events.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with LogWriter(path) as log:
        log.write(*events[:5])
        room = path.stat().st_size + 30
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))  # the kernel then takes half a line
        try:
            with pytest.raises(MissingError, match=f"cannot write {path}"):
                log.write(events[5])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        log.write(*events[6:8])  # there is room again
    found = read(path)
    assert list(found.events) == [*events[:5], *events[6:8]]
    assert not found.torn


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_is_left_out_and_reported(tmp_path: Path, cut: int) -> None:
    path = written(tmp_path / "events.jsonl", outage_drill().log())
    data = path.read_bytes()
    path.write_bytes(data[:-cut] if cut > 1 else data[:-2])
    log = read(path)
    assert log.torn
    assert not log.whole
    assert list(log.events) == outage_drill().log()[:-1]


def test_a_last_line_that_is_whole_but_for_its_newline_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", Drill().log())
    path.write_bytes(path.read_bytes()[:-1])
    assert not read(path).torn


@pytest.mark.parametrize(
    "line",
    [b"{\n", b"[1]\n", b'{"t":1}\n', b'{"type":"loss","t":1}\n', b'{"type":"note","t":"now"}\n', b"\xff\xfe\n"],
)
def test_a_wrong_line_names_file_and_line(tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path / "events.jsonl", Drill().log()[:3])
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(InputError, match=rf"{path}:3: .*expected"):
        read(path)


def test_an_event_of_a_type_that_is_not_known_yet_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", Drill().log())
    with path.open("ab") as file:
        file.write(b'{"type":"weather","t":5,"agent":"flannel-0.28","sky":"grey"}\n')
    last = read(path).events[-1]
    assert isinstance(last, e.Unknown)
    assert last.raw["sky"] == "grey"
    assert decide(read(path).events).verdict == "pass"


def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with pytest.raises(InputError, match="cannot be read"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="holds no event"):
        read(path)
    path.write_bytes(e.encode(e.Note(t=1, level="info", text="hello")) + b"\n")
    with pytest.raises(InputError, match=":1: does not begin with a header"):
        read(path)
    path.write_bytes(b'{"type":"header","t":1,"schema":2,"tool":"drill","version":"9"}\n')
    with pytest.raises(InputError, match=r"schema 2 by drill 9.*newer hitless"):
        read(path)


def test_a_killed_writer_leaves_every_line_that_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    code = """
import os, signal, sys
from pathlib import Path
from hitless.evidence import LogWriter
from hitless.model import events as e
log = LogWriter(Path(sys.argv[1]))
log.write(e.Header(t=1, tool="drill", version="1"))
for t in range(2, 500):
    log.write(e.Note(t=t, level="info", text="x" * 100))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, env={**os.environ})
    assert done.returncode == -signal.SIGKILL
    log = read(path)
    assert len(log.events) == 499
    assert not log.whole
