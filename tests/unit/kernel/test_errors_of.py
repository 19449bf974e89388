"""A program that leaves a daemon running which keeps its standard error open."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from hitless.errors import ProgramError
from hitless.kernel.processes import errors_of

HANG = 60.0


@pytest.mark.slow
def test_a_daemon_that_holds_standard_error_is_not_waited_for_and_not_ended(tmp_path: Path) -> None:
    script = tmp_path / "daemon"
    script.write_text("echo $$ > pid; sleep 1; echo later >&2; echo $? > wrote; exec sleep 600\n")
    begin = time.monotonic()
    output = errors_of(["sh", "-c", f"cd {tmp_path}; echo begun >&2; sh ./daemon & sleep 0.3"], timeout=HANG)
    assert time.monotonic() - begin < HANG / 2
    pid = int((tmp_path / "pid").read_text())
    try:
        assert output == "begun\n"
        while not (tmp_path / "wrote").exists() and time.monotonic() - begin < HANG:
            time.sleep(0.05)
        assert (tmp_path / "wrote").read_text() != "0\n", "its words go nowhere"
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_what_fails_and_what_does_not_end_is_told() -> None:
    with pytest.raises(ProgramError, match="ended with 3: no such agent"):
        errors_of(["sh", "-c", "echo no such agent >&2; exit 3"], timeout=HANG)
    with pytest.raises(ProgramError, match="did not end within"):
        errors_of(["sleep", "600"], timeout=0.2)
