"""State files of labs that outlive the command that made them: how they are found again and taken down.

Problem: ``hitless lab up`` ends and its lab stays. Another command must find it, must notice that a lab has crashed,
and must not kill a process that got the number of one of the lab's. Promise: one file per lab and user (mode 0600 in a
folder of mode 0700), replaced atomically; a keeper is identified by process number, start time and boot; the file of a
dead lab is recognised and removed; only processes in this lab's namespaces are killed. The folder is
``$HITLESS_RUNTIME_DIR``, else /run/hitless for root, ``$XDG_RUNTIME_DIR/hitless`` for others, else /tmp/hitless-UID.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import signal
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hitless.errors import HitlessError, InputError, KernelError, MissingError
from hitless.kernel import files
from hitless.lab.building import LabMembers, view
from hitless.lab.clusters import LabCluster
from hitless.lab.keeper_client import HeldNamespace, KeeperHandle, alive, held_processes, kill_inside
from hitless.lab.plans import LabPlan, check_name
from hitless.model.families import Backend

__all__ = ["MARK", "LabState", "Store", "runtime_folder"]

_SCHEMA = 1
MARK = "HITLESS_LAB"
"""Environment variable with the lab's secret, which identifies its processes after its keeper died."""


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def runtime_folder(environment: Mapping[str, str] | None = None) -> Path:
    """The folder of this user's state files."""
    variables = os.environ if environment is None else environment
    if folder := variables.get("HITLESS_RUNTIME_DIR"):
        return Path(folder)
    if os.geteuid() == 0:
        return Path("/run/hitless")
    if folder := variables.get("XDG_RUNTIME_DIR"):
        return Path(folder, "hitless")
    return Path(tempfile.gettempdir(), f"hitless-{os.geteuid()}")


@dataclass(frozen=True, slots=True)
class LabState:
    """The state of a lab. ``held`` is empty while it is being built."""

    name: str
    keep: KeeperHandle
    boot: str
    mark: str
    created: float
    plan: LabPlan
    held: tuple[HeldNamespace, ...] = ()
    agent: str = ""

    @classmethod
    def new(cls, name: str, keep: KeeperHandle, plan: LabPlan) -> LabState:
        """The state of a lab whose keeper has just been started."""
        return cls(name, keep, _boot(), secrets.token_hex(16), time.time(), plan)

    @property
    def alive(self) -> bool:
        """Whether its keeper runs."""
        return self.boot == _boot() and alive(self.keep)

    @property
    def inodes(self) -> frozenset[int]:
        """The inodes of its network namespaces."""
        return frozenset(each.inode for each in self.held)

    def cluster(self) -> LabCluster:
        """The lab as values; raises ``InputError`` when it is not (or not yet) up."""
        if not self.alive:
            raise InputError(f"lab {self.name} is dead: its keeper is gone", expected="hitless lab down, then up again")
        if not self.held:
            raise InputError(f"lab {self.name} is still being built")
        return view(LabMembers(self.plan, {each.name: each for each in self.held}), self.keep)

    def encode(self) -> str:
        """As JSON."""
        return json.dumps({"schema": _SCHEMA, **asdict(self)})

    @classmethod
    def decode(cls, text: str, where: str) -> LabState:
        """From JSON; raises ``InputError`` when it is not a lab's state."""
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw.pop("schema") != _SCHEMA:
                raise InputError("was written by another version", where=where, expected=f"schema {_SCHEMA}")
            raw["keep"] = KeeperHandle(**raw["keep"])
            raw["plan"] = LabPlan(**{**raw["plan"], "backend": Backend(raw["plan"]["backend"])})
            raw["held"] = tuple(HeldNamespace(**{**each, "missing": tuple(each["missing"])}) for each in raw["held"])
            return cls(**raw)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"is not a lab's note ({error})", where=where, expected="what hitless lab up wrote"
            ) from error

    def strays(self) -> tuple[int, ...]:
        """Processes of this lab that are left after its keeper died: in its namespaces, and with its secret."""
        variable = f"{MARK}={self.mark}".encode()
        found = []
        for pid in held_processes(self.inodes):
            # the kernel reuses inode numbers: after the keeper's death only the secret identifies the lab's processes
            with contextlib.suppress(OSError):
                if variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(pid)
        return tuple(found)

    def end(self) -> None:
        """Take the lab down: its processes, its keeper, and with it every namespace."""
        if self.alive:
            kill_inside(self.keep, self.inodes)
            _end(self.keep)
        for pid in self.strays():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _end(keep: KeeperHandle) -> None:
    try:
        fd = os.pidfd_open(keep.pid)
    except ProcessLookupError:
        return
    try:
        if not alive(keep):  # it ended before the pidfd was opened
            return
        for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
            if select.select([fd], [], [], patience)[0]:
                return
        raise KernelError("end", f"the keeper (process {keep.pid})", reason="it does not end")
    finally:
        os.close(fd)


