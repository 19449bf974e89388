"""One guard a node: a locked file that names the process.

Promise: ``Lock`` is held for as long as the process lives, however it ends (flock); a second guard learns the first
one's process id. ``stop`` ends the process that *holds* the lock, and no other: a number that was written in a pod, in
another pid namespace, is not trusted. Guards that do not share a file system are kept apart by the kernel, by the
table's owner.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from hitless.errors import HitlessError, InputError, MissingError
from hitless.kernel import files
from hitless.model.reading import whole_of

__all__ = ["AlreadyRunning", "Lock", "holder", "stop"]

_PATIENCE = 10.0
_NAMELESS = 1.0  # seconds for a holder to say who it is


class AlreadyRunning(HitlessError):
    """Another guard runs on this node."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        super().__init__(f"another guard is running on this node (pid {pid}); see hitless guard status")


class Lock:
    """A context manager; raises ``AlreadyRunning`` when another process holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> Lock:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = files.own(self._path, os.O_RDWR)
        except OSError as error:
            raise InputError(
                error.strerror or str(error), where=str(self._path), expected="a directory that can be written"
            ) from error
        try:
            _take(self._fd)
        except BlockingIOError as error:
            pid = _pid(os.pread(self._fd, 32, 0))
            os.close(self._fd)
            raise AlreadyRunning(pid) from error
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:  # without its pid users could not stop this guard
            os.close(self._fd)
            raise MissingError(
                f"cannot write {self._path}: {error.strerror}",
                remedy="make room, or choose another place with --run-dir",
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a disk that fails now: the lock ends with the descriptor all the same
            os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _take(fd: int) -> None:
    """Lock it; raises ``BlockingIOError`` when a guard has it. A process that only reads it (``holder``) is waited
    for."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared with other readers, not with a guard
            fcntl.flock(fd, fcntl.LOCK_UN)
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _pid(text: bytes) -> int:
    first = text.split()[0] if text.split() else b""
    return whole_of(first) or 0


def holder(path: Path) -> int:
    """The process that holds the lock; 0 when none does. Raises ``MissingError`` when that cannot be known."""
    deadline = time.monotonic() + _NAMELESS
    while True:
        held, pid = _look(path)
        if not held or pid:
            return pid
        if time.monotonic() > deadline:
            raise MissingError(
                f"{path} is locked by a process that has not written its number there",
                remedy="find it with: fuser -v " + str(path),
            )
        time.sleep(0.01)  # a guard writes its number right after it has locked the file, and takes it out at its end


def _look(path: Path) -> tuple[bool, int]:
    """Whether the lock is held, and by which process as the file says."""
    try:
        fd = files.opened(path)
    except FileNotFoundError:
        return False, 0
    except OSError as error:
        remedy = "run it as root" if isinstance(error, PermissionError) else "see --run-dir"
        raise MissingError(
            f"cannot tell whether a guard runs: {path}: {error.strerror or error}", remedy=remedy
        ) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True, _pid(os.pread(fd, 32, 0))
    except OSError as error:
        raise MissingError(f"cannot tell whether a guard runs: {path}: {error}", remedy="see --run-dir") from error
    else:
        return False, 0
    finally:
        os.close(fd)


def _has_open(pid: int, path: Path) -> bool:
    """Whether that process has the file open: then the number is its, here and now."""
    try:
        wanted = path.stat()
        found = list(Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError as error:
        raise MissingError(
            f"cannot tell whether process {pid} is the guard that holds {path}; nothing was removed",
            remedy="run it as root, with CAP_SYS_PTRACE",
        ) from error
    except OSError:
        return False
    for each in found:
        try:
            one = each.stat()
        except OSError:  # closed meanwhile
            continue
        if (one.st_dev, one.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


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
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return pid  # it has ended by itself
    except OSError as error:
        raise HitlessError(f"cannot stop the guard (pid {pid}): {error.strerror}") from error
    try:
        if _has_open(pid, path):  # still: the pid was not given to another process meanwhile
            signal.pidfd_send_signal(process, signal.SIGTERM)
    except ProcessLookupError:
        pass  # it has ended by itself
    except OSError as error:
        raise HitlessError(f"cannot stop the guard (pid {pid}): {error.strerror}") from error
    finally:
        os.close(process)
    deadline = time.monotonic() + _PATIENCE
    while holder(path) == pid:
        if time.monotonic() > deadline:
            raise HitlessError(f"the guard (pid {pid}) does not end; nothing was removed")
        time.sleep(0.02)
    return pid
