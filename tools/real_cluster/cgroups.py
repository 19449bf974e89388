"""The cgroup below which a node's pods live, in version 1 (one tree a controller) and version 2."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_CONTROLLERS = "+cpuset +cpu +memory +pids"


def make(name: str) -> None:
    """The cgroup in every hierarchy, ready for a kubelet."""
    for tree in _trees():
        place = tree / name
        place.mkdir(exist_ok=True)
        if tree.name == "cpuset":
            for one in ("cpuset.cpus", "cpuset.mems"):
                (place / one).write_text((tree / one).read_text())
            (place / "cgroup.clone_children").write_text("1")
        if tree == _ROOT:
            (tree / "cgroup.subtree_control").write_text(_CONTROLLERS)


def kill(name: str) -> None:
    """End every process below it: only the node's own pods are there."""
    for _ in range(20):
        found = {pid for tree in _trees() for pid in _processes(tree / name)}
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def remove(name: str) -> None:
    """Remove it with what is below it; beside version 1 also what runc made in version 2's tree."""
    for tree in {*_trees(), *(_ROOT.glob("unified"))}:
        below = sorted((tree / name).rglob("*/"), reverse=True) if (tree / name).exists() else []
        for place in [*(one for one in below if one.is_dir()), tree / name]:
            try:
                place.rmdir()
            except OSError:
                continue  # not empty yet, or gone: the next start takes it as it is


def _trees() -> list[Path]:
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    return [one for one in sorted(_ROOT.iterdir()) if one.is_dir() and one.name != "unified" and not one.is_symlink()]


def _processes(place: Path) -> Iterator[int]:
    for folder, _, _ in os.walk(place):  # passes over what is removed meanwhile
        try:
            text = Path(folder, "cgroup.procs").read_text()
        except OSError:
            continue
        yield from (int(line) for line in text.split())
