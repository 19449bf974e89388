"""What the agent itself states about masquerading, beside its rules: its subnet file and its command line.

Problem: rules that are gone may be damage or a decision. Promise: ``read`` gives the agent's own statement where it
can be read: ``--ip-masq`` (flag or FLANNELD_IP_MASQ) of a running process that counts as the agent
(``agent_processes``), and ``FLANNEL_IPMASQ`` of a subnet file that only root can write and that was written since the
standby was learned. A value that is missing, cannot be read, is invalid for flanneld or contradicts another one gives
``None``.
Next stage: ``deciding``.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hitless.guard.agent_processes import agent_processes
from hitless.kernel.namespaces import HERE, Namespace

__all__ = ["Statement", "of_arguments", "of_subnet_file", "read"]

# the texts that Go's strconv.ParseBool knows
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_LONGEST = 1 << 16  # bytes of a subnet file
_AHEAD = 2.0  # seconds that a file's time may lie in the future before it is taken for another clock's


@dataclass(frozen=True, slots=True)
class Statement:
    """``masquerade``: whether the agent states that it translates; ``source``: where, as a text."""

    masquerade: bool
    source: str


def of_subnet_file(text: str, name: str) -> Statement | None:
    """What a subnet.env states; the last line counts."""
    stated = None
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if key == "FLANNEL_IPMASQ":
            known = equals and value in _FALSE | _TRUE
            stated = Statement(value in _TRUE, f"{name} says {key}={value}") if known else None
    return stated


def of_arguments(arguments: Sequence[str], environment: Sequence[str] | None, name: str) -> Statement | None:
    """What a flanneld command line states; ``environment`` is ``None`` where it may not be read."""
    given = _flags(arguments[1:])
    if {"version", "help", "h"} & given.keys():
        return None  # no daemon
    if "ip-masq" in given:
        value = given["ip-masq"]
        option = "--ip-masq" + (f"={value}" if value != "true" else "")
        return Statement(value in _TRUE, f"{name} runs with {option}") if value in _FALSE | _TRUE else None
    if environment is None:
        return None
    for variable in environment:
        key, _, value = variable.partition("=")
        if key == "FLANNELD_IP_MASQ" and value:  # as flanneld: an empty one is none
            return Statement(value in _TRUE, f"{name} runs with {variable}") if value in _FALSE | _TRUE else None
    if Path(arguments[0]).name != "flanneld":
        return None  # what another agent does by default is not known here
    return Statement(False, f"{name} runs without --ip-masq")  # flanneld's default


def _flags(arguments: Sequence[str]) -> dict[str, str]:
    """The flags and their values, in Go's forms; of one that comes twice the last counts."""
    given: dict[str, str] = {}
    for argument in arguments:
        flag, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if argument.startswith("-") and flag:
            given[flag] = value if equals else "true"  # a switch; of the others only the name is used
    return given


def read(
    subnet_files: Iterable[str], processes: Iterable[str], since: float, namespace: Namespace = HERE
) -> Statement | None:
    """What the agent states now; files older than ``since`` (Unix seconds) do not count."""
    stated = [
        found
        for name in processes
        for each in agent_processes(name, namespace)
        if (found := of_arguments(each.arguments, each.environment, f"{name} (pid {each.pid})")) is not None
    ]
    if stated:
        # two that contradict each other: an old one that ends, or one that is not the agent. Neither counts
        return stated[0] if len({one.masquerade for one in stated}) == 1 else None
    for path in subnet_files:
        text = _file(path, since)
        if text is not None and (found := of_subnet_file(text, path)) is not None:
            return found
    return None


def _file(path: str, since: float) -> str | None:
    """The text of a file that only root can have written, and whose modification time is plausible."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO without a writer is not waited for
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        others = 0o002 if found.st_gid == 0 else 0o022
        foreign = found.st_uid not in (0, os.geteuid()) or found.st_mode & others
        if not stat.S_ISREG(found.st_mode) or foreign or found.st_size > _LONGEST:
            return None
        if not since <= found.st_mtime <= time.time() + _AHEAD:
            return None
        return os.read(fd, _LONGEST).decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    finally:
        os.close(fd)
