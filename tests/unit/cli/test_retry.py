"""``hitless retry -- COMMAND``: what is run again, what is not, and with which exit code it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HITLESS = [sys.executable, "-m", "hitless", "retry"]


def run(*words: str, stdin: object = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [*HITLESS, *words], capture_output=True, text=True, stdin=stdin, timeout=60, check=False
    )


def counting(folder: Path, code: int, good: int) -> tuple[list[str], Path]:
    """A command that ends with ``code`` until it is run for the ``good``-th time; and where it counts."""
    marks = folder / "marks"
    script = f'echo x >>"{marks}"; [ "$(wc -l <"{marks}")" -ge {good} ] || exit {code}; echo "$GREETING"'
    return ["sh", "-c", script], marks


def test_a_command_is_run_until_it_works(tmp_path: Path) -> None:
    command, marks = counting(tmp_path, 7, 3)
    done = run("--", *command)
    assert done.returncode == 0 and len(marks.read_text().splitlines()) == 3
    assert done.stderr.count("ended with 7 at attempt") == 2
    assert run("-q", "--", *command).stderr == ""


@pytest.mark.parametrize(
    ("options", "code", "runs"),
    [
        (("--on", "4"), 5, 1),
        (("--on", "4,5"), 5, 9),
        (("--on", "any"), 5, 9),
        (("--attempts", "2"), 5, 2),
        ((), 126, 1),
        ((), 127, 1),
    ],
)
def test_which_exit_codes_are_tried_again(tmp_path: Path, options: tuple[str, ...], code: int, runs: int) -> None:
    command, marks = counting(tmp_path, code, 9)
    done = run("--wait-max", "0.01", *options, "--", *command)
    assert len(marks.read_text().splitlines()) == runs
    assert done.returncode == (0 if runs == 9 else code)


def test_programs_whose_exit_codes_are_known_are_not_run_again_for_other_reasons(tmp_path: Path) -> None:
    curl = tmp_path / "curl"
    curl.write_text(f'#!/bin/sh\necho x >>"{tmp_path}/marks"\nexit 22\n')  # what -f makes of a 404
    curl.chmod(0o755)
    done = run("--", str(curl))
    assert done.returncode == 22 and (tmp_path / "marks").read_text() == "x\n"
    assert "none of a gap (5, 6, 7, 28, 35; --on names others)" in done.stderr


@pytest.mark.slow
def test_the_deadline_ends_a_command_that_hangs() -> None:
    begin = time.monotonic()
    done = run("--deadline", "0.5", "--", "sleep", "600")
    assert done.returncode == 143 and "not tried again: --deadline 0.5" in done.stderr
    assert time.monotonic() - begin < 50


def test_a_signal_ends_the_command_and_the_attempts(tmp_path: Path) -> None:
    started = tmp_path / "started"
    words = [*HITLESS, "--", "sh", "-c", f"touch {started}; exec sleep 600"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not started.exists() and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_file_as_input_is_read_from_its_beginning_again(tmp_path: Path) -> None:
    marks, text = tmp_path / "marks", tmp_path / "input"
    text.write_text("first\nsecond\n")
    with text.open() as stdin:
        stdin.readline()
        stdin.seek(6)  # where it stood for us
        script = f'cat; echo x >>"{marks}"; [ "$(wc -l <"{marks}")" -ge 2 ]'
        assert run("--", "sh", "-c", script, stdin=stdin).stdout == "second\nsecond\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 3, "there is no command"),
        (("--",), 3, "there is no command"),
        (("--on", "4,x", "--", "true"), 3, "--on"),
        (("--on", "127", "--", "true"), 3, "cannot be run"),
        (("--deadline", "0", "--", "true"), 3, "--deadline"),
        (("--", "/no/such/program"), 127, "/no/such/program"),
        (("--", "no-such-program"), 127, "no-such-program"),
        (("--", "/etc"), 126, "/etc"),
    ],
)
def test_what_cannot_be_run_says_so(words: tuple[str, ...], code: int, said: str) -> None:
    done = run(*words)
    assert done.returncode == code and said in done.stderr and "Traceback" not in done.stderr


def test_options_of_the_command_are_its_own() -> None:
    assert run("--", "echo", "--deadline", "x").stdout == "--deadline x\n"
    assert run("echo", "--attempts").stdout == "--attempts\n"
