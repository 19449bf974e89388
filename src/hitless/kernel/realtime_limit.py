"""A limit on the processor time that this process uses at real-time priority.

Problem: a real-time thread that has too much to do (a flood at the far end, ten thousand rule changes a second) runs
before everything else on a core, also before the node's agent and shells; the kernel's own limit is 95 % of each core.
Promise: the real-time threads of this process together get at most ``SHARE`` of one core. A thread of higher priority
measures them every ``_EVERY`` seconds; if they used more during the last ``_WINDOW`` measurements, all become ordinary
threads with a low nice value until they need less than half of it; ``given_back`` counts how often. RLIMIT_RTTIME
protects against defects, of this module too: a thread that runs for ``_WALL`` seconds at real-time priority without
waiting once is killed by the kernel with its process.

A second problem: the kernel leaves a real-time thread on a core where a long system call cannot be interrupted (a
commit of 250,000 rules: 1.9 s; PREEMPT_NONE), while it moves ordinary threads elsewhere. An ordinary thread finds such
threads and moves them to another core. Touches only threads of this process.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["NICE", "SHARE", "RealtimeLimit"]

SHARE = 0.5
NICE = -15
_EVERY = 0.25
_WINDOW = 4  # measurements: a burst of a second may take a whole core
_WALL = 20
_ABOVE = 10  # the real-time level of the measuring thread; the measured ones have 1 and 2


def _thread_clock(thread: int) -> int:
    """The clock id of a thread's processor time: what pthread_getcpuclockid(3) makes of it, but for a thread that may
    have ended."""
    return ~thread << 3 | 0b110


class RealtimeLimit:
    """The real-time threads of a process; one for the whole process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._levels: dict[int, int] = {}
        self._used: dict[int, int] = {}
        self._looks: deque[tuple[float, int]] = deque(maxlen=_WINDOW + 1)
        self._spent = 0
        self._resting = False  # they are ordinary threads, until they need less
        self._watched = False
        self._watcher = 0
        self.given_back = 0
        """How often they used more than their share."""

    def join(self, level: int) -> bool:
        """Make the calling thread a real-time one; ``False``: it is an ordinary one with a good nice value until there
        is room. Raises ``OSError`` where that is not allowed."""
        thread = threading.get_native_id()
        with self._lock:
            if not self._resting:
                _urgent(thread, level)
            else:
                _ordinary(thread)
            self._levels[thread] = level
            if not self._watched:
                self._watched = True
                with contextlib.suppress(OSError, ValueError):
                    _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
                    wall = _WALL * 1_000_000
                    if hard == resource.RLIM_INFINITY or hard > wall:
                        resource.setrlimit(resource.RLIMIT_RTTIME, (wall, wall))
                threading.Thread(target=self._watch, name="ration", daemon=True).start()
                threading.Thread(target=self._fetch, name="fetch", daemon=True).start()
            return not self._resting

    def leave(self) -> None:
        """The calling thread no longer counts as one of them; its priority is not changed."""
        with self._lock:
            self._levels.pop(threading.get_native_id(), None)

    def _watch(self) -> None:
        self._watcher = threading.get_native_id()
        with contextlib.suppress(OSError):
            _urgent(self._watcher, _ABOVE)
        wait = threading.Event()
        while True:
            wait.wait(_EVERY)
            with self._lock:
                try:
                    self._look(time.monotonic())
                except Exception:  # noqa: BLE001 - the end of a thread: without measurement no thread stays urgent
                    self._resting = True
                    self.given_back += 1
                    self._give(_ordinary)
                    return

    def _fetch(self) -> None:
        """Move real-time threads from cores that cannot serve them, as an ordinary thread, which itself is moved."""
        wait = threading.Event()
        with contextlib.suppress(OSError):
            _ordinary(threading.get_native_id())
        seen: dict[int, int] = {}
        while True:
            wait.wait(_EVERY)
            threads = [*self._levels, self._watcher]  # without the lock: a thread that waits may be the one that has it
            seen = {thread: ran for thread in threads if (ran := _fetched(thread, seen.get(thread, -1))) >= 0}

    def _look(self, now: float) -> None:
        for thread in list(self._levels):
            try:
                used = time.clock_gettime_ns(_thread_clock(thread))
            except OSError:  # it has ended
                self._levels.pop(thread)
                self._used.pop(thread, None)
                continue
            self._spent += used - self._used.get(thread, used)
            self._used[thread] = used
        self._looks.append((now, self._spent))
        (since, before), (until, after) = self._looks[0], self._looks[-1]
        if len(self._looks) <= _WINDOW or until <= since:
            return
        share = (after - before) / 1e9 / (until - since)
        if not self._resting and share > SHARE:
            self._resting = True
            self.given_back += 1
            self._give(_ordinary)
        elif self._resting and share < SHARE / 2:
            self._resting = False
            self._give(lambda thread: _urgent(thread, self._levels[thread]))

    def _give(self, what: Callable[[int], None]) -> None:
        for thread in self._levels:
            with contextlib.suppress(OSError):
                what(thread)


def _fetched(thread: int, before: int) -> int:
    """Its processor time; where it is ready and did not run since ``before``, it is moved to another of its cores. -1:
    it has ended."""
    try:
        ran = time.clock_gettime_ns(_thread_clock(thread))
        if ran == before:
            state, core = _standing(thread)
            cores = os.sched_getaffinity(thread)
            if state == "R" and cores - {core}:
                os.sched_setaffinity(thread, cores - {core})
                os.sched_setaffinity(thread, cores)
        return ran
    except (OSError, ValueError, IndexError):
        return -1


def _standing(thread: int) -> tuple[str, int]:
    """Its state and the core that it is or was on (proc_pid_stat(5))."""
    with open(f"/proc/self/task/{thread}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
        fields = file.read().rpartition(") ")[2].split()
    return fields[0], int(fields[36])


def _urgent(thread: int, level: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(level))


def _ordinary(thread: int) -> None:
    os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
    os.setpriority(os.PRIO_PROCESS, thread, NICE)
