"""Runs a program so that everything that it started ends with it, as in a container.

Problem: the kubelet restarts a container whole; a process group is less than that, because a child that called setsid,
or a daemon that forked twice, is in no group of ours and would go on writing rules beside the next agent. Promise:
``contain`` (between fork and exec) makes a process between us and the program, the warden: a child subreaper (prctl 2),
so that every orphan of the program becomes the warden's child, whatever it did. The warden ends with the program's own
status, and only when nothing of it runs any more; SIGTERM to it, which it also gets when we die, kills everything at
once. It needs no control group and no namespace, so ordinary users have it too. Never: touching a process that is not
below it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path

from hitless.model.reading import whole_of

__all__ = ["contain"]

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
_WAKE = frozenset({signal.SIGCHLD, signal.SIGTERM})
_FIRST_NOT_STANDARD = 3


def contain(tell: int) -> None:
    """Fork: the child returns (and goes on to become the program), the parent is the warden and never returns.

    The program's process number is written to the file descriptor ``tell``, in the machine's byte order. Called in a
    process that has just been forked: one thread, nothing to clean up.
    """
    prctl = ctypes.CDLL(None).prctl
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAKE)
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    program = os.fork()
    if program:
        _become_warden(program, tell)
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.setsid()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become_warden(program: int, tell: int) -> None:
    """Watch over the program to its end, then end as it did. Never returns."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_NAME, b"hitless-warden", 0, 0, 0)
        os.write(tell, program.to_bytes(4, "little"))
        # what is open here is the maker's: kept open, it would never see an end of file
        null = os.open(os.devnull, os.O_RDWR)
        for standard in range(_FIRST_NOT_STANDARD):
            os.dup2(null, standard)
        os.closerange(_FIRST_NOT_STANDARD, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        _end_as(_watch(program))
    finally:
        os._exit(127)


def _watch(program: int) -> int:
    """The program's wait status, once it and all that it left behind have ended."""
    status: int | None = None
    while True:
        ended, ended_with = _reap()
        if ended == program:
            status = ended_with
        elif ended == 0:
            if status is not None:
                _kill_children()
            if signal.sigwait(_WAKE) == signal.SIGTERM:
                _kill_children()
                status = -1 if status is None else status
        elif ended < 0:
            return 0 if status is None else status


def _reap() -> tuple[int, int]:
    """A child that has ended and its status; (0, 0) while all of them run, (-1, 0) when there are none."""
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return -1, 0


def _kill_children() -> None:
    """SIGKILL for every child of ours; their children become ours, and are found the next time."""
    mine = os.getpid()
    for entry in Path("/proc").iterdir():
        if whole_of(entry.name) is None:
            continue
        try:
            parent = int((entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            if parent == mine:
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError, IndexError):  # it ended meanwhile
            continue


def _end_as(status: int) -> None:
    """End with a wait status: with the same exit code, or by the same signal (without a core file of our own)."""
    code = os.waitstatus_to_exitcode(status) if status >= 0 else -signal.SIGKILL
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -code)
    os._exit(code)
