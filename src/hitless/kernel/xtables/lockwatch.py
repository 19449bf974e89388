"""Which processes use the xtables lock, and when: a hint that makes polling cheap, and the name of the writer.

Problem: iptables-legacy announces no changes, but all of its programs, kube-proxy and Felix open one lock file first
(/run/xtables.lock, or XTABLES_LOCKFILE). Promise: ``LockWatch`` has a descriptor to wait on that becomes readable at
each use of the lock, and knows the processes that have it open, in order of arrival: by fanotify where that is allowed
(it names the process), else by inotify, with the holder read from /proc/locks. Without either it works, and knows
nothing. It never takes, creates or delays the lock. Next stage: ``polling``.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hitless.kernel.namespaces import Namespace
from hitless.model.reading import whole_of

__all__ = ["LOCK", "Holder", "LockWatch", "describe_process", "lock_holder", "lock_paths", "only_reads"]

LOCK = "/run/xtables.lock"
"""iptables-legacy's lock file, unless XTABLES_LOCKFILE names another."""

# <linux/fanotify.h>
_FAN_CLOEXEC, _FAN_NONBLOCK, _FAN_MARK_ADD = 0x1, 0x2, 0x1
_FAN_CLOSE, _FAN_OPEN = 0x18, 0x20
_FAN_EVENT = struct.Struct("=IBBHQii")  # length, version, reserved, metadata length, mask, descriptor, process
# <linux/inotify.h>
_IN_CLOSE, _IN_OPEN, _IN_MOVED_TO, _IN_CREATE = 0x18, 0x20, 0x80, 0x100
_IN_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, length of the name behind it
_AT_FDCWD = -100

_READING = ("-C", "-L", "-S", "--check", "--list", "--list-rules")
_WRITING = ("-A", "-D", "-I", "-R", "-F", "-X", "-N", "-E", "-P", "-Z")
_WRITING_OPTIONS = (
    *("--append", "--delete", "--insert", "--replace", "--flush", "--delete-chain", "--new-chain", "--rename-chain"),
    *("--policy", "--zero", "--set-counters", "--modprobe"),
)

_MOST_ARGUMENTS = 300
_KEEP = 8
_YOUNG, _FEW = 8, 6


class Holder(NamedTuple):
    """A process that uses the lock. (``model.events.Writer`` has the same fields, but importing it costs a daemon 60
    ms.)"""

    pid: int
    comm: str
    argv: str = ""
    parent: str = ""


@dataclass(frozen=True, slots=True)
class _Use:
    """A process that opened the lock file; ``closed`` is 0 while it is open."""

    writer: Holder
    opened: int
    closed: int = 0


def lock_paths(namespace: Namespace) -> tuple[str, ...]:
    """The lock files that writers in this namespace use: the one of its mount namespace, as seen from here."""
    name = os.environ.get("XTABLES_LOCKFILE", LOCK)
    return (f"/proc/{namespace.pid}/root{name}",) if namespace.pid is not None else (name,)


def describe_process(pid: int) -> Holder:
    """The command of a process and its parent's name, as far as /proc still has them; quick, because it may live for a
    millisecond only. A process that has ended and was not waited for has lost its arguments, but not its name."""
    argv = _slurp(f"/proc/{pid}/cmdline").rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
    head, _, rest = _slurp(f"/proc/{pid}/stat").rpartition(b") ")  # "pid (comm) state parent …"
    comm, fields = head.partition(b" (")[2].decode("utf-8", "replace"), rest.split()
    parent = _slurp(f"/proc/{int(fields[1])}/comm").rstrip(b"\n").decode("utf-8", "replace") if len(fields) > 1 else ""
    return Holder(pid, comm or argv.partition(" ")[0].rpartition("/")[2][:15], argv[:_MOST_ARGUMENTS], parent)


