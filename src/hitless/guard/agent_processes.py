"""The processes whose statement about masquerading counts as the agent's.

Problem: any process may have any name; a pod's process, or an unprivileged one on the host's network, may be called as
the agent is. Promise: ``agent_processes`` gives only processes that could switch masquerading off by themselves: in the
guard's network namespace, root in all four user ids, in the guard's user namespace, with CAP_NET_ADMIN, and named so by
the kernel, by the command line and (where it may be read) by the executable. Everything is read twice around: a process
that changed meanwhile does not count. What cannot be read never counts as yes. Next stage: ``statements``.

All of it works with NET_ADMIN alone. ``/proc/PID/ns`` and ``/proc/PID/exe`` need ptrace rights; ``/proc/PID/net/dev``
does not, and its inode differs between network namespaces (fs/proc/proc_net.c: the entries are made for each of them).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hitless.errors import HitlessError
from hitless.kernel.namespaces import HERE, Namespace, inside
from hitless.model.reading import whole_of

__all__ = ["AgentProcess", "agent_processes"]

_NET_ADMIN = 1 << 12  # CAP_NET_ADMIN
_COMM = 15  # what the kernel keeps of a name
_LONGEST = 1 << 18  # bytes of a command line or an environment; a longer one is not read

Entry = tuple[int, int]


@dataclass(frozen=True, slots=True)
class AgentProcess:
    """A process of the agent; ``environment`` is ``None`` where it may not be read."""

    pid: int
    arguments: tuple[str, ...]
    environment: tuple[str, ...] | None


def agent_processes(name: str, namespace: Namespace = HERE) -> Iterator[AgentProcess]:
    """The processes called ``name`` that count as the agent of ``namespace``'s node."""
    try:
        network = inside(namespace, lambda: _entry("/proc/thread-self/net/dev"))
        users = _read("/proc/self/uid_map")
        pids = [pid for each in os.scandir("/proc") if (pid := whole_of(each.name)) is not None]
    except (OSError, HitlessError):
        return
    for pid in pids:
        if _named(pid, name) and (found := _agent_process(pid, name, network, users)) is not None:
            yield found


def _named(pid: int, name: str) -> bool:
    try:
        return _read(f"/proc/{pid}/comm").rstrip(b"\n") == name.encode()[:_COMM]
    except OSError:
        return False


def _agent_process(pid: int, name: str, network: Entry, users: bytes) -> AgentProcess | None:
    try:
        before = _identity(pid)
        if before[1:] != (network, users) or not _may_change_rules(pid):
            return None
        argv = _strings(f"/proc/{pid}/cmdline")
        # the second for an agent that is a script: then the first is its interpreter
        if not argv or name not in (Path(argument).name for argument in argv[:2]):
            return None
        if Path(argv[0]).name != name:
            argv = argv[1:]
        elif _executable(pid) not in ("", name):
            return None
        environment = _perhaps(lambda: _strings(f"/proc/{pid}/environ"))
        # an empty environment is rare, and is what is read of one that is being replaced
        found = AgentProcess(pid, argv, environment or None)
        return found if _identity(pid) == before and _named(pid, name) else None
    except (OSError, ValueError, IndexError):
        return None


def _identity(pid: int) -> tuple[bytes, Entry, bytes]:
    """When it was started, its network namespace, and its user namespace as seen from here."""
    started = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()[19]
    return started, _entry(f"/proc/{pid}/net/dev"), _read(f"/proc/{pid}/uid_map")


def _may_change_rules(pid: int) -> bool:
    """Root, also in the ids that a set-user-id program does not change, and with CAP_NET_ADMIN in effect."""
    fields = dict(line.split(b":", 1) for line in _read(f"/proc/{pid}/status").splitlines() if b":" in line)
    return fields[b"Uid"].split() == [b"0"] * 4 and bool(int(fields[b"CapEff"], 16) & _NET_ADMIN)


def _executable(pid: int) -> str:
    """The name of the file that it runs; empty where it may not be read."""
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)")
    except OSError:
        return ""


def _entry(path: str) -> Entry:
    found = Path(path).stat()
    return found.st_dev, found.st_ino


def _strings(path: str) -> tuple[str, ...]:
    """The NUL-separated strings of a /proc file."""
    text = _read(path)
    return tuple(os.fsdecode(piece) for piece in text.split(b"\0")[: -1 if text.endswith(b"\0") else None])


def _perhaps(read: Callable[[], tuple[str, ...]]) -> tuple[str, ...] | None:
    try:
        return read()
    except OSError:
        return None


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        pieces: list[bytes] = []
        size = 0
        while piece := os.read(fd, 1 << 16):
            pieces.append(piece)
            size += len(piece)
            if size > _LONGEST:
                raise OSError(f"{path} is longer than {_LONGEST} bytes")
        return b"".join(pieces)
    finally:
        os.close(fd)
