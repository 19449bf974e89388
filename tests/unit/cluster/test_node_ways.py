"""How ``hitless node-drill`` restarts an agent: systemctl, crictl and ctr, with programs that do what those do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

import pytest

from hitless.drill import containers
from hitless.drill.nodes import RestartMethod
from hitless.drill.restart_signs import BeforeRestart
from hitless.errors import InputError, MissingError, ProgramError

SYSTEMCTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$STATE/calls"
case "$1" in
  show) cat "$STATE/shown" ;;
  is-active) test -e "$STATE/active" ;;
  restart) test -e "$STATE/broken" && { echo "Job for $2 failed" >&2; exit 1; }
    test -e "$STATE/idle" || printf 'InvocationID=%s\nMainPID=12\n' next > "$STATE/shown" ;;
esac
"""
CRICTL = """#!/bin/sh
printf '%s\\n' "$*" >> "$STATE/calls"
printf '%s\\n' "$CONTAINER_RUNTIME_ENDPOINT" > "$STATE/endpoint"
case "$1" in
  ps) cat "$STATE/running" ;;
  inspect) cat "$STATE/inspected" ;;
  stop) : > "$STATE/running" ;;
esac
"""
CTR = """#!/bin/sh
printf '%s\\n' "$*" >> "$STATE/calls"
printf '%s\\n' "$CONTAINERD_ADDRESS" > "$STATE/endpoint"
case "$3 $4" in
  "containers ls") cat "$STATE/running" "$STATE/ended" ;;
  "tasks ls") echo "TASK PID STATUS"
    while read -r id; do echo "$id 7 RUNNING"; done < "$STATE/running"
    while read -r id; do echo "$id 0 STOPPED"; done < "$STATE/ended" ;;
  "tasks kill")
    test -e "$STATE/stubborn" && [ "$6" = SIGTERM ] && exit 0
    test -s "$STATE/running" || { echo "ctr: no running task found: task $7 not found" >&2; exit 1; }
    cat "$STATE/running" > "$STATE/ended"; : > "$STATE/running" ;;
esac
"""


