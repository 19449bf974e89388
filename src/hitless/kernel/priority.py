"""Scheduling: being on time although the machine is busy.

Problem: a commit is stamped when our thread runs, and on a busy node that may be milliseconds later than the commit.
Promise: ``hasten`` gives the calling thread a real-time priority (the lowest that is enough), else a better nice value,
and says which it got; ``relax`` gives it back. Threads that use this work in small pieces and sleep; the kernel's own
limit (a share of every second stays for ordinary work) holds in any case. What it never does: touch other threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Literal

__all__ = ["Urgency", "hasten", "relax"]

Urgency = Literal["realtime", "nice", "normal"]
_NICE = -15


def hasten(level: int = 1) -> Urgency:
    """Make the calling thread urgent; among urgent threads the higher ``level`` goes first."""
    with contextlib.suppress(OSError):  # needs CAP_SYS_NICE, and a cgroup that allows it
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(level))
        return "realtime"
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        return "nice"
    return "normal"


def relax() -> None:
    """Make the calling thread an ordinary one again."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 0)
