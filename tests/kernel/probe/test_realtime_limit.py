"""Real-time priority is taken from who uses too much, and given again."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from hitless.kernel import realtime_limit

pytestmark = pytest.mark.kernel

HOG = """
import os, threading, time
from hitless.kernel.cpu_priority import given_back, hasten, relax
seen = []
def policy():
    return os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
def until(wanted, work):
    end = time.monotonic() + 60
    while policy() != wanted:
        assert time.monotonic() < end, (wanted, given_back())
        work()
    seen.append((wanted, bool(given_back())))
def hog():
    seen.append(hasten(2))
    until(os.SCHED_RR, lambda: None)
    until(os.SCHED_OTHER, lambda: None)
    seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    seen.append(hasten(2))
    until(os.SCHED_RR, lambda: time.sleep(0.05))
    relax()
    seen.append(policy())
thread = threading.Thread(target=hog)
thread.start()
thread.join()
print(seen)
"""


def test_a_thread_that_does_not_sleep_is_made_ordinary_and_urgent_again_when_it_is_quiet() -> None:
    done = subprocess.run([sys.executable, "-c", HOG], capture_output=True, text=True, check=True)
    if done.stdout.startswith("['nice'") or done.stdout.startswith("['normal'"):
        pytest.skip("this machine gives nobody real-time priority")
    assert done.stdout.strip() == "['realtime', (2, False), (0, True), -15, 'nice', (2, True), 0]"


def test_the_kernel_ends_a_real_time_process_that_never_waits_without_a_watchdog() -> None:
    """The last protection: without a watchdog thread, the kernel's own limit applies."""
    code = (
        "import resource, os\n"
        "from hitless.kernel import realtime_limit\n"
        "realtime_limit._WALL = 1\n"
        "realtime_limit.RealtimeLimit._watch = realtime_limit.RealtimeLimit._fetch = lambda self: None\n"
        "from hitless.kernel.cpu_priority import hasten\n"
        "print(hasten(), flush=True)\n"
        "while True: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.returncode) == ("realtime\n", -9)


def test_a_thread_that_is_ready_and_does_not_run_is_moved_and_keeps_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel leaves it where a system call cannot be interrupted; ``bench/kept_core.py`` shows that with one."""
    cores = os.sched_getaffinity(0)
    moves: list[set[int]] = []
    move = os.sched_setaffinity

    def moved(thread: int, to: set[int]) -> None:
        moves.append(set(to))
        move(thread, to)

    monkeypatch.setattr(os, "sched_setaffinity", moved)
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    number, core = thread.native_id or 0, min(cores)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _clock: 7)  # it has run for 7 ns, and does not now
    try:
        monkeypatch.setattr(realtime_limit, "_standing", lambda _thread: ("S", core))
        assert realtime_limit._fetched(number, 7) == 7
        assert moves == [], "it sleeps: nobody keeps it from running"
        monkeypatch.setattr(realtime_limit, "_standing", lambda _thread: ("R", core))
        assert realtime_limit._fetched(number, 6) == 7
        assert moves == [], "it ran since"
        assert realtime_limit._fetched(number, 7) == 7
        assert moves == ([cores - {core}, cores] if len(cores) > 1 else [])
        assert os.sched_getaffinity(number) == cores
        monkeypatch.undo()
        state, on = realtime_limit._standing(number)
        assert state in "RS" and on in cores
    finally:
        end.set()
        thread.join()
