"""The pod's side of a drill: runs the tools, spools their output, and writes it out again from any byte on.

Problem: the connection from a pod to the driver may break for a minute, by the drill itself, and a container log is
rotated at 10 MiB. Promise: every line of every tool is in one spool file in the order of its arrival, marked with the
tool's name; ``read`` gives the same bytes again from any offset, and ends only when all tools have ended and all is
read; the tools stop on request or by themselves after a while, so that a driver that died leaves nothing running. It
never judges or changes a line. Next stage: ``pods`` on the driver's side.

A line of the spool is ``NAME<tab>JSON``; the relay's own lines have the name ``relay``.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hitless.errors import InputError, KernelError, MissingError, NotFound, ours
from hitless.kernel import files, processes
from hitless.kernel.clock import Clock
from hitless.model.events import LONGEST, Note, encode
from hitless.model.reading import whole_of

_LAST_BYTES = 4096  # bytes of a tool's standard error
__all__ = ["OWN", "Relay", "TakenOver", "answer_clock", "read", "signal_container", "stop"]

OWN = "relay"
_SPOOL, _DONE, _STOP, _READER = "events", "done", "stop", "reader"
_TICK = 0.05
_GRACE = 15.0  # what a tool may take to end its pending attempts; then it is killed


class TakenOver(InputError):
    """A reader ends because a second one has begun."""


@dataclass
class Relay:
    """Runs ``tools`` (name: arguments of ``hitless``) and spools what they write; ``limit`` in bytes, times in seconds.

    When the spool is full the tools are stopped and the spool says so: never a silent loss.
    """

    folder: Path
    tools: Mapping[str, Sequence[str]]
    seconds: float = 3600.0
    limit: int = 1 << 30
    program: Sequence[str] = (sys.executable, "-m", "hitless")
    _stop: threading.Event = field(default_factory=threading.Event)
    _leave: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _size: int = 0
    _full: bool = False
    _broken: str = ""  # why a tool's lines are not kept any more

    def run(self) -> int:
        """Run until the tools have ended and SIGTERM came (or the time is over); 1 when one of them failed."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._leave.set())
        end = time.monotonic() + self.seconds
        clock = Clock()
        self._fd = os.open(self.folder / _SPOOL, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        environment = {**clock.environment(), "PYTHONUNBUFFERED": "1"}
        running: dict[str, processes.Process] = {}
        for name, arguments in self.tools.items():
            errors = files.own(
                self.folder / f"{name}.err", os.O_WRONLY | os.O_TRUNC
            )  # a file: unlike a pipe, it needs no reader
            with os.fdopen(errors, "wb") as stderr:
                running[name] = processes.start(
                    [*self.program, *arguments], stdout=processes.PIPE, stderr=stderr, environment=environment
                )
        threads = [
            threading.Thread(target=self._spool, args=(name, process), daemon=True) for name, process in running.items()
        ]
        for thread in threads:
            thread.start()
        codes = self._watch(running, threads, end, clock)
        (self.folder / _DONE).touch()
        while not self._leave.is_set() and time.monotonic() < end:
            self._leave.wait(_TICK * 4)
        os.close(self._fd)
        if self._broken:  # the message becomes part of the pod's status
            raise MissingError(self._broken, remedy="make room on the node's disk, and drill again")
        return max(codes, default=0)

    def _watch(
        self, running: Mapping[str, processes.Process], threads: Sequence[threading.Thread], end: float, clock: Clock
    ) -> list[int]:
        asked: float | None = None
        while any(process.poll() is None for process in running.values()):
            over = self._full or bool(self._broken) or time.monotonic() > end
            wanted = over or self._leave.is_set() or (self.folder / _STOP).exists()
            if wanted and asked is None:
                asked = time.monotonic()
                for process in running.values():
                    process.terminate()
            if asked is not None and time.monotonic() - asked > _GRACE:
                for process in running.values():
                    process.kill()
            time.sleep(_TICK)
        for thread in threads:
            thread.join(_GRACE)
        if self._broken:
            self._note(clock, "error", self._broken)
        if self._full:
            self._note(clock, "error", f"the spool is full ({self.limit} bytes): the tools were stopped")
        codes = [_end_message(name, process.returncode, self.folder) for name, process in running.items()]
        for trouble in filter(None, codes):
            self._note(clock, "error", trouble)
        return [1 if trouble else 0 for trouble in codes]

    def _note(self, clock: Clock, level: str, text: str) -> None:
        note = Note(t=clock.now(), level="error" if level == "error" else "info", text=text)
        try:
            self._write(OWN, encode(note), always=True)
        except OSError as error:
            self._broken = self._broken or f"cannot write in {self.folder}: {error.strerror or error}"

    def _spool(self, name: str, process: processes.Process) -> None:
        assert process.stdout is not None
        try:
            with process.stdout:
                while line := process.stdout.readline(
                    LONGEST + 1
                ):  # a longer line is not an event, and the driver reports it
                    self._write(name, line.rstrip(b"\n"))
        except OSError as error:
            self._broken = f"cannot keep the lines of {name} in {self.folder}: {error.strerror or error}"
        except Exception as error:  # noqa: BLE001 - without this thread nothing of the tool is kept: all are ended
            self._broken = str(ours(error, f"keeping the lines of {name}"))

    def _write(self, name: str, line: bytes, *, always: bool = False) -> None:
        data = name.encode() + b"\t" + line + b"\n"
        with self._lock:
            if (self._full or self._size + len(data) > self.limit) and not always:
                self._full = True
                return
            self._size += len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]


