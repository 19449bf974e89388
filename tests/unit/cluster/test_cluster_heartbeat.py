"""Whether a drill's driver lives, as far as this machine can say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hitless.cluster import heartbeat
from hitless.kube.objects import ConfigMap


def owner(**told: str) -> ConfigMap:
    return ConfigMap(data={**heartbeat.driver(), **told})


def test_this_process_is_alive_and_its_number_with_another_start_is_not() -> None:
    assert heartbeat.here(owner()) == "alive"
    *machine, pid, _ = heartbeat.driver()["process"].split()
    assert pid == str(os.getpid())
    assert heartbeat.here(owner(process=" ".join([*machine, pid, "1"]))) == "dead"


def test_a_process_that_has_ended_is_dead() -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    *machine, _, start = heartbeat.driver()["process"].split()
    assert heartbeat.here(owner(process=" ".join([*machine, str(done.pid), start]))) == "dead"


def test_a_process_that_is_hidden_from_us_is_not_called_dead(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text(Path("/proc/sys/kernel/random/boot_id").read_text())
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "self/ns/pid").symlink_to("/proc/self/ns/pid")
    assert heartbeat.here(owner(), tmp_path) == "unknown"


@pytest.mark.parametrize(
    "process",
    ["", "x", "a b c", "../.. 1 1 1", "other-boot 1 1 1", "² ² ² ²", "{machine} ../../etc 1", "{machine} -1 1"],
)
def test_what_another_machine_or_anybody_wrote_says_nothing(process: str) -> None:
    machine = " ".join(heartbeat.driver()["process"].split()[:2])
    assert heartbeat.here(owner(process=process.format(machine=machine))) == "unknown"
    assert heartbeat.here(ConfigMap()) == "unknown"
