"""Which files of a directory changed: by inotify, and by the directory's time for what inotify does not report.

Problem: to read thousands of files again for the change of one costs more than the rest of a daemon. inotify does not
report changes by other machines to a shared file system, loses events when its queue is full, and follows the directory
and not its path. Promise: ``changed`` names the files that this machine changed since the last call, or reports that
all have to be read: the first time, after lost events, when another directory is at the path, when its time changed
without an event, and at intervals. Without inotify (its limits are per user) only the directory's time is used. For one
thread; ``wake``, which ends ``wait``, may be called from any.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

__all__ = ["Changed", "FolderWatch"]

# <linux/inotify.h>
_CLOSE_WRITE, _FROM, _TO, _CREATE, _DELETE = 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ONLYDIR = 0x1000000
_FILES = _CLOSE_WRITE | _FROM | _TO | _CREATE | _DELETE
_LOST = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _OVERFLOW | _IGNORED
_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, length of the name that follows
_ROOM = 1 << 16

_EVERY = {True: 0.25, False: 0.1}  # seconds between checks of the directory's time, with inotify and without
_WHOLE = {True: 30.0, False: 5.0}  # seconds between readings of everything: a file may be written in place
_SHARE = 400  # and such readings take a 400th of the time at most
_GAP = 0.002  # seconds: what comes together is read together
_LATE = 0.01  # seconds for the event of a change that the directory's time shows already
_SETTLED = 0.1  # seconds: a directory's time is as coarse as the kernel's clock; two changes may have the same


@dataclass(frozen=True, slots=True)
class Changed:
    """``names`` of files in the directory; ``whole``: any of them may have changed."""

    names: frozenset[str] = frozenset()
    whole: bool = False


class FolderWatch:
    """A context manager. A missing directory is made; ``changed`` raises ``OSError`` where it cannot be."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.monotonic, inotify: bool = True) -> None:
        self._folder, self._clock = folder, clock
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify = int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)) if inotify else -1
        self._watch = -1
        self._place = (0, 0)  # device and inode of the directory that is watched
        self._time = -1
        self._due = 0.0  # when everything is read again
        self._lock = threading.Lock()
        self._closed = False
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        for fd in (self._bell, self._inotify):
            if fd >= 0:
                self._poll.register(fd, select.POLLIN)

    def __enter__(self) -> FolderWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors; may be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.close(self._bell)
            if self._inotify >= 0:
                os.close(self._inotify)

    def wake(self) -> None:
        """End ``wait``: it counts also when it is called before."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._bell, 1)

    def wait(self, seconds: float | None = None) -> None:
        """Until files change, a check is due, or ``wake``; ``seconds``: until these are over, or ``wake``."""
        if seconds is not None:
            select.select([self._bell], [], [], seconds)
        elif self._poll.poll(_EVERY[self._watch >= 0] * 1000):
            time.sleep(_GAP)
        try:
            os.eventfd_read(self._bell)
        except BlockingIOError:
            return

    def again(self) -> None:
        """All files have to be read again."""
        self._due = 0.0

    def took(self, seconds: float) -> None:
        """All files were read, which took ``seconds``."""
        self._due = self._clock() + max(_WHOLE[self._watch >= 0], seconds * _SHARE)

    def changed(self) -> Changed:
        """What has changed since the last call."""
        try:
            found = self._folder.stat()
        except FileNotFoundError:
            self._folder.mkdir(parents=True, exist_ok=True)
            found = self._folder.stat()
        place = found.st_dev, found.st_ino
        another = place != self._place
        if another or self._watch < 0:
            self._attach()
            self._place = place
        names, lost = self._events()
        moved = found.st_mtime_ns != self._time
        if moved and not names and not another and self._watch >= 0:
            select.select([self._inotify], [], [], _LATE)
            names, lost = self._events()
        self._time = found.st_mtime_ns
        if moved and self._watch < 0 and abs(time.time_ns() - self._time) < _SETTLED * 1e9:
            self._time = -1
        if lost:
            self._place = (0, 0)
        return Changed(names, another or lost or (moved and not names) or self._clock() >= self._due)

    def _attach(self) -> None:
        if self._inotify < 0:
            return
        if self._watch >= 0:
            self._libc.inotify_rm_watch(self._inotify, self._watch)
        mask = _FILES | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
        self._watch = int(self._libc.inotify_add_watch(self._inotify, os.fsencode(self._folder), mask))

    def _events(self) -> tuple[frozenset[str], bool]:
        """The names in inotify's events, and whether events were lost."""
        names: set[str] = set()
        lost = False
        while self._inotify >= 0:
            try:
                data = os.read(self._inotify, _ROOM)
            except BlockingIOError:
                break
            at = 0
            while at + _EVENT.size <= len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, at)
                name = data[at + _EVENT.size : at + _EVENT.size + length].split(b"\0", 1)[0]
                at += _EVENT.size + length
                if mask & _OVERFLOW:
                    lost = True
                elif watch == self._watch:
                    lost = lost or bool(mask & _LOST)
                    if name:
                        names.add(os.fsdecode(name))
        return frozenset(names), lost
