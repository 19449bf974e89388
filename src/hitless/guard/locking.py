"""One guard a node: a locked file that names the process.

Promise: ``Lock`` is held for as long as the process lives, however it ends (flock); a second guard is told the first
one's process id. ``stop`` ends the process that *holds* the lock, and no other: a number that was written in a pod, in
another pid namespace, is not trusted. Guards that do not share a file system are kept apart by the kernel, by the
table's owner.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

from hitless.errors import HitlessError, InputError, MissingError

__all__ = ["Lock", "Running", "holder", "stop"]

_PATIENCE = 10.0


class Running(HitlessError):
    """Another guard runs on this node."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        super().__init__(f"another guard is running on this node (pid {pid}); see hitless guard status")


class Lock:
    """A context manager; raises ``Running`` when another process holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> Lock:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise InputError(
                error.strerror or str(error), where=str(self._path), expected="a directory that can be written"
            ) from error
        try:
            _take(self._fd)
        except BlockingIOError as error:
            pid = _pid(os.pread(self._fd, 32, 0))
            os.close(self._fd)
            raise Running(pid) from error
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # without its number nobody could stop this guard
            os.close(self._fd)
            raise MissingError(
                f"cannot write {self._path}: {error.strerror}",
                remedy="make room, or choose another place with --run-dir",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _take(fd: int) -> None:
    """Lock it; raises ``BlockingIOError`` when a guard has it. One who only looks (``holder``) is waited for."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # beside those who look, and not beside a guard
            fcntl.flock(fd, fcntl.LOCK_UN)
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _pid(text: bytes) -> int:
    word = text.split()[0] if text.split() else b""
    return int(word) if word.isdigit() else 0


def holder(path: Path) -> int:
    """The process that holds the lock; 0 when nobody does."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid(os.pread(fd, 32, 0))
    else:
        return 0
    finally:
        os.close(fd)


def _has_open(pid: int, path: Path) -> bool:
    """Whether that process has the file open: then the number is its, here and now."""
    try:
        wanted = path.stat()
        found = [each.stat() for each in Path(f"/proc/{pid}/fd").iterdir() if each.exists()]
    except OSError:
        return False
    return any((one.st_dev, one.st_ino) == (wanted.st_dev, wanted.st_ino) for one in found)


def stop(path: Path) -> int:
    """Ask the holder to end (SIGTERM) and wait; returns its process id, 0 when there was none."""
    pid = holder(path)
    if not pid:
        return 0
    if not _has_open(pid, path):
        raise HitlessError(
            f"the guard that holds {path} says that it is process {pid}, and that is not so here: it runs in a "
            "container. Take its pod away first (helm uninstall, kubectl delete); nothing was removed"
        )
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        raise HitlessError(f"cannot stop the guard (pid {pid}): {error.strerror}") from error
    deadline = time.monotonic() + _PATIENCE
    while holder(path) == pid:
        if time.monotonic() > deadline:
            raise HitlessError(f"the guard (pid {pid}) does not end; nothing was removed")
        time.sleep(0.02)
    return pid
