"""Who uses the xtables lock, and when: the hint that makes polling cheap, and the writer's name.

Problem: iptables-legacy tells nobody what it changes, but every one of its programs, kube-proxy and Felix open one
lock file first (/run/xtables.lock, or XTABLES_LOCKFILE). Promise: ``LockWatch`` has a descriptor to wait on that wakes
up at each use of the lock, and knows the processes that have it open, in the order in which they came: by fanotify
where that is allowed (it names the process), else by inotify, with the holder read from /proc/locks. Without either
it still works and knows nothing. Never takes, creates or delays the lock. Next stage: ``polling``.
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
"""Where iptables-legacy keeps its lock when XTABLES_LOCKFILE does not say otherwise."""

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
_WRITING_WORDS = (
    *("--append", "--delete", "--insert", "--replace", "--flush", "--delete-chain", "--new-chain", "--rename-chain"),
    *("--policy", "--zero", "--set-counters", "--modprobe"),
)

_MOST_ARGUMENTS = 300
_KEEP = 8
_YOUNG, _FEW = 8, 6


class Holder(NamedTuple):
    """A process that uses the lock. (``model.events.Writer`` says the same, and costs a daemon 60 ms to import.)"""

    pid: int
    comm: str
    argv: str = ""
    parent: str = ""


@dataclass(frozen=True, slots=True)
class _Use:
    """A process that opened the lock file; ``closed`` is 0 while it has it open."""

    writer: Holder
    opened: int
    closed: int = 0


def lock_paths(namespace: Namespace) -> tuple[str, ...]:
    """The lock files that writers in this namespace use: the one of its mount namespace, as seen from here."""
    name = os.environ.get("XTABLES_LOCKFILE", LOCK)
    return (f"/proc/{namespace.pid}/root{name}",) if namespace.pid is not None else (name,)


def describe_process(pid: int) -> Holder:
    """The command of a process and its parent's name, as far as /proc still has them: it may live for a millisecond
    only, so no detours. One that has ended and was not waited for yet has lost its arguments, but not its name."""
    argv = _slurp(f"/proc/{pid}/cmdline").rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
    head, _, rest = _slurp(f"/proc/{pid}/stat").rpartition(b") ")  # "pid (comm) state parent …"
    comm, words = head.partition(b" (")[2].decode("utf-8", "replace"), rest.split()
    parent = _slurp(f"/proc/{int(words[1])}/comm").rstrip(b"\n").decode("utf-8", "replace") if len(words) > 1 else ""
    return Holder(pid, comm or argv.partition(" ")[0].rpartition("/")[2][:15], argv[:_MOST_ARGUMENTS], parent)


def only_reads(argv: str) -> bool:
    """Whether a command line is one of iptables that changes nothing for certain: a check, a listing, a save.

    Agents check their rules every few seconds. Whatever could be a writing option, also as part of a comment or cut
    short as getopt allows, counts as one; so does a command line that was not read whole.
    """
    words = argv.split(" ")
    program = words[0].rpartition("/")[2]
    if not program.startswith(("iptables", "ip6tables")) or len(argv) >= _MOST_ARGUMENTS:
        return False
    if program.endswith("-save"):
        return True
    if any(word[:2] in _WRITING and not word.startswith("--") for word in words[1:]):
        return False
    if any(len(word) > 2 and any(one.startswith(word) for one in _WRITING_WORDS) for word in words[1:]):
        return False
    return any(word in _READING for word in words[1:])


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
    """The process that holds a flock on one of the files, by /proc/locks; 0 when none does or it cannot be seen."""
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
        words = line.split()  # 1: FLOCK ADVISORY WRITE 1234 00:1a:5 0 EOF, and "1: -> FLOCK …" for one that waits
        if len(words) > 5 and words[1] == "FLOCK" and words[5] in inodes:
            return whole_of(words[4]) or 0
    return 0


class LockWatch:
    """Watches lock files; ``fds`` become readable when one of them is opened, closed or made."""

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
        """What to wait on."""
        return tuple(fd for fd in (self._fanotify, self._inotify) if fd >= 0)

    @property
    def names_processes(self) -> bool:
        """Whether the kernel tells which process opens the lock."""
        return self._fanotify >= 0

    def used_since(self, now: int) -> int:
        """For how long (nanoseconds) the last process to come has had the lock file open; -1 when none has it open."""
        open_ = [use.opened for use in self._uses if not use.closed]
        return max(0, now - max(open_)) if open_ else -1

    def close(self) -> None:
        """Close the descriptors; may be called again."""
        for fd in self.fds:
            os.close(fd)
        self._fanotify = self._inotify = -1

    def _attach(self) -> None:
        """Watch the files that exist, and the folders of all for files that are made."""
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
            os.close(self._fanotify)  # allowed to make one but not to mark: an ordinary user, or a seccomp filter
            self._fanotify = -1
        if self._inotify < 0:
            return False
        watch = int(self._libc.inotify_add_watch(self._inotify, path.encode(), _IN_OPEN | _IN_CLOSE))
        if watch >= 0:
            self._files.add(watch)
        return watch >= 0

    def drain(self, now: int) -> tuple[bool, bool]:
        """Take in what happened; returns whether the lock was opened, and whether somebody closed it who may have
        written (a check or a listing by a program that is known is nothing)."""
        opened, closed = self._drain_fanotify(now)
        touched = self._drain_inotify()
        if touched:
            self.ask(now)
        return opened or touched, closed or touched

    def ask(self, now: int) -> None:
        """Without fanotify: look for the one who has the lock just now. Worth it often while the lock is in use."""
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
        """The youngest of the last processes to begin that has a lock file open: agents run a program for each change,
        and it ends before the list of locks can be read."""
        words = _slurp("/proc/loadavg").split()
        youngest = int(words[4]) if len(words) > 4 else 0
        return next((pid for pid in range(youngest, max(0, youngest - _YOUNG), -1) if self._has_open(pid)), 0)

    def _has_open(self, pid: int) -> bool:
        for number in range(3, 3 + _FEW):  # behind the three that every program has; a program for a change has few
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
                # one event may stand for a process's closing and opening, in whatever order they were: then it is asked
                if not (mask & _FAN_OPEN and self._has_open(pid)):
                    self._let_go(pid, now)
        return opened, closed

    def _let_go(self, pid: int, now: int) -> None:
        """A process had the lock until now: all its open uses end, or, where it was thought to be gone, the last."""
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
        """Who changed a table between ``since`` and now, as far as can be told.

        A change is made by the lock's holder. Of those that had the file open then: the only one; else the one that
        /proc/locks says holds it; else the one that closed it last, or came first.
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