def _end_message(name: str, code: int, folder: Path) -> str:
    """The message about a tool's end; 1 and 2 are verdicts (something lost, could not tell), not failures."""
    with os.fdopen(files.opened(folder / f"{name}.err"), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
        stderr = file.read(_LAST_BYTES).decode(errors="replace").strip()
    if code == 0 or (code in (1, 2) and not stderr):
        return ""
    return f"{name} ended with {code}: {stderr[-500:]}"


def read(folder: Path, offset: int, out: int = 1, *, wait: float = 30.0) -> int:
    """Write the spool from ``offset`` on to ``out`` and follow it until the tools have ended; 0 when all was given.

    A second reader takes over: raises ``TakenOver`` then. A runtime may leave a reader behind whose connection
    broke (containerd 1.6 does), and a few dozen of them would take the memory and the processor of the tools.
    """
    begin = time.monotonic()
    while not (folder / _SPOOL).exists():
        if time.monotonic() - begin > wait:
            raise InputError("no relay has run here", where=str(folder), expected="the spool of `hitless relay run`")
        time.sleep(_TICK)
    mine = f"{os.getpid()} {time.monotonic_ns()}"
    _sign(folder, mine)
    with os.fdopen(files.opened(folder / _SPOOL), "rb", buffering=0) as spool:
        spool.seek(offset)
        while True:
            done = (folder / _DONE).exists()  # checked before reading: what comes after it cannot be missed
            data = spool.read(1 << 16)
            if not data and done:
                return 0
            _still_ours(folder, mine)
            if data:
                _give(out, data, folder, mine)
            else:
                time.sleep(_TICK)


def _sign(folder: Path, mine: str) -> None:
    """Record who reads; a full disk must not prevent reading."""
    try:
        with os.fdopen(files.own(folder / _READER, os.O_WRONLY | os.O_TRUNC), "wb") as reader:
            reader.write(mine.encode())
    except OSError:
        return


def _give(out: int, data: bytes, folder: Path, mine: str) -> None:
    ready = select.poll()
    ready.register(out, select.POLLOUT)
    view = memoryview(data)
    while view:
        if ready.poll(_TICK * 1000):
            view = view[os.write(out, view[: select.PIPE_BUF]) :]  # so much never blocks, even without a reader
        else:
            _still_ours(folder, mine)


def _still_ours(folder: Path, mine: str) -> None:
    try:
        latest = files.read(folder / _READER).decode(errors="replace")
    except OSError:
        return
    if latest and latest != mine:
        raise TakenOver("another reader has taken over", where=str(folder), expected="one reader at a time")


def stop(folder: Path) -> None:
    """Ask the tools to end: they finish what is pending, and write their summaries."""
    (folder / _STOP).touch()


def answer_clock(source: int = 0, out: int = 1) -> None:
    """Answer every line of ``source`` with this machine's clock in nanoseconds, until it ends."""
    clock = Clock()
    while data := os.read(source, 4096):
        for _ in range(data.count(b"\n")):
            os.write(out, b"%d\n" % clock.now())


def signal_container(container: str, number: signal.Signals, proc: Path = Path("/proc")) -> int:
    """Send a signal to the first process of a container (its id as the kubelet gives it), and return its pid.

    Needs the host's process ids (hostPID). Raises ``NotFound`` when no process of the container is seen, and
    ``KernelError`` when it may not be signalled (the pod has no CAP_KILL: only root's processes).
    """
    identity = container.rpartition("://")[2]
    if len(identity) < 12 or not identity.isalnum():
        raise InputError(
            f"{container!r} is not a container id", where="--container", expected="e.g. containerd://4f2c…"
        )
    found: list[tuple[bool, int, int]] = []
    for entry in proc.iterdir():
        if whole_of(entry.name) is None:
            continue
        try:
            place = (entry / "cgroup").read_text()
            if identity not in place or f"conmon-{identity}" in place:  # CRI-O's watcher of the container
                continue
            status = (entry / "status").read_text()
            born = int((entry / "stat").read_text().rpartition(")")[2].split()[19])
        except OSError:
            continue  # it ended meanwhile
        inside = next((line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")), "")
        found.append((inside != "1", born, int(entry.name)))  # on the host's process ids: the oldest is the first
    if not found:
        raise NotFound("signal", f"container {identity[:12]}", reason="no process of it is seen; is hostPID set?")
    pid = min(found)[2]
    try:
        os.kill(pid, number)
    except ProcessLookupError as error:
        raise NotFound("signal", f"container {identity[:12]}", reason="it has just ended") from error
    except PermissionError as error:
        reason = "it belongs to another user, or AppArmor or SELinux forbids it"
        raise KernelError("signal", f"container {identity[:12]}", errno.EPERM, reason) from error
    return pid
