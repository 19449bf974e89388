"""Writing rules: iptables-restore and nft, one transaction per call.

Problem: rule by rule, a change is dozens of commits and a window in which pods lose their egress. Promise: ``restore``
passes a whole text to ``iptables-{nft,legacy}-restore --noflush``, which commits it as one generation (nft) or one
table replacement (legacy); ``batch`` passes one to ``nft -f -``. Afterwards either all of it is in the kernel, or
nothing. A text that no plan of ours contains is refused before a program is started (``rule_text``). Only the program
holds the xtables lock, while it writes, and waits for it with a bound; ``LockBusy`` says that it was not available. An
iptables that is too old is refused (``MissingError``), with what is needed. Reading is elsewhere
(``hitless.kernel.chains``, ``hitless.kernel.xtables``).
"""

from __future__ import annotations

import re

from hitless.errors import MissingError, ProgramError
from hitless.kernel import processes, rule_text
from hitless.kernel.namespaces import HERE, Namespace

__all__ = ["LockBusy", "NotSupported", "batch", "knows_random_fully", "program", "restore"]

_RESOURCE_PROBLEM = 4  # iptables(8): exit code for a lock that could not be had, or a concurrent change (nft)
_RANDOM_FULLY_SINCE = (1, 6, 2)  # iptables 1.6.2 brought MASQUERADE --random-fully
_WAIT_SINCE = (1, 6, 2)  # and iptables-restore --wait
_NAMES_SINCE = (1, 8, 0)  # 1.8.0 brought the programs that say in their names which backend they are
_NEEDED = "install iptables 1.8 or newer (Debian 10, Ubuntu 19.04, RHEL 8 and later have it)"


class LockBusy(ProgramError):
    """Another process holds the xtables lock; try again later."""


class NotSupported(ProgramError):
    """The program, or the kernel, does not support an option in the text."""


def program(name: str) -> str:
    """The path of iptables-nft, iptables-legacy-restore and the like.

    Raises ``MissingError``, which distinguishes an iptables that is too old to have these names from a missing one.
    """
    try:
        return processes.program(name)
    except MissingError as error:
        plain = name.partition("-")[0]
        have = _version(plain)
        if have is not None and have < _NAMES_SINCE:
            message = f"{plain} {_text(have)} is too old: it has no program {name}"
            raise MissingError(message, remedy=_NEEDED) from error
        raise


def _version(name: str, namespace: Namespace = HERE) -> tuple[int, ...] | None:
    """An iptables program's version; ``None`` if the program is missing or does not report it."""
    try:
        text = processes.run([name, "--version"], namespace=namespace).stdout
    except (ProgramError, MissingError):
        return None
    found = re.search(r"v([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?", text)
    return None if found is None else tuple(int(part or 0) for part in found.groups())


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def restore(name: str, text: str, *, namespace: Namespace = HERE, lock_wait: int = 5) -> None:
    """Commit a text with an iptables-restore program.

    Raises ``KernelError`` for a text that is not one of ours (``rule_text``), before anything is started; ``LockBusy``,
    ``NotSupported``, ``ProgramError``, and ``MissingError`` for a missing program or one that is too old to wait for
    the lock: without waiting, it would fail whenever another program writes rules.
    """
    rule_text.check(name, text)
    command = [name, "--noflush", "--wait", str(lock_wait)]
    program(name)
    try:
        processes.run(command, namespace=namespace, stdin=text, timeout=lock_wait + 60.0)
    except ProgramError as error:
        if re.search(r"(unrecognized|unknown|invalid) option.*wait", error.stderr):
            have = _version(name, namespace)
            message = (
                f"{name}{f' {_text(have)}' if have else ''} is too old: it knows no --wait (since {_text(_WAIT_SINCE)})"
            )
            raise MissingError(message, remedy=_NEEDED) from error
        raise _kind(error) from error


def batch(text: str, *, namespace: Namespace = HERE) -> None:
    """Commit a text with nft; raises as ``restore`` does, with nft's message."""
    rule_text.check("nft", text)
    try:
        processes.run(["nft", "-f", "-"], namespace=namespace, stdin=text)
    except ProgramError as error:
        raise _kind(error) from error


def knows_random_fully(name: str, *, namespace: Namespace = HERE) -> bool:
    """Whether an iptables program (by its version) supports MASQUERADE --random-fully; true if it does not report a
    version."""
    have = _version(name, namespace)
    return have is None or have >= _RANDOM_FULLY_SINCE


def _kind(error: ProgramError) -> ProgramError:
    message = error.stderr.lower()
    if error.returncode == _RESOURCE_PROBLEM and "lock" in message:
        return LockBusy(error.command, error.returncode, error.stderr)
    if "unknown option" in message or "invalid argument" in message or "not supported" in message:
        return NotSupported(error.command, error.returncode, error.stderr)
    return error
