"""What the agent itself says about masquerading, beside its rules: its subnet file and its command line.

Problem: rules that are gone may be damage or a decision. Promise: ``read`` gives the agent's own words where they can
be had: ``FLANNEL_IPMASQ`` of a subnet file that was written since the standby was learned, and ``--ip-masq`` (flag or
FLANNELD_IP_MASQ) of a running process in this network namespace. Silence is no statement: what cannot be read, or
does not say, gives ``None``. Next stage: ``deciding``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Statement", "of_arguments", "of_subnet_file", "read"]

_FALSE = frozenset({"false", "0", "f"})
_TRUE = frozenset({"true", "1", "t", ""})


@dataclass(frozen=True, slots=True)
class Statement:
    """``masquerade``: whether the agent says that it translates; ``source`` in words."""

    masquerade: bool
    source: str


def of_subnet_file(text: str, name: str) -> Statement | None:
    """What a subnet.env says."""
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if key == "FLANNEL_IPMASQ" and equals and value.lower() in _FALSE | _TRUE - {""}:
            return Statement(value.lower() in _TRUE, f"{name} says {key}={value}")
    return None


def of_arguments(arguments: Sequence[str], environment: Sequence[str] | None, name: str) -> Statement | None:
    """What a flanneld command line says; ``environment`` is ``None`` where it may not be read."""
    for argument in arguments[1:]:
        flag, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == "ip-masq" and value.lower() in _FALSE | _TRUE:
            said = value.lower() in _TRUE
            return Statement(said, f"{name} runs with {argument}")
    if environment is None:
        return None
    for variable in environment:
        key, _, value = variable.partition("=")
        if key == "FLANNELD_IP_MASQ":
            return Statement(value.lower() in _TRUE - {""}, f"{name} runs with {variable}")
    return Statement(False, f"{name} runs without --ip-masq")  # flanneld's default


def read(subnet_files: Iterable[str], processes: Iterable[str], since: float) -> Statement | None:
    """The newest word of the agent; files older than ``since`` (Unix seconds) tell of another time."""
    for name in processes:
        for pid in _pids(name):
            found = _of_process(pid, name)
            if found is not None:
                return found
    for text in subnet_files:
        path = Path(text)
        try:
            if path.stat().st_mtime >= since:
                found = of_subnet_file(path.read_text(), text)
                if found is not None:
                    return found
        except (OSError, UnicodeDecodeError):
            continue
    return None


def _pids(name: str) -> list[int]:
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and _text(f"/proc/{entry.name}/comm").strip() == name[:15]:
            found.append(int(entry.name))
    return found


def _of_process(pid: int, name: str) -> Statement | None:
    try:
        if Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink():
            return None
    except OSError:
        pass  # another user's process: on a node there is one agent, and it is on the host's network
    arguments = _text(f"/proc/{pid}/cmdline").split("\0")
    if arguments == [""]:
        return None
    raw = _text(f"/proc/{pid}/environ")
    return of_arguments([each for each in arguments if each], raw.split("\0") if raw else None, f"{name} (pid {pid})")


def _text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
