"""Whether a drill in a cluster is alive: what its driver writes while it runs, and what others read of that.

Problem: what a drill left and what a colleague's drill is working with look the same in the API, and two machines'
clocks cannot be compared. Promise: the driver writes a number into its owner ConfigMap every few seconds; whoever asks
sees it move, or not, for longer than a driver that is cut off from the server goes on. A driver of this very machine is
looked for itself: its process is there, with the start that was written down, or it is not. A drill of which neither
can be said is "unknown", never dead. Next stage: ``leftovers``.
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
    """Who drives: for people, and for whoever asks on this machine (boot, process namespace, process, its start)."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        user = f"user {os.getuid()}"
    told = {_DRIVER: f"{user}@{socket.gethostname()}, process {os.getpid()}"}
    with suppress(OSError):
        told[_PROCESS] = f"{_machine(proc)} {os.getpid()} {_start(os.getpid(), proc)}"
    return told


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
        # a process of somebody else may be hidden (/proc mounted with hidepid): then only its signs of life tell
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
    """Give signs of life until cancelled; ``owners`` are the ConfigMaps by namespace. ``removed`` is told when one is
    gone, ``warn`` when signs cannot be given."""
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
