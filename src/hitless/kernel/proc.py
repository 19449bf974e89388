"""The processes in this network namespace, from /proc, each known by its number and its start.

Problem: that an agent was restarted must be observed, not assumed; a process number may be given to another process.
Promise: only processes in this process's network namespace are listed, with whether they may change it. A process that
ends while it is read is left out. It only reads.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hitless.model.reading import whole_of

__all__ = ["Running", "running"]

_NET_ADMIN = 1 << 12
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Running:
    """A process: ``began`` in clock ticks after the machine's start, ``age`` in seconds; ``administrator``: it may
    change this network (CAP_NET_ADMIN)."""

    pid: int
    began: int
    name: str
    argv: tuple[str, ...]
    age: float
    administrator: bool

    @property
    def key(self) -> tuple[int, int]:
        """What no other process has."""
        return self.pid, self.began

    @property
    def program(self) -> str:
        """Its program's file name."""
        return self.argv[0].rpartition("/")[2] if self.argv else self.name


def running(proc: Path = Path("/proc")) -> tuple[Running, ...]:
    """Every process in this network namespace that may be read, without kernel threads."""
    try:
        here = (proc / "self/ns/net").stat().st_ino
        up = float((proc / "uptime").read_text().split()[0])
    except OSError:
        return ()
    found = []
    for entry in proc.iterdir():
        if whole_of(entry.name) is not None:
            try:
                one = _read(entry, here, up)
            except (OSError, ValueError, IndexError):  # it ended while it was read, or may not be read
                continue
            if one is not None:
                found.append(one)
    return tuple(sorted(found, key=lambda one: one.pid))


def _read(entry: Path, here: int, up: float) -> Running | None:
    if (entry / "ns/net").stat().st_ino != here:
        return None
    argv = tuple(part.decode(errors="replace") for part in (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0"))
    head, _, rest = (entry / "stat").read_text(errors="replace").rpartition(")")
    fields = rest.split()
    if argv == ("",) or fields[0] in ("Z", "X"):
        return None
    status = (entry / "status").read_text(errors="replace").splitlines()
    may = next((int(line.split()[1], 16) for line in status if line.startswith("CapEff:")), 0)
    began = int(fields[19])
    age = max(0.0, up - began / _TICKS)
    return Running(int(entry.name), began, head.partition("(")[2], argv, age, bool(may & _NET_ADMIN))
