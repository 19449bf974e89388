"""What people and systems do to commands: closed descriptors, places without leave, numbers that are none."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.unit.evidence.drill_logs import Drill

from hitless.cli.tools import run_tools
from hitless.daemon.logs import Log
from hitless.errors import InputError, MissingError
from hitless.guard.locking import Lock
from hitless.kernel.processes import program
from hitless.model.events import encode
from hitless.model.families import Family
from hitless.probe.flows import Lane
from hitless.probe.targets import parse, resolve
from hitless.probe.tuples import Tuples

HANG = 120.0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_whose_descriptors_were_closed_ends_as_always(tmp_path: Path, closed: str) -> None:
    log = tmp_path / "none.jsonl"
    command = f'"$0" -m hitless report {log} {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, timeout=HANG, check=False)
    assert done.returncode == 3
    assert b"Traceback" not in done.stderr


def test_what_is_written_to_a_closed_output_goes_nowhere() -> None:
    command = '"$0" -m hitless probe --to tcp://127.0.0.1:9 --scheduling normal --count 1 --json >&-'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, timeout=HANG, check=False)
    # it is refused there, and that is the verdict; 2 where the machine was too busy to send it in time
    assert (done.returncode in (1, 2), done.stderr) == (True, b"")


def test_a_probe_whose_reader_went_away_has_no_verdict() -> None:
    command = [
        sys.executable,
        "-m",
        "hitless",
        "probe",
        "--to",
        "tcp://127.0.0.1:9",
        "--scheduling",
        "normal",
        "--json",
    ]
    reading, writing = os.pipe()
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        os.close(reading)
        _, errors = process.communicate(timeout=HANG)
    assert (process.returncode, errors) == (141, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_libraries_are_loaded_is_no_defect(tmp_path: Path, number: signal.Signals) -> None:
    begun = tmp_path / "begun"
    (tmp_path / "click.py").write_text(f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "hitless", "drill"], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        end = time.monotonic() + HANG
        while not begun.exists() and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        _, told = process.communicate(timeout=HANG)
    assert (process.returncode, told) == (130, "interrupted\n")


@pytest.mark.slow
@pytest.mark.parametrize("words", [["farend", "--port", "17800"], ["farend", "--port", "18800", "--json"]])
def test_who_seldom_writes_notices_too_that_the_reader_went_away(words: list[str]) -> None:
    own = os.getpid().to_bytes(4, "big")  # an address of this process's: nobody else on this machine has these ports
    address = f"127.{own[1]}.{own[2]}.{own[3]}"
    command = [sys.executable, "-m", "hitless", *words, "--scheduling", "normal", "--bind", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        _, told = process.communicate(timeout=HANG)
    assert (process.returncode in (0, 141), told) == (True, b"")


@pytest.mark.parametrize("words", [["agent", "--help"], ["lab", "--help"]])
def test_an_answer_that_could_not_be_written_is_no_answer(words: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "hitless", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=HANG, check=False)
    assert done.returncode == 3
    assert b"cannot write the output: No space left on device" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_what_the_terminal_cannot_show_is_no_defect(tmp_path: Path, encoding: str) -> None:
    log = tmp_path / os.fsdecode(b"\xff.jsonl")
    log.write_bytes(b"".join(encode(event) + b"\n" for event in Drill().gap(2.3, 0.05).log()))
    for form in ("terminal", "json"):
        command = [sys.executable, "-m", "hitless", "report", str(log), "--format", form]
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=HANG, check=False)
        assert (done.returncode, done.stderr) == (1, b"")
    gone = [sys.executable, "-m", "hitless", "report", f"{log}x"]
    told = subprocess.run(gone, env=environment, capture_output=True, timeout=HANG, check=False).stderr
    assert told.startswith(b"hitless: " + os.fsencode(tmp_path))


def test_a_place_that_may_not_be_looked_at_is_one_sentence_and_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def closed(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "is_dir", closed)
    assert run_tools(["report", "/root/x"]) == 3
    assert capsys.readouterr().err == (
        "hitless: /root/x: Permission denied; name another place, or run it as a user who may\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["watch", "--duration", "nan"],
        ["watch", "--duration", "inf"],
        ["watch", "--heartbeat", "nan"],
        ["drill", "--grace", "nan"],
        ["drill", "--ready-within", "nan"],
    ],
)
def test_no_number_is_refused_with_its_flag(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tools(words) == 3
    assert f"{words[1]}: {words[2]} is out of range" in capsys.readouterr().err


def test_a_zone_that_is_no_interface_is_refused() -> None:
    (endpoint,) = resolve(parse("tcp://[fe80::1%none9]:80"), (Family.IPV6,))
    with pytest.raises(InputError, match=re.escape("--to: tcp://[fe80::1%none9]:80: there is no interface 'none9'")):
        Lane(endpoint, Tuples((80,)))


def test_the_package_of_a_program_is_named_only_where_it_is_known() -> None:
    with pytest.raises(MissingError, match="is not installed; install it, or give its path"):
        program("no-such-flanneld")


def test_a_full_disk_ends_neither_log_nor_daemon() -> None:
    with Path("/dev/full").open("w", encoding="utf-8", buffering=1) as full:
        log = Log(full)
        log.info("start")
        log.warning("gap")
        with pytest.raises(OSError, match="No space left"):
            full.close()


def test_a_lock_without_room_for_its_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", no_room)
    with pytest.raises(MissingError, match="No space left on device; make room"), Lock(tmp_path / "lock"):
        pass
