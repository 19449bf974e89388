"""Namespaces: naming one, entering one.

Problem: rules, sockets and interfaces belong to a network namespace, and a node of the lab has a mount namespace too
(its own /run). Promise: a ``Namespace`` is a value that names both by paths under /proc, so that nothing in the file
system outlives the process that keeps it; sockets are opened inside by a short-lived thread, so that the caller's own
namespace never changes. Programs are started inside by ``hitless.kernel.processes``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hitless.errors import InputError, KernelError, MissingError, NotFound
from hitless.model.reading import whole_of

__all__ = [
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWUSER",
    "HERE",
    "Namespace",
    "enter",
    "exists",
    "inside",
    "named",
    "setns",
    "unshare",
]

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace, and the mount and user namespaces that go with it; ``None`` means the caller's own."""

    name: str
    net: str | None = None
    mnt: str | None = None
    user: str | None = None
    pid: int | None = None

    @classmethod
    def of_process(cls, name: str, pid: int, *, mount: bool = True) -> Namespace:
        """The namespaces that process ``pid`` lives in."""
        base = f"/proc/{pid}/ns"
        return cls(name, net=f"{base}/net", mnt=f"{base}/mnt" if mount else None, pid=pid)


HERE = Namespace("here")
"""The caller's own namespaces."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace of ``fd`` (mount and user: only a single-threaded process)."""
    if _libc().setns(fd, kind) != 0:
        number = ctypes.get_errno()
        raise KernelError("enter", f"namespace of file descriptor {fd}", number)


def named(text: str, *, where: str = "--namespace") -> Namespace:
    """The network namespace that a user names by a process id or by a path such as /run/netns/NAME."""
    path = Path(f"/proc/{text}/ns/net") if whole_of(text) is not None else Path(text)
    expected = "a process id, or a path such as /run/netns/NAME"
    try:
        found = path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev  # all namespaces lie in nsfs
    except PermissionError as error:
        raise MissingError(f"may not look at namespace {text}", remedy="run it as root") from error
    except OSError as error:
        raise InputError(f"there is no namespace {text}", where=where, expected=expected) from error
    if not found:
        raise InputError(f"{text} is not a namespace", where=where, expected=expected)
    return Namespace(text, net=str(path))


def enter(namespace: Namespace) -> None:
    """Move the calling thread (a program with one thread: itself) into the network namespace, for good."""
    if namespace.net is None:
        return
    try:
        fd = os.open(namespace.net, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFound("enter", f"namespace {namespace.name} ({namespace.net})", error.errno or 0) from error
    except PermissionError as error:
        raise MissingError(f"may not open namespace {namespace.name}", remedy="run it as root") from error
    try:
        setns(fd, CLONE_NEWNET)
    except KernelError as error:
        if error.errno == errno.EPERM:
            raise MissingError(f"may not enter namespace {namespace.name}", remedy="run it as root") from error
        raise
    finally:
        os.close(fd)


def unshare(flags: int) -> None:
    """Give the calling thread (for user namespaces: the single-threaded process) new namespaces."""
    if _libc().unshare(flags) != 0:
        number = ctypes.get_errno()
        if number in (errno.EPERM, errno.ENOSPC, errno.EINVAL):
            raise MissingError(
                f"this process may not make namespaces ({os.strerror(number)})",
                remedy="run it as root, or allow user namespaces (sysctl user.max_user_namespaces, "
                "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)",
            )
        raise KernelError("make", "namespaces", number)


def inside(namespace: Namespace, action: Callable[[], _T]) -> _T:
    """Call ``action`` with the calling thread in the network namespace, and return what it returns.

    It runs in a thread of its own, so the caller's namespace stays; a socket that ``action`` opens stays in the
    namespace for its whole life. Only the network namespace is entered: a thread cannot enter a mount namespace.
    Raises ``NotFound`` when the namespace is gone.
    """
    if namespace.net is None:
        return action()
    outcome: list[_T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            fd = os.open(str(namespace.net), os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(fd, CLONE_NEWNET)
            finally:
                os.close(fd)
            outcome.append(action())
        except FileNotFoundError as error:
            failure.append(NotFound("enter", f"namespace {namespace.name} ({namespace.net})", error.errno or 0))
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread and raised there
            failure.append(error)

    thread = threading.Thread(target=run, name=f"in-{namespace.name}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def exists(namespace: Namespace) -> bool:
    """Whether the network namespace can still be named."""
    return namespace.net is None or Path(namespace.net).exists()
