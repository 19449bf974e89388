"""Writing rules: iptables-restore and nft, one transaction a call.

Problem: rule by rule, a change is dozens of commits and a window in which pods lose their egress. Promise: ``restore``
hands a whole text to ``iptables-{nft,legacy}-restore --noflush``, which commits it as one generation (nft) or one
table replacement (legacy); ``batch`` hands one to ``nft -f -``. Either all of it is in the kernel afterwards, or
nothing. The xtables lock is held by the program alone, while it writes, and waited for with a bound; ``LockBusy``
says that it could not be had. Reading is elsewhere (``hitless.kernel.chains``, ``hitless.kernel.xtables``).
"""

from __future__ import annotations

import re

from hitless.errors import MissingError, ProgramError
from hitless.kernel import processes
from hitless.kernel.namespaces import HERE, Namespace

__all__ = ["LockBusy", "NotSupported", "batch", "knows_random_fully", "restore"]

_RESOURCE_PROBLEM = 4  # iptables(8): exit code for a lock that could not be had, or a concurrent change (nft)
_RANDOM_FULLY_SINCE = (1, 6, 2)  # iptables 1.6.2 brought MASQUERADE --random-fully


class LockBusy(ProgramError):
    """Somebody else holds the xtables lock; try again later."""


class NotSupported(ProgramError):
    """The program, or the kernel under it, does not know an option that the text uses."""


def restore(program: str, text: str, *, namespace: Namespace = HERE, lock_wait: int = 5) -> None:
    """Commit a text with an iptables-restore program; raises ``LockBusy``, ``NotSupported``, ``ProgramError``."""
    command = [program, "--noflush", "--wait", str(lock_wait)]
    try:
        processes.run(command, namespace=namespace, stdin=text, timeout=lock_wait + 60.0)
    except ProgramError as error:
        raise _kind(error) from error


def batch(text: str, *, namespace: Namespace = HERE) -> None:
    """Commit a text with nft; raises ``NotSupported`` or ``ProgramError`` with its words."""
    try:
        processes.run(["nft", "-f", "-"], namespace=namespace, stdin=text)
    except ProgramError as error:
        raise _kind(error) from error


def knows_random_fully(program: str, *, namespace: Namespace = HERE) -> bool:
    """Whether an iptables program (by its version) knows MASQUERADE --random-fully; true where it does not tell."""
    try:
        text = processes.run([program, "--version"], namespace=namespace).stdout
    except (ProgramError, MissingError):
        return True
    found = re.search(r"v(\d+)\.(\d+)(?:\.(\d+))?", text)
    return found is None or tuple(int(part or 0) for part in found.groups()) >= _RANDOM_FULLY_SINCE


def _kind(error: ProgramError) -> ProgramError:
    words = error.stderr.lower()
    if error.returncode == _RESOURCE_PROBLEM and "lock" in words:
        return LockBusy(error.command, error.returncode, error.stderr)
    if "unknown option" in words or "invalid argument" in words or "not supported" in words:
        return NotSupported(error.command, error.returncode, error.stderr)
    return error
