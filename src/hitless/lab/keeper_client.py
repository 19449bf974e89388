"""Client of a keeper, the process that holds a lab's namespaces: starts it, requests namespaces, notices when it ends.

Promise: a keeper that was started here ends with this object (``close``) or with this process, whichever comes first;
after ``stay`` it goes on by itself, for a lab that stays up. Its responses become values
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
    """A keeper's process, identified by number and start time (``started``, in clock ticks)."""

    pid: int
    started: int
    user: bool
    mnt: int
    root: int


@dataclass(frozen=True, slots=True)
class HeldNamespace:
    """A namespace that a keeper holds: the keeper's file descriptors for it, and the inode of its network namespace."""

    name: str
    net: int
    mnt: int
    root: int
    inode: int
    missing: tuple[str, ...] = ()
    """Sysctls that this kernel does not have."""

    def namespace(self, keep: KeeperHandle) -> Namespace:
        """The namespace as a value, for programs and sockets."""
        base = f"/proc/{keep.pid}"
        user = None if not keep.user or _same_user_namespace(keep.pid) else f"{base}/ns/user"
        return Namespace(self.name, net=f"{base}/fd/{self.net}", mnt=f"{base}/fd/{self.mnt}", user=user)

    def root_path(self, keep: KeeperHandle) -> Path:
        """The namespace's file system, seen from outside."""
        return Path(f"/proc/{keep.pid}/fd/{self.root}")


def _same_user_namespace(pid: int) -> bool:
    # the kernel refuses to enter the user namespace that a process is in already (EINVAL)
    return Path("/proc/self/ns/user").readlink() == Path(f"/proc/{pid}/ns/user").readlink()


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot (field 22 of /proc/PID/stat); 0 when it does not run."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    state, *fields = text.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(fields[18])


def alive(keep: KeeperHandle) -> bool:
    """Whether this keeper still runs; its number may have been given to another process."""
    return keep.started != 0 and start_time(keep.pid) == keep.started


def held_processes(inodes: frozenset[int]) -> tuple[int, ...]:
    """The processes in network namespaces with these inodes, without our own."""
    found = []
    for entry in Path("/proc").iterdir():
        if whole_of(entry.name) not in (None, os.getpid()):
            with contextlib.suppress(OSError):
                if (entry / "ns/net").stat().st_ino in inodes:
                    found.append(int(entry.name))
    return tuple(found)


def guests(keep: KeeperHandle, inodes: frozenset[int]) -> tuple[int, ...]:
    """Processes in the namespaces of a living keeper that it did not start: those of ``lab exec``."""
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
        # the death signal comes when the thread that forks ends: a short-lived thread must not end the keeper.
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
            hello = self._response("start", "the lab's keeper")
        except BaseException:
            self.close()
            raise
        self.keep = KeeperHandle(
            pid=hello["pid"], started=start_time(hello["pid"]), user=hello["user"], mnt=hello["mnt"], root=hello["root"]
        )

    def _response(self, operation: str, object: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise KernelError(operation, object, reason="the keeper is gone")
        response: dict[str, Any] = json.loads(line)
        if "missing" in response and "remedy" in response:
            raise MissingError(response["missing"], remedy=response["remedy"])
        if "refused" in response:
            raise KernelError(*response["refused"])
        return response

    def _request(self, what: str, object: str, **details: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with self._lock:
            try:
                self._process.stdin.write(json.dumps({"do": what, **details}).encode() + b"\n")
                self._process.stdin.flush()
            except (BrokenPipeError, ValueError) as error:
                raise KernelError(what, object, reason="the keeper is gone") from error
            return self._response(what, object)

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

        ``programs``: in that mount namespace, the program at the second path is also at the first one of each pair.
        ``shared``: a folder of /run that is the same in all namespaces that are made with it, and in the keeper.
        """
        what = {"mount": mount, "sysctls": dict(sysctls or {}), "programs": dict(programs or {}), "shared": shared}
        response = self._request("make", f"namespace {name}", **what)
        self._inodes.add(response["inode"])
        return HeldNamespace(
            name, response["net"], response["mnt"], response["root"], response["inode"], tuple(response["missing"])
        )

    def spawn(self, command: Sequence[str], *, environment: Mapping[str, str], stdin: str, log: str) -> int:
        """Start a program that lives and dies with the keeper, its output in ``log`` of the lab's own /run."""
        line = [processes.program(command[0]), *command[1:]]
        response = self._request("spawn", line[0], argv=line, environment=dict(environment), stdin=stdin, log=log)
        return int(response["pid"])

    def stay(self) -> None:
        """Let the keeper outlive this process: from now on only ``end`` or a signal ends it."""
        self._request("stay", "keeper")
        self._release()
        self._process.returncode = 0  # it is not waited for any more

    def _release(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def close(self) -> None:
        """End the keeper and all processes in its namespaces."""
        kill_inside(self.keep, frozenset(self._inodes))
        self._release()
        if self._process.returncode is None:
            self._process.kill()
        self._process.wait()


def kill_inside(keep: KeeperHandle, inodes: frozenset[int]) -> None:
    """SIGKILL the processes in the network namespaces of a running keeper, and those that were being forked.

    The kernel reuses the inode numbers of a dead keeper at once: then nothing is done.
    """
    for _ in range(3):
        pids = held_processes(inodes) if alive(keep) else ()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
