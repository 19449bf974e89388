"""A lab stays until ``down``, whoever reads what ``up`` says of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.lab.test_lab_command import HITLESS, Shell
from tests.kernel.lab.worlds import HANG, need

from hitless import lab

pytestmark = pytest.mark.kernel


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    need(lab.LabPlan(family="ipv4"))
    shell = Shell(tmp_path / "labs")
    yield shell
    shell("down", "--all")


def up(shell: Shell, out: int, *words: str) -> tuple[int, str]:
    """``up`` with this standard output."""
    done = subprocess.run(
        [*HITLESS, "lab", "up", "--family", "ipv4", *words],
        env={**os.environ, "HITLESS_RUNTIME_DIR": str(shell.folder)},
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=HANG,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("words", [("--json",), ("--name", "mine")])
@pytest.mark.parametrize("how", ["closed", "full"])
def test_a_lab_of_which_nobody_reads_is_up_and_says_so(shell: Shell, words: tuple[str, ...], how: str) -> None:
    if how == "closed":
        reading, out = os.pipe()
        os.close(reading)
    else:
        out = os.open("/dev/full", os.O_WRONLY)
    try:
        code, err = up(shell, out, *words)
    finally:
        os.close(out)
    assert code == (141 if how == "closed" else 3)
    name, remedy = ("the lab", "down") if "--json" in words else ("lab mine", "down --name mine")
    assert err.startswith(f"{name} is up nevertheless; to remove it: hitless lab {remedy}\n")
    (found,) = shell.status()
    assert found["alive"]
    shell("exec", "--name", str(found["name"]), "node0-pod0", "--", "true")
    shell("down", "--name", str(found["name"]))
    assert shell.status() == []


def test_a_lab_whose_reader_saw_enough_is_up(shell: Shell) -> None:
    reading, out = os.pipe()
    with os.fdopen(reading) as lines:
        try:
            process = subprocess.Popen(
                [*HITLESS, "lab", "up", "--family", "ipv4", "--pods", "40"],
                env={**os.environ, "HITLESS_RUNTIME_DIR": str(shell.folder)},
                stdout=out,
                stderr=subprocess.DEVNULL,
            )
        finally:
            os.close(out)
        assert lines.readline().startswith("the lab is up")
    assert process.wait(HANG) in (0, 141)
    (found,) = shell.status()
    assert found["alive"]
