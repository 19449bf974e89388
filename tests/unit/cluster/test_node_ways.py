"""How ``hitless node-drill`` restarts an agent: systemctl, crictl and ctr, with programs that do what those do."""

from __future__ import annotations

from pathlib import Path

import pytest

from hitless.drill.nodes import Way
from hitless.errors import InputError, MissingError, ProgramError

SYSTEMCTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$STATE/calls"
case "$1" in
  is-active) test -e "$STATE/active" ;;
  restart) test -e "$STATE/broken" && { echo "Job for $2 failed" >&2; exit 1; }; exit 0 ;;
esac
"""
CRICTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$STATE/calls"
case "$1" in
  ps) cat "$STATE/running" ;;
  stop) : > "$STATE/running" ;;
esac
"""
CTR = """#!/bin/sh
printf '%s\\n' "$*" >> "$STATE/calls"
case "$3 $4" in
  "containers ls") cat "$STATE/running" "$STATE/ended" ;;
  "tasks ls") echo "TASK PID STATUS"
    while read -r id; do echo "$id 7 RUNNING"; done < "$STATE/running"
    while read -r id; do echo "$id 0 STOPPED"; done < "$STATE/ended" ;;
  "tasks kill") cat "$STATE/running" > "$STATE/ended"; : > "$STATE/running" ;;
esac
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("crictl", CRICTL), ("ctr", CTR)):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")
    monkeypatch.setenv("STATE", str(tmp_path))
    (tmp_path / "running").write_text("c1\n")
    (tmp_path / "ended").write_text("")
    (tmp_path / "active").touch()
    return tmp_path


def calls(state: Path) -> list[str]:
    return (state / "calls").read_text().splitlines()


def test_a_unit_is_restarted_and_back_when_it_is_active(state: Path) -> None:
    way = Way(unit="k3s")
    way.check()
    assert way.stop() == set()
    assert way.back(set())
    (state / "active").unlink()
    assert not way.back(set())
    assert "restart k3s" in calls(state)


def test_a_unit_that_does_not_run_is_refused_and_one_that_fails_is_told(state: Path) -> None:
    (state / "broken").touch()
    with pytest.raises(ProgramError, match="Job for k3s failed"):
        Way(unit="k3s").stop()
    (state / "active").unlink()
    with pytest.raises(InputError, match="k3s is not active"):
        Way(unit="k3s").check()


@pytest.mark.parametrize(
    ("runtime", "grace", "stopped"),
    [
        ("crictl", None, "stop c1"),
        ("crictl", 0, "stop --timeout 0 c1"),
        ("ctr", None, "-n k8s.io tasks kill --signal SIGTERM c1"),
        ("ctr", 0, "-n k8s.io tasks kill --signal SIGKILL c1"),
    ],
)
def test_a_container_is_stopped_and_back_when_another_of_its_name_runs(
    state: Path, runtime: str, grace: int | None, stopped: str
) -> None:
    way = Way(container="kube-flannel", runtime="ctr" if runtime == "ctr" else "crictl", grace=grace)
    way.check()
    before = way.stop()
    assert before == {"c1"}
    assert not way.back(before)
    (state / "running").write_text("c2\n")
    assert way.back(before)
    assert stopped in calls(state)


@pytest.mark.parametrize("runtime", ["crictl", "ctr"])
def test_a_container_that_does_not_run_is_refused(state: Path, runtime: str) -> None:
    (state / "running").write_text("")
    with pytest.raises(InputError, match="no container kube-flannel runs"):
        Way(container="kube-flannel", runtime="ctr" if runtime == "ctr" else "crictl").check()


def test_it_is_back_only_when_the_ready_command_says_so(state: Path) -> None:
    way = Way(command="true", ready=f"test -e {state / 'ready'}")
    way.check()
    way.stop()
    assert not way.back(set())
    (state / "ready").touch()
    assert way.back(set())


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("hitless.kernel.processes._SEARCH", str(tmp_path))
    for way in (Way(unit="k3s"), Way(container="x"), Way(container="x", runtime="ctr")):
        with pytest.raises(MissingError, match="is not installed"):
            way.check()
