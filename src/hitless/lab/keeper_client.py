"""Client of a keeper, the process that holds a lab's namespaces: starts it, asks it for namespaces, sees when it ends.

Promise: a keeper that was started here ends with this object (``close``) or with this process, whichever comes first;
after ``stay`` it goes on without us, for a lab that stays up. Its answers become values
(``hitless.kernel.namespaces.Namespace``) or errors of ``hitless.errors``. The program is ``hitless.kernel.keeper``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hitless.errors import KernelError, MissingError
from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace
from hitless.model.reading import whole_of

__all__ = ["HeldNamespace", "Keeper", "KeeperHandle", "alive", "held_processes", "kill_inside", "start_time"]


@dataclass(frozen=True, slots=True)
class KeeperHandle:
    """Where a keeper is: enough to find it and to know it again. ``started`` is its start time in clock ticks."""

    pid: int
    started: int
    user: bool
    mnt: int
    root: int


@dataclass(frozen=True, slots=True)
class HeldNamespace:
    """A namespace that a keeper holds: its files' numbers in the keeper, and the inode that names it to the kernel."""

    name: str
    net: int
    mnt: int
    root: int
    inode: int
    missing: tuple[str, ...] = ()
    """Sysctls that this kernel does not have."""

    def namespace(self, keep: KeeperHandle) -> Namespace:
        """The value by which programs and sockets enter it."""
        base = f"/proc/{keep.pid}"
        user = None if not keep.user or _same_user_namespace(keep.pid) else f"{base}/ns/user"
        return Namespace(self.name, net=f"{base}/fd/{self.net}", mnt=f"{base}/fd/{self.mnt}", user=user)

    def root_path(self, keep: KeeperHandle) -> Path:
        """The namespace's file system, seen from outside."""
        return Path(f"/proc/{keep.pid}/fd/{self.root}")


def _same_user_namespace(pid: int) -> bool:
    # entering the user namespace that one is in already is refused by the kernel (EINVAL)
    return Path("/proc/self/ns/user").readlink() == Path(f"/proc/{pid}/ns/user").readlink()


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot (field 22 of /proc/PID/stat); 0 when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    state, *fields = text.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(fields[18])


def alive(keep: KeeperHandle) -> bool:
    """Whether this very keeper still runs (its number may long belong to somebody else)."""
    return keep.started != 0 and start_time(keep.pid) == keep.started


def held_processes(inodes: frozenset[int]) -> tuple[int, ...]:
    """The processes that live in network namespaces with these inodes, ours excepted."""
    found = []
    for entry in Path("/proc").iterdir():
        if whole_of(entry.name) not in (None, os.getpid()):
            with contextlib.suppress(OSError):
                if (entry / "ns/net").stat().st_ino in inodes:
                    found.append(int(entry.name))
    return tuple(found)


def guests(keep: KeeperHandle, inodes: frozenset[int]) -> tuple[int, ...]:
    """Processes in the namespaces of a living keeper that it did not start: what people run there by ``lab exec``."""
    return tuple(pid for pid in held_processes(inodes) if alive(keep) and keep.pid not in _ancestors(pid))


def _ancestors(pid: int) -> set[int]:
    """The process, its parent, and so on, as far as they can be read."""
    found: set[int] = set()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return found


class Keeper:
    """A keeper that this process started."""

    def __init__(self, *, stays: bool = False) -> None:
        # the death signal is tied to the thread that forks: a short-lived thread must not take the keeper along.
        # The closed pipe ends it in any case.
        tied = not stays and threading.current_thread() is threading.main_thread()
        self._process = processes.start(
            [sys.executable, "-P", "-m", "hitless.kernel.keeper"],
            stdin=processes.PIPE,
            stdout=processes.PIPE,
            stderr=processes.DEVNULL,
            new_session=True,
            tied=tied,
        )
        self._lock = threading.Lock()
        self._inodes: set[int] = set()
        self.keep = KeeperHandle(self._process.pid, 0, False, 0, 0)
        try:
            hello = self._answer("start", "the lab's keeper")
        except BaseException:
            self.close()
            raise
        self.keep = KeeperHandle(
            pid=hello["pid"], started=start_time(hello["pid"]), user=hello["user"], mnt=hello["mnt"], root=hello["root"]
        )

    def _answer(self, operation: str, object: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise KernelError(operation, object, reason="the keeper is gone")
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer and "remedy" in answer:
            raise MissingError(answer["missing"], remedy=answer["remedy"])
        if "refused" in answer:
            raise KernelError(*answer["refused"])
        return answer

    def _ask(self, what: str, object: str, **details: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError) as error:
                raise KernelError(what, object, reason="the keeper is gone") from error
            return self._answer(what, object)

    def make(
        self,
        name: str,
        *,
        mount: bool = False,
        sysctls: Mapping[str, str] | None = None,
        programs: Mapping[str, str] | None = None,
        shared: str = "",
    ) -> HeldNamespace:
        """A network namespace (with a mount namespace and a /run of its own when ``mount``).

        ``programs``: in that mount namespace, the first path of each pair shows the program at the second. ``shared``:
        a folder of /run that all which are made with it have in common, and that is the keeper's own too.
        """
        what = {"mount": mount, "sysctls": dict(sysctls or {}), "programs": dict(programs or {}), "shared": shared}
        answer = self._ask("make", f"namespace {name}", **what)
        self._inodes.add(answer["inode"])
        return HeldNamespace(
            name, answer["net"], answer["mnt"], answer["root"], answer["inode"], tuple(answer["missing"])
        )

    def spawn(self, command: Sequence[str], *, environment: Mapping[str, str], stdin: str, log: str) -> int:
        """Start a program that lives and dies with the keeper, its output in ``log`` of the lab's own /run."""
        line = [processes.program(command[0]), *command[1:]]
        answer = self._ask("spawn", line[0], argv=line, environment=dict(environment), stdin=stdin, log=log)
        return int(answer["pid"])

    def stay(self) -> None:
        """Cut the keeper loose: from here on only ``end`` or a signal ends it."""
        self._ask("stay", "keeper")
        self._release()
        self._process.returncode = 0  # not ours to wait for any more

    def _release(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def close(self) -> None:
        """End the keeper and whatever still runs in its namespaces; nothing of them is left afterwards."""
        kill_inside(self.keep, frozenset(self._inodes))
        self._release()
        if self._process.returncode is None:
            self._process.kill()
        self._process.wait()


def kill_inside(keep: KeeperHandle, inodes: frozenset[int]) -> None:
    """SIGKILL what lives in the network namespaces that a living keeper holds; again for what was being born.

    A dead keeper's inode numbers are given out again at once, to strangers: then nothing is done.
    """
    for _ in range(3):
        pids = held_processes(inodes) if alive(keep) else ()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