def only_reads(argv: str) -> bool:
    """Whether a command line is certainly one of iptables that changes nothing: a check, a listing, a save.

    Agents check their rules every few seconds. Whatever could be a writing option, also as part of a comment or
    abbreviated as getopt allows, counts as writing; so does a command line that was not read completely.
    """
    arguments = argv.split(" ")
    program = arguments[0].rpartition("/")[2]
    if not program.startswith(("iptables", "ip6tables")) or len(argv) >= _MOST_ARGUMENTS:
        return False
    if program.endswith("-save"):
        return True
    if any(argument[:2] in _WRITING and not argument.startswith("--") for argument in arguments[1:]):
        return False
    if any(
        len(argument) > 2 and any(one.startswith(argument) for one in _WRITING_OPTIONS) for argument in arguments[1:]
    ):
        return False
    return any(argument in _READING for argument in arguments[1:])


def _slurp(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""
    finally:
        os.close(fd)


def lock_holder(paths: Sequence[str]) -> int:
    """The process that holds a flock on one of the files, by /proc/locks; 0 if there is none or it is not visible."""
    inodes = set()
    for path in paths:
        try:
            found = Path(path).stat()
        except OSError:
            continue
        inodes.add(f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}")
    if not inodes:
        return 0
    try:
        lines = Path("/proc/locks").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        fields = line.split()  # 1: FLOCK ADVISORY WRITE 1234 00:1a:5 0 EOF, and "1: -> FLOCK …" for one that waits
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] in inodes:
            return whole_of(fields[4]) or 0
    return 0


