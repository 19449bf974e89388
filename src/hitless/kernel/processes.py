"""Programs: the only place that runs one.

Problem: a program must run in a chosen namespace, with a chosen environment, without a shell, and must not outlive
the process that started it. Promise: ``run`` and ``start`` take argument lists, never strings; children get SIGKILL
when their parent dies (PR_SET_PDEATHSIG); output is bounded by the caller's choice of sink; failures are
``ProgramError`` with the program's own message, a missing program is ``MissingError`` with the package to install.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, NoReturn

from hitless.errors import MissingError, ProgramError
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.subreaper import contain

if TYPE_CHECKING:  # asyncio costs 40 ms, and most programs that start programs have no event loop
    import asyncio

__all__ = [
    "DEVNULL",
    "PACKAGES",
    "PIPE",
    "STDOUT",
    "Process",
    "command_in",
    "ended",
    "errors_of",
    "program",
    "replace",
    "run",
    "send",
    "start",
    "start_async",
    "start_contained",
]

Process = subprocess.Popen[bytes]
PIPE, DEVNULL, STDOUT = subprocess.PIPE, subprocess.DEVNULL, subprocess.STDOUT

PACKAGES: Mapping[str, str] = {
    "etcd": "etcd-server",
    "ip": "iproute2",
    "nft": "nftables",
    "iptables-nft": "iptables",
    "iptables-legacy": "iptables",
    "ip6tables-nft": "iptables",
    "ip6tables-legacy": "iptables",
    "iptables-nft-restore": "iptables",
    "iptables-legacy-restore": "iptables",
    "ip6tables-nft-restore": "iptables",
    "ip6tables-legacy-restore": "iptables",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "sysctl": "procps",
    "ping": "iputils-ping",
}
"""The Debian package that a program comes from."""

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PR_SET_PDEATHSIG = 1
_LAST_OUTPUT = 1 << 16  # bytes


def program(name: str) -> str:
    """The path of a program, from PATH and the sbin folders; raises ``MissingError`` with its package."""
    if "/" in name:
        return name
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SEARCH}")
    if found is None:
        remedy = f"install it: apt-get install {PACKAGES[name]}" if name in PACKAGES else "install it, or give its path"
        raise MissingError(f"the program {name} is not installed", remedy=remedy)
    return found


def command_in(namespace: Namespace, command: Sequence[str]) -> list[str]:
    """The argument list that runs ``command`` in ``namespace`` (by nsenter; unchanged for ``HERE``)."""
    line = [program(command[0]), *command[1:]]
    if namespace.net is None and namespace.mnt is None:
        return line
    enter = [program("nsenter")]
    if namespace.user is not None:
        enter += [f"--user={namespace.user}", "--preserve-credentials"]
    if namespace.mnt is not None:
        enter.append(f"--mount={namespace.mnt}")
    if namespace.net is not None:
        enter.append(f"--net={namespace.net}")
    return [*enter, "--", *line]


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    path = os.environ.get("PATH", "")
    return {**os.environ, "PATH": f"{path}:{_SEARCH}" if path else _SEARCH, "LC_ALL": "C.UTF-8", **(extra or {})}


def run(
    command: Sequence[str],
    *,
    namespace: Namespace = HERE,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float | None = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return its output as text; raises ``ProgramError`` when it fails and ``check``."""
    line = command_in(namespace, command)
    try:
        done = subprocess.run(
            line,
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            errors="replace",  # a program's output need not be UTF-8
            env=_environment(environment),
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(command, -signal.SIGKILL, f"did not end within {timeout} s") from error
    except Exception as error:
        raise ProgramError(command, -1, str(error) or type(error).__name__) from error
    if check and done.returncode != 0:
        raise ProgramError(command, done.returncode, done.stderr or done.stdout)
    return done


def errors_of(command: Sequence[str], *, timeout: float) -> str:
    """Run a program to its end and return what was written to its standard error until then; raises ``ProgramError``.

    A daemon that it started and left running is not waited for. It may keep that standard error open, and is not killed
    by a broken pipe when we end: its later writes there fail as on a full disk.
    """
    output = os.memfd_create("hitless-stderr", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        process = start(command, stderr=output, tied=False)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ProgramError(command, -signal.SIGKILL, f"did not end within {timeout:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
            fcntl.fcntl(output, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        size = os.fstat(output).st_size
        text = os.pread(output, _LAST_OUTPUT, max(0, size - _LAST_OUTPUT)).decode(errors="replace").replace("\0", "")
    finally:
        os.close(output)
    if code != 0:
        raise ProgramError(command, code, text)
    return text


def start(
    command: Sequence[str],
    *,
    namespace: Namespace = HERE,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
    new_session: bool = False,
    keep_fds: Sequence[int] = (),
    tied: bool = True,
    untouched: bool = False,
) -> Process:
    """Start a program that dies with its parent thread; the caller owns the process and must wait for it.

    ``untouched``: with the environment that we have, language included (a command that a user typed).
    The kernel ties the death signal to the *thread* that forks: start from a thread that lives as long as the child.
    ``tied`` false: it may outlive us (the keeper of a lab that stays up).
    """
    line = command_in(namespace, command)
    try:
        return subprocess.Popen(
            line,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=None if untouched else _environment(environment),
            start_new_session=new_session,
            preexec_fn=_die_with_parent if tied else None,
            pass_fds=tuple(keep_fds),
        )
    except Exception as error:
        raise ProgramError(command, -1, str(error) or type(error).__name__) from error


def ended(process: Process, seconds: float) -> int | None:
    """The exit code of a process of ``start``, minus the signal's number; ``None`` when it runs after ``seconds``."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def replace(
    command: Sequence[str], *, namespace: Namespace = HERE, environment: Mapping[str, str] | None = None
) -> NoReturn:
    """Become the program: same process, streams and exit code; raises ``ProgramError`` when it cannot start."""
    line = command_in(namespace, command)
    try:
        os.execve(line[0], line, _environment(environment))
    except OSError as error:
        raise ProgramError(command, -1, error.strerror or str(error)) from error


async def start_async(
    command: Sequence[str],
    *,
    namespace: Namespace = HERE,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = subprocess.PIPE,
    stderr: int | None = subprocess.PIPE,
    environment: Mapping[str, str] | None = None,
    new_session: bool = False,
    limit: int = 1 << 20,
) -> asyncio.subprocess.Process:
    """As ``start``, with streams for an event loop; ``limit`` is the longest line in bytes."""
    import asyncio

    line = command_in(namespace, command)
    try:
        return await asyncio.create_subprocess_exec(
            *line,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=_environment(environment),
            start_new_session=new_session,
            preexec_fn=_die_with_parent,
            limit=limit,
        )
    except Exception as error:
        raise ProgramError(command, -1, str(error) or type(error).__name__) from error


def send(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal to a process of ``start_async``; nothing happens when it has ended.

    Not by ``Process.send_signal``: that first calls waitpid(2), which takes the exit code away from asyncio; asyncio
    then writes "Unknown child process" to standard error and reports 255.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


async def start_contained(
    command: Sequence[str],
    *,
    namespace: Namespace = HERE,
    output: int,
    environment: Mapping[str, str] | None = None,
) -> tuple[asyncio.subprocess.Process, int]:
    """Start a program as in a container: the process that is ours to wait for, and the program's own number.

    The process (``hitless.kernel.subreaper``) ends as the program did, and when nothing that the program started runs
    any more, daemons included. SIGTERM to it ends all of that at once; other signals are for the program itself.
    """
    import asyncio

    ours, theirs = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *command_in(namespace, command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(environment),
            start_new_session=True,
            preexec_fn=lambda: contain(theirs),
        )
        return process, int.from_bytes(os.read(ours, 4), "little")
    finally:
        os.close(theirs)
        os.close(ours)
