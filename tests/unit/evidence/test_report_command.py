"""``hitless report`` as users run it: logs that are cut off, damaged or missing; paths that cannot be written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.evidence.drill_logs import Drill, outage_drill

from hitless.cli.exits import Exit
from hitless.cli.tools import run_tools
from hitless.evidence import LogWriter
from hitless.model import events as e


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    with LogWriter(path) as writer:
        writer.write(*outage_drill().log())
    return path


def test_the_exit_code_is_the_verdicts(tmp_path: Path, log: Path) -> None:
    assert run_tools(["report", str(log)]) == Exit.FAIL
    assert run_tools(["report", str(tmp_path)]) == Exit.FAIL, "a drill's folder is its log's name"
    good = tmp_path / "good.jsonl"
    with LogWriter(good) as writer:
        writer.write(*Drill().log())
    assert run_tools(["report", str(good)]) == Exit.PASS


@pytest.mark.parametrize("form", ["terminal", "html", "json", "junit", "prometheus"])
def test_a_log_cut_in_the_middle_is_rendered_as_far_as_it_is_whole_and_says_so(
    log: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = log.read_bytes()
    lines = data.splitlines(keepends=True)
    cut = len(lines) // 2
    log.write_bytes(b"".join(lines[:cut]) + lines[cut][: len(lines[cut]) // 2])
    code = run_tools(["report", str(log), "--format", form])
    out, err = capsys.readouterr()
    assert code in (Exit.FAIL, Exit.INCONCLUSIVE)
    assert err == f"hitless: {log}: the last line is cut in the middle; made from what is whole\n"
    if form == "json":
        assert json.loads(out)["whole"] is False
    elif form in ("terminal", "html"):
        assert "The log is cut off" in out
    else:
        assert "flannel-0.28" in out


def test_a_log_without_its_end_is_cut_off_too(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[: len(lines) // 2]))
    run_tools(["report", str(log)])
    assert "The log is cut off" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{not json}\n", "JSON"),
        (b'{"type":"gap"}\n', "Object missing required field"),
        (b"\xff\xfe\n", "JSON is malformed"),
        (b"[]\n", "Expected `object`"),
    ],
)
def test_a_bad_line_in_the_middle_is_an_error_with_file_line_and_what_was_expected(
    log: Path, line: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    lines[6] = line
    log.write_bytes(b"".join(lines))
    assert run_tools(["report", str(log)]) == Exit.ERROR
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"hitless: {log}:7: ")
    assert said.lower() in err.lower()
    assert "(expected one event as JSON a line)" in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no event (expected an event log, e.g. events.jsonl of a drill)"),
        (b"hello\n", ":1: "),
        (e.encode(e.Note(t=1, level="info", text="x")) + b"\n", ":1: does not begin with a header"),
        (e.encode(e.Header(t=1, tool="drill", version="9", schema=7)) + b"\n", "written in schema 7"),
    ],
)
def test_what_is_no_log_of_ours_is_refused(
    tmp_path: Path, content: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(content)
    assert run_tools(["report", str(path)]) == Exit.ERROR
    assert f"{path}" in (err := capsys.readouterr().err)
    assert said in err


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("", "--out: is empty (expected a file in a folder that is there)"),
        ("{log}/report.html", "there is no folder"),
        ("{folder}", "is a folder"),
        ("{folder}/none/report.html", "there is no folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_by_its_flag(
    tmp_path: Path, log: Path, out: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = out.format(log=log, folder=tmp_path)
    assert run_tools(["report", str(log), "--format", "html", "--out", place]) == Exit.ERROR
    out, err = capsys.readouterr()
    assert (out, "--out" in err, said in err) == ("", True, True), err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["events.jsonl"]


def test_charts_write_no_messages_without_a_home_folder(tmp_path: Path, log: Path) -> None:
    page = tmp_path / "report.html"
    command = [sys.executable, "-m", "hitless", "report", str(log), "--format", "html", "--out", str(page)]
    environment = {**os.environ, "HOME": "/proc/none"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (Exit.FAIL, f"fail: {page}\n")
    assert "<svg" in page.read_text()


def test_a_report_replaces_the_one_before_and_leaves_no_draft(tmp_path: Path, log: Path) -> None:
    page = tmp_path / "report.json"
    page.write_text("before")
    assert run_tools(["report", str(log), "--format", "json", "--out", str(page)]) == Exit.FAIL
    assert json.loads(page.read_text())["verdict"] == "fail"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["events.jsonl", "report.json"]