class LockWatch:
    """Watches lock files; ``fds`` become readable when one of them is opened, closed or created."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.fanotify_mark.argtypes = (
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint64,
            ctypes.c_int,
            ctypes.c_char_p,
        )
        self._fanotify = int(self._libc.fanotify_init(_FAN_CLOEXEC | _FAN_NONBLOCK, os.O_RDONLY | os.O_CLOEXEC))
        self._inotify = int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._files: set[int] = set()  # inotify watches that are lock files, the others are their folders
        self._marked: set[tuple[int, int]] = set()
        self._uses: list[_Use] = []
        self.watched = False
        self._attach()

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors to wait on."""
        return tuple(fd for fd in (self._fanotify, self._inotify) if fd >= 0)

    @property
    def names_processes(self) -> bool:
        """Whether the kernel shows which process opens the lock."""
        return self._fanotify >= 0

    def used_since(self, now: int) -> int:
        """For how long (nanoseconds) the latest process has had the lock file open; -1 when none has."""
        open_ = [use.opened for use in self._uses if not use.closed]
        return max(0, now - max(open_)) if open_ else -1

    def close(self) -> None:
        """Close the descriptors; may be called again."""
        for fd in self.fds:
            os.close(fd)
        self._fanotify = self._inotify = -1

    def _attach(self) -> None:
        """Watch the files that exist, and the folders of all for files that are created."""
        for path in self.paths:
            folder = str(Path(path).parent)
            if self._inotify >= 0:
                self._libc.inotify_add_watch(self._inotify, folder.encode(), _IN_CREATE | _IN_MOVED_TO)
            try:
                found = Path(path).stat()
            except OSError:
                continue
            if (found.st_dev, found.st_ino) in self._marked:
                self.watched = True
            elif self._attach_file(path):
                self._marked.add((found.st_dev, found.st_ino))
                self.watched = True

    def _attach_file(self, path: str) -> bool:
        if self._fanotify >= 0:
            mask = _FAN_OPEN | _FAN_CLOSE
            if self._libc.fanotify_mark(self._fanotify, _FAN_MARK_ADD, mask, _AT_FDCWD, path.encode()) == 0:
                return True
            os.close(self._fanotify)  # it can be created but not used: an ordinary user, or a seccomp filter
            self._fanotify = -1
        if self._inotify < 0:
            return False
        watch = int(self._libc.inotify_add_watch(self._inotify, path.encode(), _IN_OPEN | _IN_CLOSE))
        if watch >= 0:
            self._files.add(watch)
        return watch >= 0

    def drain(self, now: int) -> tuple[bool, bool]:
        """Process the pending events; returns whether the lock was opened, and whether a process closed it that may
        have written (not a check or listing by a known program)."""
        opened, closed = self._drain_fanotify(now)
        touched = self._drain_inotify()
        if touched:
            self.ask(now)
        return opened or touched, closed or touched

    def ask(self, now: int) -> None:
        """Without fanotify: find the current user of the lock. To be called often while the lock is in use."""
        if self._fanotify >= 0:
            return
        last = self._uses[-1] if self._uses else None
        if last is not None and not last.closed:
            if self._has_open(last.writer.pid):
                return
            self._uses[-1] = _Use(last.writer, last.opened, now)
        pid = lock_holder(self.paths) or self._newcomer()
        if pid and (last is None or last.closed or last.writer.pid != pid):
            self._uses = [*self._uses[-_KEEP:], _Use(describe_process(pid), now)]

    def _newcomer(self) -> int:
        """The youngest of the last processes to start that has a lock file open: agents run a program for each change,
        which may end before the list of locks is read."""
        fields = _slurp("/proc/loadavg").split()
        youngest = int(fields[4]) if len(fields) > 4 else 0
        return next((pid for pid in range(youngest, max(0, youngest - _YOUNG), -1) if self._has_open(pid)), 0)

    def _has_open(self, pid: int) -> bool:
        for number in range(3, 3 + _FEW):  # after the three standard ones; such a program has few
            try:
                found = os.stat(f"/proc/{pid}/fd/{number}")  # noqa: PTH116 - a Path takes as long again
            except OSError:
                continue
            if (found.st_dev, found.st_ino) in self._marked:
                return True
        return False

    def _drain_fanotify(self, now: int) -> tuple[bool, bool]:
        opened = closed = False
        data = _read(self._fanotify)
        at = 0
        while at + _FAN_EVENT.size <= len(data):
            length, _version, _, _, mask, fd, pid = _FAN_EVENT.unpack_from(data, at)
            at += max(length, _FAN_EVENT.size)
            if fd >= 0:
                os.close(fd)
            if mask & _FAN_OPEN:
                opened = True
                self._uses = [*self._uses[-_KEEP:], _Use(describe_process(pid), now)]
            if mask & _FAN_CLOSE:
                closed |= not any(use.writer.pid == pid and only_reads(use.writer.argv) for use in self._uses)
                # one event may merge a process's close and open, in either order: then its descriptors are checked
                if not (mask & _FAN_OPEN and self._has_open(pid)):
                    self._let_go(pid, now)
        return opened, closed

    def _let_go(self, pid: int, now: int) -> None:
        """A process had the lock until now: all its open uses end, or, if none is known to be open, its last one."""
        mine = [number for number, use in enumerate(self._uses) if use.writer.pid == pid]
        ending = {number for number in mine if not self._uses[number].closed} or set(mine[-1:])
        self._uses = [
            _Use(use.writer, use.opened, now) if number in ending else use for number, use in enumerate(self._uses)
        ]

    def _drain_inotify(self) -> bool:
        data = _read(self._inotify)
        at, touched, made = 0, False, False
        names = {os.fsencode(Path(path).name) for path in self.paths}
        while at + _IN_EVENT.size <= len(data):
            watch, _mask, _cookie, length = _IN_EVENT.unpack_from(data, at)
            name = data[at + _IN_EVENT.size : at + _IN_EVENT.size + length].rstrip(b"\0")
            at += _IN_EVENT.size + length
            touched |= watch in self._files
            made |= name in names
        if made:
            self._attach()
        return touched or made

    def writer(self, since: int) -> Holder | None:
        """The process that changed a table between ``since`` and now, as far as it is known.

        A change is made by the lock's holder. Of the processes that had the file open then: the only one; else the
        holder by /proc/locks; else the one that closed it last, or opened it first.
        """
        candidates = [use for use in self._uses if not use.closed or use.closed >= since]
        if len(candidates) > 1:
            finished = [use for use in candidates if use.closed]
            holder = 0 if finished else lock_holder(self.paths)
            candidates = [use for use in candidates if use.writer.pid == holder] or finished[-1:] or candidates[:1]
        return candidates[0].writer if candidates else None


def _read(fd: int) -> bytes:
    if fd < 0:
        return b""
    try:
        return os.read(fd, 16384)
    except BlockingIOError:
        return b""
