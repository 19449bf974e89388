"""Looks at real-time threads of other processes from an ordinary thread, while they stand still, and writes down why.

    python bench/parts/stall_watchdog.py PARENT OUT

Every 50 ms: each real-time thread among the descendants of process PARENT whose processor time and count of turns did
not change for ``_STILL`` seconds although it wants to run (state R), cannot be woken (D), or should have woken by
itself (the watch's receiving thread, every 200 ms). One JSON line an episode, when it has ended: how long, the state,
core, wait for a core as the kernel counts it, where it stood in the kernel, and of every core meanwhile: timer
interrupts, time taken by the host (steal), and who was running there with its place in the kernel. Ends with PARENT.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_EVERY = 0.05
_STILL = 0.5
_WAKES = "nftables-events"  # its name, cut by the kernel at 15 letters
_SAMPLES = 4
_REALTIME = (1, 2)


@dataclass
class Thread:
    """What was last seen of a thread, and since when it is so."""

    turns: tuple[int, int]
    since: float
    delay: int
    cores: dict[str, dict[str, int]] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)
    samples: list[dict[str, object]] = field(default_factory=list)


def main() -> int:
    parent, out = int(sys.argv[1]), Path(sys.argv[2])
    known: dict[str, Thread] = {}
    last, slowest = time.monotonic(), 0.0
    with out.open("w") as sink:
        while Path(f"/proc/{parent}").exists():
            now = time.monotonic()
            own, last = now - last - _EVERY, now
            slowest = max(slowest, own)
            for place in _threads(parent):
                _look(place, known, now, own, sink.write)
            sink.flush()
            time.sleep(_EVERY)
        sink.write(json.dumps({"own_longest_s": round(slowest, 3)}) + "\n")
    return 0


def _threads(parent: int) -> list[str]:
    """The threads of all that descend from ``parent``."""
    children: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            words = _read(f"/proc/{entry.name}/stat").rpartition(") ")[2].split()
            if words:
                children.setdefault(int(words[1]), []).append(int(entry.name))
    found, todo = [], [parent]
    while todo:
        for child in children.get(todo.pop(), ()):
            todo.append(child)
            with contextlib.suppress(OSError):
                found += [str(one) for one in Path(f"/proc/{child}/task").iterdir()]
    return found


def _look(place: str, known: dict[str, Thread], now: float, own: float, write: Callable[[str], object]) -> None:
    head, _, rest = _read(f"{place}/stat").rpartition(") ")
    words, counted = rest.split(), _read(f"{place}/schedstat").split()
    if len(words) < 39 or len(counted) < 3 or int(words[38]) not in _REALTIME:
        known.pop(place, None)
        return
    name, state = head.partition("(")[2], words[0]
    turns, delay = (int(counted[0]), int(counted[2])), int(counted[1])
    seen = known.get(place)
    if seen is None or seen.turns != turns:
        if seen is not None and seen.samples:
            told = {
                "name": name,
                "thread": place,
                "seconds": round(now - seen.since, 3),
                "waited_for_core_s": round((delay - seen.delay) / 1e9, 3),
                "states": sorted(set(seen.states)),
                "cores": _difference(seen.cores, _cores()),
                "samples": seen.samples,
                "watchdog_late_s": round(own, 3),
            }
            write(json.dumps(told) + "\n")
        known[place] = Thread(turns, now, delay)
        return
    wants = state in "RD" or name.startswith(_WAKES)
    if now - seen.since < _STILL:
        if not seen.cores:
            seen.cores = _cores()
    elif wants:
        seen.states.append(state)
        if len(seen.samples) < _SAMPLES:
            seen.samples.append(_sample(place, state, words))


def _sample(place: str, state: str, words: list[str]) -> dict[str, object]:
    running = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        head, _, rest = _read(f"/proc/{entry.name}/stat").rpartition(") ")
        if rest.startswith("R") and int(entry.name) != os.getpid():
            fields = rest.split()
            running[entry.name] = {
                "name": head.partition("(")[2],
                "core": int(fields[36]),
                "policy": int(fields[38]),
                "priority": int(fields[15]),
                "stack": _read(f"/proc/{entry.name}/stack").splitlines()[:6],
            }
    return {
        "state": state,
        "core": int(words[36]),
        "wchan": _read(f"{place}/wchan"),
        "stack": _read(f"{place}/stack").splitlines()[:8],
        "cgroup": [line for line in _read(f"{place}/cgroup").splitlines() if ":cpu" in line or line.startswith("0::")],
        "running": running,
    }


def _cores() -> dict[str, dict[str, int]]:
    """Of each core: time taken by the host, and timer interrupts, since boot."""
    found: dict[str, dict[str, int]] = {}
    for line in _read("/proc/stat").splitlines():
        words = line.split()
        if words and words[0].startswith("cpu") and words[0] != "cpu":
            found[words[0]] = {"steal_ticks": int(words[8]), "system_ticks": int(words[3]), "user_ticks": int(words[1])}
    for line in _read("/proc/interrupts").splitlines():
        words = line.split()
        if words and words[0] == "LOC:":
            for number, text in enumerate(words[1 : 1 + len(found)]):
                found.setdefault(f"cpu{number}", {})["timer_interrupts"] = int(text)
    return found


def _difference(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    return {
        core: {what: number - before.get(core, {}).get(what, number) for what, number in each.items()}
        for core, each in after.items()
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