class Store:
    """The folder with the state files."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = runtime_folder() if folder is None else folder

    def _path(self, name: str) -> Path:
        return self.folder / f"lab-{check_name(name)}.json"

    def _prepare(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.folder.stat(follow_symlinks=False)
        except OSError as error:
            raise MissingError(
                f"{self.folder} cannot be made ({error.strerror})",
                remedy="set HITLESS_RUNTIME_DIR to a folder of yours",
            ) from error
        if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o022:
            raise MissingError(
                f"{self.folder} is not only yours",
                remedy="set HITLESS_RUNTIME_DIR to a folder that no other user may write",
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock while it is read and written."""
        while True:
            self._prepare()
            with contextlib.suppress(FileNotFoundError):  # the last lab went down and removed the folder: again
                fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX)
                    if os.fstat(fd).st_ino == self.folder.stat().st_ino:
                        yield
                        return
                finally:
                    os.close(fd)

    def write(self, state: LabState) -> None:
        """Write a state file atomically."""
        self._prepare()
        path = self._path(state.name)
        files.replace(path, state.encode().encode(), mode=0o600, durable=False)

    def read(self, name: str) -> LabState:
        """The state of a lab; raises ``InputError`` when there is no file."""
        path = self._path(name)
        try:
            return LabState.decode(files.read_text(path), str(path))
        except FileNotFoundError as error:
            known = ", ".join(each for each in self.names()) or "none"
            raise InputError(
                f"there is no lab {name}",
                where="--name",
                expected=f"one that is up: {known}",
                remedy=f"hitless lab up{'' if name == 'lab' else f' --name {name}'} makes it",
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text"
            raise InputError(f"cannot be read: {why}", where=str(path), expected="the note of a lab") from error

    def names(self) -> tuple[str, ...]:
        """Every lab that has a state file."""
        return tuple(sorted(path.stem.removeprefix("lab-") for path in self.folder.glob("lab-*.json")))

    def remove(self, name: str) -> None:
        """Remove the state file of a lab."""
        self._path(name).unlink(missing_ok=True)
        for draft in (*self.folder.glob(f"lab-{name}.*.new"), *self.folder.glob(f".lab-{name}.*.new")):
            draft.unlink(missing_ok=True)

    def reserve(self, state: LabState) -> None:
        """Take the name for a lab that is being built; raises ``InputError`` when a running lab has it."""
        with self.locked():
            if state.name in self.names():
                with contextlib.suppress(InputError):  # a file that cannot be read
                    if self.read(state.name).alive:
                        raise _Taken(state.name)
                self._end(state.name)
                self.remove(state.name)
            self.write(state)

    def finish(self, state: LabState, members: LabMembers) -> LabState:
        """Write and return the state of a lab that is complete now."""
        complete = replace(state, held=tuple(members.held.values()))
        self.write(complete)
        return complete

    def down(self, name: str) -> bool:
        """Take a lab down and remove its file; whether there was one. Also for dead and half-built labs."""
        with self.locked():
            if name not in self.names():
                return False
            self._end(name)
            self.remove(name)
            if not any(self.folder.iterdir()) and "HITLESS_RUNTIME_DIR" not in os.environ:
                self.folder.rmdir()
            return True

    def _end(self, name: str) -> None:
        try:
            self.read(name).end()
        except InputError:
            # written by another version, or damaged: the keeper's fields are the same in all versions
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                raw = json.loads(files.read(self._path(name)))
                keep = KeeperHandle(**raw["keep"])
                if raw["boot"] == _boot() and alive(keep):
                    _end(keep)


class _Taken(HitlessError):
    def __init__(self, name: str) -> None:
        super().__init__(
            f"lab {name} is up already; take it down (hitless lab down --name {name}) or choose another --name"
        )
