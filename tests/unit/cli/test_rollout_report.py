"""The report of a whole rollout, and where rollouts are listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hitless.cli import rollout_report, rollout_view
from hitless.cli.tools import run_tools
from hitless.operations.rollout.values import NodeTurn, Rollout, RolloutChange, RolloutChoices

STATE = Rollout(
    identity="7f",
    namespace="kube-system",
    name="rke2-canal",
    uid="u",
    change=RolloutChange("image", "image kube-flannel=<b>new</b>", {"spec": {}}),
    choices=RolloutChoices(),
    phase="rolling",
    generation=1,
    turns=(
        NodeTurn("worker-1", "zone-a", "done", verdict="pass", attempted=18_204),
        NodeTurn("worker-2", "zone-b", "done", verdict="fail", attempted=9_000, lost=31, reason="lost 31 & more"),
        NodeTurn("worker-3", "zone-b"),
    ),
    stopped="the first loss: worker-2",
    begun="2026-01-02T12:00:00Z",
    log=("2026-01-02T12:00:00Z me: worker-1: pass",),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    place = tmp_path / "hitless/rollouts/20260102T120000Z-5000001"
    step = place / "001-worker-1"
    step.mkdir(parents=True)
    (step / "report.html").touch()
    return place


def test_it_tells_of_every_node_and_leads_to_the_reports_of_its_steps(folder: Path) -> None:
    told = rollout_view.described(STATE, folder)
    assert rollout_report.write(folder, told) == ""
    assert json.loads((folder / "rollout.json").read_text()) == told
    page = (folder / "rollout.html").read_text()
    assert "<a href='001-worker-1/report.html'>worker-1</a>" in page
    assert "<td>18,204<td>0" in page and "<td>9,000<td>31<td>lost 31 &amp; more" in page
    assert "worker-3<td>zone-b<td class='pending'>pending" in page
    assert "<strong>FAIL</strong>" in page and "the first loss: worker-2" in page
    assert "<b>new</b>" not in page and "&lt;b&gt;new&lt;/b&gt;" in page


def test_a_folder_that_cannot_be_written_is_told_and_ends_nothing(folder: Path) -> None:
    (folder / "file").touch()
    problem = rollout_report.write(folder / "file", rollout_view.described(STATE, folder))
    assert "the rollout's report could not be written" in problem and str(folder / "file") in problem


def test_rollouts_are_listed_beside_drills(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollout_report.write(folder, rollout_view.described(STATE, folder))
    (folder.parent / "20260103T120000Z-5000002").mkdir()  # its driver was killed
    assert run_tools(["drills", "list", "--json"]) == 0
    cut, whole = json.loads(capsys.readouterr().out)["rollouts"]
    assert cut == {"folder": str(folder.parent / "20260103T120000Z-5000002")}
    assert (whole["folder"], whole["verdict"], whole["agent"]) == (str(folder), "fail", "kube-system/rke2-canal")
    assert run_tools(["drills", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("cut off, no report")
    assert lines[1].endswith("rollout  fail: image kube-flannel=<b>new</b> of kube-system/rke2-canal")


def test_a_rollout_is_shown_with_its_exit_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rollout_report.write(folder, rollout_view.described(STATE, folder))
    assert run_tools(["drills", "show", "20260102T"]) == 1
    out = capsys.readouterr().out
    assert "worker-2  fail          31 of 9000 lost; lost 31 & more" in out
    assert "FAIL: image kube-flannel=<b>new</b> of kube-system/rke2-canal, stopped" in out
    assert "why: the first loss: worker-2" in out and f"{folder}/rollout.json" in out
    cut = folder.parent / "20260103T120000Z-5000002"
    cut.mkdir()
    assert run_tools(["drills", "show", cut.name]) == 2
    assert "cut off, no report" in capsys.readouterr().out
    assert run_tools(["drills", "show", "2026010"]) == 3
    assert "is the begin of several names" in capsys.readouterr().err


def test_old_rollouts_are_pruned_with_their_steps_and_nothing_else(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout_report.write(folder, rollout_view.described(STATE, folder), "metrics")
    for name in ("events.jsonl", "report.json", "junit.xml"):
        (folder / "001-worker-1" / name).touch()
    other = folder.parent / "20260101T120000Z-5000003"
    (other / "001-a").mkdir(parents=True)
    (other / "001-a" / "notes.txt").touch()
    strange = folder.parent / "20260101T120000Z-5000004"
    (strange / "mine").mkdir(parents=True)
    link = folder.parent / "20260101T120000Z-5000005"
    link.symlink_to(other)
    assert run_tools(["drills", "prune", "--keep", "0", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["to_be_removed"] == [str(folder)] and set(told["spared"]) == {other.name, strange.name}
    assert folder.exists()
    assert run_tools(["drills", "prune", "--keep", "0", "--yes"]) == 0
    assert sorted(folder.parent.iterdir()) == [other, strange, link]
    assert (other / "001-a" / "notes.txt").exists()
    out = capsys.readouterr().out
    assert "it holds files that no rollout wrote: 001-a/notes.txt" in out
