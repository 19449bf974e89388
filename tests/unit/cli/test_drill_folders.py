"""``hitless drills`` and the newest drill: what is a drill's folder, what is spared, how logs are packed."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from tests.unit.evidence.drill_logs import Drill

from hitless.cli.folders import found
from hitless.cli.tools import run_tools
from hitless.evidence.log import LogWriter
from hitless.model.events import encode

LOST = 1
"""The exit code of the drill in ``text``."""


def text() -> bytes:
    return b"".join(encode(event) + b"\n" for event in Drill().gap(2.3, 0.05).log())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "hitless" / "drills"
    folder.mkdir(parents=True)
    return folder


def drill(home: Path, day: int, *, verdict: str = "fail") -> Path:
    folder = home / f"202601{day:02}T120000Z-{2**22 + day}"  # no process has such a number
    folder.mkdir()
    (folder / "events.jsonl").write_bytes(text())
    (folder / "report.json").write_text(json.dumps({"verdict": verdict, "headline": f"{verdict.upper()} for x"}))
    return folder


def test_a_report_without_a_log_is_of_the_newest_drill(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drill(home, 1)
    newest = drill(home, 2)
    assert run_tools(["report"]) == LOST
    told = capsys.readouterr()
    assert f"the newest drill: {newest}/events.jsonl (of 2026-01-02 12:00:00Z)" in told.err
    assert "FAIL" in told.out
    assert run_tools(["report", "20260101T"]) == LOST, "a drill's name is its log's name"


def test_a_report_without_any_drill_says_where_it_looked(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tools(["report"]) == 3
    assert f"hitless: LOG: there is no drill in {home} (expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("x.html", "<!doctype"),
        ("x.json", "{"),
        ("x.xml", "<?xml"),
        ("x.prom", "#"),
        ("x.txt", "✗ FAIL"),
        ("x", "✗ FAIL"),
    ],
)
def test_the_format_follows_the_name_of_the_file(home: Path, tmp_path: Path, name: str, begin: str) -> None:
    drill(home, 1)
    assert run_tools(["report", "--out", str(tmp_path / name)]) == LOST
    assert (tmp_path / name).read_text().lower().startswith(begin.lower())


def test_a_name_that_says_no_format_is_refused(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drill(home, 1)
    assert run_tools(["report", "--out", str(tmp_path / "x.pdf")]) == 3
    assert "--out: 'x.pdf' ends with no format's name (expected .html, " in capsys.readouterr().err
    assert run_tools(["report", "--out", str(tmp_path / "x.pdf"), "--format", "terminal"]) == LOST


def test_a_packed_log_is_read_and_cites_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plain.jsonl").write_bytes(text())
    (tmp_path / "log.gz").write_bytes(gzip.compress(text()))
    told = []
    for name in ("plain.jsonl", "log.gz"):
        assert run_tools(["report", str(tmp_path / name), "--format", "json"]) == LOST
        told.append(json.loads(capsys.readouterr().out)["cite"])
    assert told[0] == told[1]


def test_a_packed_log_that_was_cut_off_is_read_as_far_as_it_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = text() + os.urandom(1 << 16).hex().encode() + b"\n"  # what does not fit any more
    (tmp_path / "log.gz").write_bytes(gzip.compress(whole)[:-30_000])
    assert run_tools(["report", str(tmp_path / "log.gz")]) in (1, 2)
    assert "the last line is cut in the middle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("begin", "told"), [(b"\xfd7zXZ\x00", "xz -d"), (b"\x28\xb5\x2f\xfd", "zstd -d"), (b"BZh9", "bzip2 -d")]
)
def test_what_is_packed_otherwise_is_named(
    tmp_path: Path, begin: bytes, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_bytes(begin + bytes(100))
    assert run_tools(["report", str(tmp_path / "log")]) == 3
    assert f"unpack it first: {told}" in capsys.readouterr().err


def test_drills_are_listed_with_their_verdicts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drill(home, 1, verdict="pass")
    drill(home, 2)
    assert run_tools(["drills", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["FAIL for x", "PASS for x"]
    assert run_tools(["drills", "list", "--json"]) == 0
    assert [one["verdict"] for one in json.loads(capsys.readouterr().out)["drills"]] == ["fail", "pass"]


def test_pruning_removes_what_it_named_and_nothing_else(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, kept = drill(home, 1), drill(home, 3)
    noted = drill(home, 2)
    (noted / "notes.txt").write_text("mine")
    linked = home / "20260101T000000Z-4200000"
    linked.symlink_to(kept)
    (home / "photos").mkdir()
    (home / "20250101T000000Z-1").mkdir()  # nothing in it: no drill's
    stranger = home / "20250102T000000Z-1"
    stranger.mkdir()
    (stranger / "events.jsonl").write_text('{"something": "else"}\n')
    there = {path: sorted(path.iterdir()) for path in home.iterdir()}
    words = ["drills", "prune", "--keep", "1"]
    assert run_tools([*words, "--dry-run"]) == 0
    assert run_tools(words) == 3, "there is no terminal to ask on"
    assert {path: sorted(path.iterdir()) for path in home.iterdir()} == there
    capsys.readouterr()
    assert run_tools([*words, "--yes"]) == 0
    told = capsys.readouterr().out
    assert f"{noted.name} is left alone: it holds files that no drill wrote: notes.txt" in told
    assert set(there) - set(home.iterdir()) == {old}


def test_a_running_drill_is_spared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = home / "20260101T000000Z-4200000"
    with LogWriter(folder / "events.jsonl") as log:
        log.write(*Drill().log())
        assert [one.running for one in found()] == [True]
        assert run_tools(["drills", "prune", "--keep", "0", "--yes"]) == 0
        assert "its drill is running" in capsys.readouterr().out
        assert folder.is_dir()
    assert run_tools(["drills", "prune", "--keep", "0", "--yes"]) == 0
    assert not folder.exists()


@pytest.mark.parametrize("age", ["", "5", "d", "5y", "-1d", "٣d"])
def test_an_age_is_a_number_with_a_unit(home: Path, age: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tools(["drills", "prune", "--older-than", age]) == 3
    assert "is not an age (expected 45m, 12h, 30d or 8w)" in capsys.readouterr().err


def test_only_what_is_older_goes(home: Path) -> None:
    folder = drill(home, 1)
    assert run_tools(["drills", "prune", "--older-than", "99999d", "--yes"]) == 0
    assert folder.is_dir()
    assert run_tools(["drills", "prune", "--older-than", "1d", "--yes"]) == 0
    assert not folder.exists()
