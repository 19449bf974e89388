"""How late was the thread that stamped an event?

Problem: a commit is stamped when the receiving thread runs, and the event does not say when it was made. The thread may
have waited for a core or for the interpreter, or its process or machine was stopped. Promise: ``Lateness.late`` bounds
how much older the received events may be: the time since the queue was last seen empty, less the time that the thread
certainly slept undisturbed. Both parts come from the kernel, because the thread cannot know when it should have run:
ppoll(2) reports how long it really slept, and the thread's schedstat how long it then waited for a core. It cannot
detect that the machine's host did not run an idle core, for less than one tick. Next stage: ``mirror``.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import select
import time
from collections.abc import Sequence

from hitless.kernel.cpu_priority import RunDelay

__all__ = ["Lateness"]

_TICK = 200_000_000  # the longest sleep; each wake-up costs a tenth of a millisecond
_SECOND = 1_000_000_000
_PPOLL = {"x86_64": 271, "aarch64": 73}
"""Its system call number: the C library's ppoll() does not report the remaining time."""


class _Pollfd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


class Lateness:
    """To be used by the thread that creates it. ``since``: when (monotonic nanoseconds) the queue was known to be
    empty.

    ``watched`` false: only wait, without measuring.
    """

    def __init__(self, fds: Sequence[int], since: int, *, watched: bool) -> None:
        self._poll = select.poll()
        for fd in fds:
            self._poll.register(fd, select.POLLIN)
        self._since = since
        self._delay = RunDelay() if watched else None
        self._fds = (_Pollfd * len(fds))(*[_Pollfd(fd, select.POLLIN) for fd in fds])
        self._left = _Timespec()
        self._number = _PPOLL.get(platform.machine(), 0) if ctypes.sizeof(ctypes.c_void_p) == 8 else 0
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._syscall.argtypes = (
            *(ctypes.c_long, ctypes.c_void_p, ctypes.c_ulong),
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_ulong),
        )

    def close(self) -> None:
        """Release its resources; the watched descriptors stay open."""
        if self._delay is not None:
            self._delay.close()

    def late(self) -> int:
        """By how much (nanoseconds, at most) events received now may be older."""
        return 0 if self._delay is None else time.monotonic_ns() - self._since

    def wait(self) -> list[int]:
        """Wait for a readable descriptor, and return those that are readable. To be called when nothing was left to
        receive."""
        if self._delay is None:
            return [fd for fd, _ in self._poll.poll()]
        while True:
            began, waited = time.monotonic_ns(), self._delay.read()
            if ready := self._poll.poll(0):
                return [fd for fd, _ in ready]  # it may have been readable before ``began``
            slept = self._sleep()
            if ready := self._poll.poll(0):
                # the wait for a core may be included in the reported sleep, and may be longer
                self._since = began + max(0, slept - (self._delay.read() - waited))
                return [fd for fd, _ in ready]

    def _sleep(self) -> int:
        """Wait for one tick at most; returns how long it slept (nanoseconds) according to the kernel, without stops."""
        if self._number:
            self._left.seconds, self._left.nanoseconds = divmod(_TICK, _SECOND)
            fds, left = ctypes.addressof(self._fds), ctypes.addressof(self._left)
            if self._syscall(self._number, fds, len(self._fds), left, None, 8) >= 0:
                return _TICK - int(self._left.seconds) * _SECOND - int(self._left.nanoseconds)
            if ctypes.get_errno() == errno.EINTR:  # a signal handler ran, for an unknown time
                return 0
            self._number = 0  # the system call is not allowed here: only the clock is left
        begun = time.monotonic_ns()
        self._poll.poll(_TICK // 1_000_000)
        return min(_TICK, time.monotonic_ns() - begun)