def inspected(grace: str) -> str:
    """What ``crictl inspect`` says, as far as we read it; the annotation is the kubelet's."""
    annotations = {"io.kubernetes.pod.terminationGracePeriod": grace} if grace else {}
    return json.dumps({"status": {"id": "c1", "annotations": annotations}, "info": {}})


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("crictl", CRICTL), ("ctr", CTR)):
        (bin_ / name).write_text(text)
        (bin_ / name).chmod(0o755)
    for name in ("sh", "cat", "true", "test"):
        (bin_ / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    # nothing of the machine's own: it may be a node, with a container runtime in /usr/bin
    monkeypatch.setenv("PATH", str(bin_))
    monkeypatch.setattr("hitless.kernel.processes._SEARCH", str(bin_))
    monkeypatch.setenv("STATE", str(tmp_path))
    (tmp_path / "running").write_text("c1\n")
    (tmp_path / "ended").write_text("")
    (tmp_path / "inspected").write_text(inspected("0"))
    monkeypatch.setattr(containers, "_CRICTL_CONFIG", tmp_path / "crictl.yaml")
    monkeypatch.setattr(containers, "_RKE2", tmp_path / "rke2")
    monkeypatch.setattr(containers, "_RKE2_SOCKET", tmp_path / "containerd.sock")
    for name in ("CONTAINERD_ADDRESS", "CONTAINER_RUNTIME_ENDPOINT", "CRI_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "active").touch()
    (tmp_path / "shown").write_text("InvocationID=first\nMainPID=11\n")
    return tmp_path


def calls(state: Path) -> list[str]:
    return (state / "calls").read_text().splitlines()


def test_a_unit_is_restarted_and_back_when_it_is_active(state: Path) -> None:
    way = RestartMethod(unit="k3s")
    way.check()
    before = way.before()
    assert way.stop() == ""
    assert way.back(before)
    assert way.sign(before, (), 0) == ("k3s: activation next, process 12 (before: first, process 11)", "")
    (state / "active").unlink()
    assert not way.back(before)
    assert way.gone(before) == "k3s is not active"
    assert "restart k3s" in calls(state)


def test_a_unit_that_systemd_did_not_activate_anew_did_not_restart(state: Path) -> None:
    (state / "idle").touch()
    way = RestartMethod(unit="k3s")
    before = way.before()
    way.stop()
    assert way.sign(before, (), 0) == ("", "systemd reports no new activation of k3s")
    assert way.gone(before) == ""


def test_a_unit_that_does_not_run_is_refused_and_one_that_fails_is_told(state: Path) -> None:
    (state / "broken").touch()
    with pytest.raises(ProgramError, match="Job for k3s failed"):
        RestartMethod(unit="k3s").stop()
    (state / "active").unlink()
    with pytest.raises(InputError, match="k3s is not active"):
        RestartMethod(unit="k3s").check()


@pytest.mark.parametrize(
    ("runtime", "grace", "stopped"),
    [
        ("crictl", None, "stop --timeout 2 c1"),  # of a pod's 0 the kubelet makes two seconds
        ("crictl", 0, "stop --timeout 0 c1"),
        ("ctr", None, "-n k8s.io tasks kill --signal SIGTERM c1"),
        ("ctr", 0, "-n k8s.io tasks kill --signal SIGKILL c1"),
    ],
)
def test_a_container_is_stopped_and_back_when_another_of_its_name_runs(
    state: Path, runtime: str, grace: int | None, stopped: str
) -> None:
    way = RestartMethod(container="kube-flannel", runtime="ctr" if runtime == "ctr" else "crictl", grace=grace)
    way.check()
    before = way.before()
    assert before.containers == {"c1"}
    assert (way.sign(before, (), 0), way.gone(before)) == (("", ""), "")
    way.stop()
    assert not way.back(before)
    assert (way.sign(before, (), 0), way.gone(before)) == (("", ""), "container c1 has ended")
    (state / "running").write_text("c2\n")
    assert way.back(before)
    assert way.sign(before, (), 0) == ("container c2 runs (before: c1)", "")
    assert stopped in calls(state)


@pytest.mark.parametrize(("told", "given"), [("45", "45"), ("", "30"), ("soon", "30")])
def test_crictl_which_would_kill_at_once_is_told_the_pods_grace_period(state: Path, told: str, given: str) -> None:
    (state / "inspected").write_text(inspected(told))
    RestartMethod(container="kube-flannel").stop()
    assert calls(state)[-1] == f"stop --timeout {given} c1"


@pytest.mark.slow
def test_ctr_kills_a_container_that_does_not_end_within_its_grace_period(state: Path) -> None:
    (state / "stubborn").touch()
    RestartMethod(container="kube-flannel", runtime="ctr", grace=1).stop()
    kills = [one for one in calls(state) if "tasks kill" in one]
    assert [one.split()[-2] for one in kills] == ["SIGTERM", "SIGKILL"]
    assert (state / "running").read_text() == ""


@pytest.mark.parametrize(
    ("runtime", "variable", "prefix"),
    [("crictl", "CONTAINER_RUNTIME_ENDPOINT", "unix://"), ("ctr", "CONTAINERD_ADDRESS", "")],
)
def test_rke2s_program_and_socket_are_found_and_what_people_say_holds(
    state: Path, monkeypatch: pytest.MonkeyPatch, runtime: Literal["crictl", "ctr"], variable: str, prefix: str
) -> None:
    (state / "rke2").mkdir()
    (state / "bin" / runtime).rename(state / "rke2" / runtime)
    way = RestartMethod(container="kube-flannel", runtime=runtime)
    way.check()
    assert (state / "endpoint").read_text() == "\n", "no socket of RKE2's: the program's own default"
    (state / "containerd.sock").touch()
    way.check()
    assert (state / "endpoint").read_text() == f"{prefix}{state / 'containerd.sock'}\n"
    monkeypatch.setenv(variable, "elsewhere")
    way.check()
    assert (state / "endpoint").read_text() == "elsewhere\n"


def test_crictls_own_configuration_holds(state: Path) -> None:
    (state / "containerd.sock").touch()
    (state / "crictl.yaml").touch()
    RestartMethod(container="kube-flannel").check()
    assert (state / "endpoint").read_text() == "\n"


@pytest.mark.parametrize("runtime", ["crictl", "ctr"])
def test_a_container_that_does_not_run_is_refused(state: Path, runtime: str) -> None:
    (state / "running").write_text("")
    with pytest.raises(InputError, match="no container kube-flannel runs"):
        RestartMethod(container="kube-flannel", runtime="ctr" if runtime == "ctr" else "crictl").check()


def test_it_is_back_only_when_the_ready_command_says_so(state: Path) -> None:
    way = RestartMethod(command="true", ready=f"test -e {state / 'ready'}")
    way.check()
    way.stop()
    assert not way.back(BeforeRestart())
    (state / "ready").touch()
    assert way.back(BeforeRestart())


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("hitless.kernel.processes._SEARCH", str(tmp_path))
    for way in (RestartMethod(unit="k3s"), RestartMethod(container="x"), RestartMethod(container="x", runtime="ctr")):
        with pytest.raises(MissingError, match="is not installed"):
            way.check()
