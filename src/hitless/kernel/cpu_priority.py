"""The priority that the calling thread gets from the scheduler, so that a measuring thread runs in time.

Problem: on a kernel without preemption a thread that wakes up for a millisecond's work waits for others' time slices:
with two spinning processes per core it was late by 51 ms at the 99th percentile (111 ms at most), with nice -15 by 12
ms, with SCHED_RR by 1.2 ms. A prober that is late measures itself, and a commit is stamped when our thread runs.
Promise: ``hasten`` gives the calling thread the best priority that this process is allowed to have and returns which;
``relax`` gives it back; children do not inherit it. ``favour`` is milder, for daemons, and children inherit it.
``RunDelay`` and ``stolen`` measure how late the thread ran in spite of it. Threads of high priority work in small
pieces and sleep; one that does not becomes an ordinary thread within about a second
(``hitless.kernel.realtime_limit``), and ``given_back`` reports it. Never touches another process.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Literal

from hitless.kernel.realtime_limit import NICE, SHARE, RealtimeLimit

__all__ = ["RunDelay", "Urgency", "favour", "given_back", "hasten", "relax", "stolen"]

Urgency = Literal["realtime", "nice", "normal"]

_FAVOURED = -10
_ration = RealtimeLimit()  # a process has one, as it has one pid: its threads share what they may use


def hasten(level: int = 1) -> Urgency:
    """Run the calling thread before ordinary ones (and before urgent ones of a lower ``level``); returns how far the
    kernel agreed."""
    with contextlib.suppress(OSError):  # no CAP_SYS_NICE, or a control group without real-time time
        return "realtime" if _ration.join(level) else "nice"
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        return "nice"
    return "normal"


def relax() -> None:
    """Make the calling thread an ordinary one again."""
    _ration.leave()
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 0)


def favour() -> Urgency:
    """Put the calling thread, and the threads and programs that it starts from now on, before ordinary ones.

    For daemons that repair what other programs break: on a busy node each program that they run would wait for its
    turn. Not real-time, because these programs may run for a second.
    """
    with contextlib.suppress(OSError):  # no CAP_SYS_NICE
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _FAVOURED)
        return "nice"
    return "normal"


def given_back() -> str:
    """That this process's urgent threads were made ordinary ones because they used too much; empty: they were not."""
    text = f"real-time priority was given back: more than {SHARE:.0%} of a core was used, so that this tool may be late"
    return text if _ration.given_back else ""


class RunDelay:
    """How long the thread that makes it has waited for a core, as the kernel counts it (proc/thread-self/schedstat)."""

    def __init__(self) -> None:
        self._fd = -1
        with contextlib.suppress(OSError):  # a kernel without CONFIG_SCHED_INFO
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> int:
        """Nanoseconds since the thread began, from any thread; always 0 where the kernel does not count."""
        return int(os.pread(self._fd, 64, 0).split()[1]) if self._fd >= 0 else 0

    def close(self) -> None:
        """Give back the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def stolen() -> int:
    """How long (nanoseconds since boot, all cores together) the hypervisor kept this machine's cores from running; 0
    where that is not reported."""
    try:
        with Path("/proc/stat").open(encoding="ascii") as file:
            fields = file.readline().split()  # cpu user nice system idle iowait irq softirq steal … (proc_stat(5))
        return int(fields[8]) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError, ValueError):
        return 0
