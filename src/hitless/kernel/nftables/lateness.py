"""Whether a thread was there when something came: a stamp is worth no more than that.

Problem: a commit is stamped when the receiving thread runs, and nothing in the event says when it was made. The thread
may have waited for a core, for the interpreter, or been stopped with its process or its machine. Promise:
``Lateness.late`` bounds by how much what is received now may be older: all the time since the queue was last seen
empty, less that for which the kernel says that the thread slept undisturbed. Both words are the kernel's, because the
thread cannot know when it should have run: ppoll(2) tells how long it really waited, and the thread's schedstat how
long it then waited for a core. It is never more than the time since the queue was seen empty. What it cannot know: that
the machine's host did not run an idle core, for less than a tick. Next stage: ``mirror``.
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

_TICK = 200_000_000  # how long a thread sleeps at most; each wake-up costs a tenth of a millisecond
_SECOND = 1_000_000_000
_PPOLL = {"x86_64": 271, "aarch64": 73}
"""Its number; the C library's function of this name keeps to itself what the kernel says of the time that is left."""


class _Pollfd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


class Lateness:
    """For the thread that makes it; ``since``: when (monotonic nanoseconds) nothing was there yet.

    ``watched`` false: only wait, and say nothing of lateness.
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
        """Give back what it holds; not the descriptors that it waits for."""
        if self._delay is not None:
            self._delay.close()

    def late(self) -> int:
        """By how much (nanoseconds, at most) what is received now may have happened earlier."""
        return 0 if self._delay is None else time.monotonic_ns() - self._since

    def wait(self) -> list[int]:
        """The descriptors that can be read, when there is one. To be called when nothing was left to receive."""
        if self._delay is None:
            return [fd for fd, _ in self._poll.poll()]
        while True:
            began, waited = time.monotonic_ns(), self._delay.read()
            if ready := self._poll.poll(0):
                return [fd for fd, _ in ready]  # perhaps it was there before ``began``
            slept = self._sleep()
            if ready := self._poll.poll(0):
                # the wait for a core may be part of the sleep as it is told, and last longer than that
                self._since = began + max(0, slept - (self._delay.read() - waited))
                return [fd for fd, _ in ready]

    def _sleep(self) -> int:
        """Wait for a tick at most; how long (nanoseconds), as the kernel tells, without stops and what came after."""
        if self._number:
            self._left.seconds, self._left.nanoseconds = divmod(_TICK, _SECOND)
            fds, left = ctypes.addressof(self._fds), ctypes.addressof(self._left)
            if self._syscall(self._number, fds, len(self._fds), left, None, 8) >= 0:
                return _TICK - int(self._left.seconds) * _SECOND - int(self._left.nanoseconds)
            if ctypes.get_errno() == errno.EINTR:  # a signal's handler ran, for who knows how long
                return 0
            self._number = 0  # where programs may not call it, nobody tells but the clock
        begun = time.monotonic_ns()
        self._poll.poll(_TICK // 1_000_000)
        return min(_TICK, time.monotonic_ns() - begun)
