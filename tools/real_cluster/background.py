"""Programs that go on running: started in a session of their own, known by their number and start time, ended by them.

A process number may be somebody else's after a restart of the machine: the start time beside it says whose it is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from tools.real_cluster.folder import Folder, fail

_PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
"""Those that this process started; they outlive it."""


def start(folder: Folder, name: str, command: Sequence[str]) -> int:
    """Start ``command`` with its output in logs/NAME.log; its number is kept in run/NAME.pid."""
    if pid := alive(folder, name):
        fail(f"{name} is already running (process {pid}): down first")
    with (folder.logs / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, close_fds=True
        )
    _CHILDREN[process.pid] = process
    _file(folder, name).write_text(f"{process.pid} {_started(process.pid)}\n")
    return process.pid


def alive(folder: Folder, name: str) -> int:
    """The process number of ``name`` while it runs, else 0."""
    try:
        pid, started = _file(folder, name).read_text().split()
    except (OSError, ValueError):
        return 0
    return int(pid) if started and started == _started(int(pid)) else 0


def stop(folder: Folder, name: str) -> None:
    """End it and its session: SIGTERM, then SIGKILL."""
    if pid := alive(folder, name):
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(pid, number)
            except ProcessLookupError:
                break
            end = time.monotonic() + _PATIENCE
            while alive(folder, name) and time.monotonic() < end:
                time.sleep(0.05)
            if not alive(folder, name):
                break
        if child := _CHILDREN.pop(pid, None):
            child.wait()
    _file(folder, name).unlink(missing_ok=True)


def last_words(folder: Folder, name: str, lines: int = 8) -> str:
    """The end of its log."""
    try:
        return "\n  ".join((folder.logs / f"{name}.log").read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "(no log)"


def _file(folder: Folder, name: str) -> Path:
    return folder.run / f"{name}.pid"


def _started(pid: int) -> str:
    """The start time in clock ticks since boot; empty when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] == "Z" else fields[19]
