"""The folders of rollouts: where a new one is made, which exist, what is in them, and removing them.

Promise: a folder counts only if it is a directory of this user, directly in the state folder, under a name that a
rollout gave it; it is removed only when nothing but a rollout's own files is in it. Links are never followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from hitless.cli import folders
from hitless.errors import MissingError
from hitless.kernel import files

__all__ = ["METRICS", "OWN_FILES", "REPORT", "RolloutFolder", "found", "new", "remove"]

REPORT, METRICS = "rollout.json", "rollout.prom"
_STEP = re.compile(r"\d{3,5}-[A-Za-z0-9.-]{1,253}", re.ASCII)
OWN_FILES = re.compile(r"rollout\.(json|html|prom)|\.rollout\.\w+\.new")
"""What a rollout writes beside the folders of its steps, and drafts of it that were cut off."""


@dataclass(frozen=True, slots=True)
class RolloutFolder:
    """A rollout's folder. ``report``: as it was written, empty where the rollout was cut off; ``other_files``: those
    in it that no rollout writes."""

    path: Path
    begun: datetime
    size: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    running: bool = False
    other_files: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """The verdict of its report; empty where nothing was restarted, or it was cut off."""
        return str(self.report.get("verdict") or "")

    @property
    def headline(self) -> str:
        """One line about it; empty where there is no report."""
        outcome = self.verdict or self.report.get("state")
        return f"{outcome}: {self.report.get('change')} of {self.report.get('agent')}" if outcome else ""


def _home() -> Path | None:
    drills = folders.home()
    return drills.parent / "rollouts" if drills is not None else None


def new() -> Path:
    """A new folder for the steps of a rollout, beside those of drills."""
    return folders.made(_home(), "hitless-rollout-")


def found() -> list[RolloutFolder]:
    """The rollouts' folders, the oldest first."""
    return [one for path in folders.inside(_home()) if (one := _read(path)) is not None]


def _read(path: Path) -> RolloutFolder | None:
    """What the folder is; ``None`` when it is not a rollout's."""
    name = folders.NAME.fullmatch(path.name)
    if name is None:
        return None
    try:
        seen = path.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
            return None
        entries = list(_entries(path))
        begun = datetime.strptime(name[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except (OSError, ValueError):
        return None
    report: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        report = msgspec.json.decode(files.read(path / REPORT, most=64 << 20), type=dict[str, Any])
    return RolloutFolder(
        path,
        begun,
        sum(size for _, size, _ in entries),
        report,
        not report and folders.alive(int(name[2])),
        tuple(sorted(one for one, _, own in entries if not own)),
    )


def _entries(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Files of the folder and of its steps: name, size, and whether a rollout writes such."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False) and _STEP.fullmatch(entry.name):
                with os.scandir(entry.path) as inside:
                    for one in inside:
                        size = one.stat(follow_symlinks=False).st_size
                        yield f"{entry.name}/{one.name}", size, bool(folders.OWN.fullmatch(one.name))
            else:
                yield entry.name, entry.stat(follow_symlinks=False).st_size, bool(OWN_FILES.fullmatch(entry.name))


def remove(folder: RolloutFolder) -> None:
    """Remove the steps, then the reports, then the folder; raises ``MissingError`` when something is in the way."""
    try:
        top = files.directory(folder.path)
        try:
            for name in _names(top, last=REPORT):
                if OWN_FILES.fullmatch(name):
                    os.unlink(name, dir_fd=top)
                elif _STEP.fullmatch(name):
                    _remove_step(folder.path / name)
                    os.rmdir(name, dir_fd=top)
                else:
                    raise _in_the_way(folder.path, name)
        finally:
            os.close(top)
        folder.path.rmdir()
    except OSError as error:
        raise MissingError(
            f"cannot remove {folder.path}: {error.strerror}", remedy="look at what is in it, and at its permissions"
        ) from error


def _remove_step(path: Path) -> None:
    fd = files.directory(path)
    try:
        # the log last: what is cut off in the middle is still a drill's folder
        for name in _names(fd, last=folders.LOG):
            if not folders.OWN.fullmatch(name):
                raise _in_the_way(path, name)
            os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


def _in_the_way(path: Path, name: str) -> MissingError:
    return MissingError(
        f"{path}: {name} is not a rollout's file; the folder is kept", remedy="move that file away first"
    )


def _names(fd: int, *, last: str) -> list[str]:
    with os.scandir(fd) as entries:
        return sorted((entry.name for entry in entries), key=lambda one: one == last)
