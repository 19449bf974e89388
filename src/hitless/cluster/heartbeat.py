"""Whether a drill in a cluster is alive: what its driver writes while it runs, and what others read of that.

Problem: the leftovers of a dead drill and the objects of a running one look the same in the API, and the clocks of two
machines cannot be compared. Promise: the driver changes a number in its owner ConfigMap every few seconds; a reader
watches whether it changes, for longer than a driver that is cut off from the server goes on. A driver on this machine
is checked directly: its process exists, with the recorded start time, or it does not. If neither can be decided, the
drill is "unknown", never dead. Next stages: ``registry``, ``leftovers``.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

from hitless.errors import ApiError, HitlessError
from hitless.kube.api import Api, Patience
from hitless.kube.objects import CONFIG_MAPS, ConfigMap
from hitless.model import reading

__all__ = ["BEAT", "GLANCE", "LOOK", "Life", "beat", "driver", "here", "number", "of_process"]

BEAT = 5.0
"""Seconds between two signs of life of a drill."""

LOOK = Patience().total + 60.0
"""Seconds without one after which a drill is dead. The restart of an agent may cut the driver off from the
server, and the driver then goes on for ``Patience.total`` seconds from when it noticed."""

GLANCE = 30.0
"""Seconds in which a drill that is not cut off shows one."""

ANNOTATION = "hitless.dev/beat"
_DRIVER, _PROCESS = "driver", "process"

Life = Literal["alive", "dead", "unknown"]


def driver(proc: Path = Path("/proc")) -> dict[str, str]:
    """This driver: a name for users, and its process for readers on this machine (boot, PID namespace, pid, start)."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        user = f"user {os.getuid()}"
    annotations = {_DRIVER: f"{user}@{socket.gethostname()}, process {os.getpid()}"}
    with suppress(OSError):
        annotations[_PROCESS] = f"{_machine(proc)} {os.getpid()} {_start(os.getpid(), proc)}"
    return annotations


def _machine(proc: Path) -> str:
    boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {(proc / 'self/ns/pid').stat().st_ino}"


def _start(pid: int, proc: Path) -> str:
    """When the process began, in clock ticks since boot; empty when it has ended."""
    fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def here(owner: ConfigMap, proc: Path = Path("/proc")) -> Life:
    """What this machine knows of a drill's driver; unknown when it runs on another one."""
    return of_process((owner.data or {}).get(_PROCESS, ""), proc)


def of_process(text: str, proc: Path = Path("/proc")) -> Life:
    """The same of a driver's ``process``, as ``driver`` writes it."""
    fields = text.split()
    try:
        pid = reading.whole_of(fields[2]) if len(fields) == 4 else None
        if pid is None or " ".join(fields[:2]) != _machine(proc):
            return "unknown"
    except OSError:
        return "unknown"
    try:
        return "alive" if _start(pid, proc) == fields[3] else "dead"
    except (OSError, IndexError):
        # another user's process may be hidden (/proc mounted with hidepid): then only its heartbeat counts
        return "unknown" if _exists(pid) else "dead"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def number(owner: ConfigMap) -> str:
    """The drill's last sign of life; empty when it never gave one (an older hitless, or no right to)."""
    return (owner.metadata.annotations or {}).get(ANNOTATION, "")


async def beat(
    api: Api, owners: Mapping[str, str], removed: Callable[[str], None], warn: Callable[[str], None]
) -> None:
    """Give signs of life until cancelled; ``owners`` are the ConfigMaps by namespace. ``removed`` is called when one
    was deleted, ``warn`` when they cannot be patched."""
    count = 0
    left = dict(owners)
    while left:
        count += 1
        for place, name in list(left.items()):
            patch = {"metadata": {"annotations": {ANNOTATION: str(count)}}}
            try:
                await api.patch(CONFIG_MAPS, name, place, patch, "application/merge-patch+json")
            except ApiError as error:
                if error.status == 404:
                    removed(f"somebody removed the ConfigMap {place}/{name}, which owns this drill's pods")
                elif error.status == 403:
                    warn(f"this drill cannot show that it is alive (drill --cleanup leaves it alone): {error}")
                else:
                    continue  # the server is away
                del left[place]
            except HitlessError:
                continue
        await api.patience.sleep(BEAT)
