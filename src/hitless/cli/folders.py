"""The folders of drills: where a new one is made, which exist, and which may be removed.

Problem: after a week of drills it is not clear where the logs are, and a clean-up must not remove anything else.
Promise: a folder counts only if it is directly in the user's state folder under a name that a drill gave it, is
ours and not a link, and holds an event log that begins with a header; it is removed only when nothing but a drill's own
files is in it, and no drill is writing there. Never: following a link, removing a file that it does not know.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from hitless.errors import MissingError
from hitless.kernel import files
from hitless.model.events import LONGEST, Header, decode

__all__ = ["LOG", "NAME", "OWN", "Folder", "alive", "found", "home", "inside", "made", "named", "new", "remove"]

LOG = "events.jsonl"
NAME = re.compile(r"(\d{8}T\d{6}Z)-(\d{1,10})(?:-\d{1,4})?", re.ASCII)
OWN = re.compile(r"events\.jsonl|report\.(json|html|svg|txt|prom|xml)|junit\.xml|\.(report|junit)\.\w+\.new")
"""What a drill and ``hitless report`` write, and drafts of it that were cut off."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A drill's folder. ``verdict`` and ``headline`` are those of its report, empty when there is none;
    ``other_files``: files in it that drills do not write."""

    path: Path
    begun: datetime
    size: int = 0
    verdict: str = ""
    headline: str = ""
    running: bool = False
    other_files: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        """Its event log."""
        return self.path / LOG


class _Report(msgspec.Struct):
    verdict: str = ""
    headline: str = ""


def home() -> Path | None:
    """The folder of this user's drills (XDG_STATE_HOME); ``None`` for a user without a home."""
    state = os.environ.get("XDG_STATE_HOME") or (os.environ.get("HOME", "") and f"{os.environ['HOME']}/.local/state")
    return Path(state) / "hitless" / "drills" if state else None


def new() -> Path:
    """A new folder there, else (no home, or one that is not ours: a service's user) a temporary one."""
    return made(home(), "hitless-drill-")


def made(place: Path | None, temporary: str) -> Path:
    """A new folder in ``place``, named by time and process; where that is not possible, a temporary one."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
    try:
        folder = (place or Path("/nonexistent")) / name
        folder.mkdir(parents=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix=temporary))
    return folder


def found() -> list[Folder]:
    """The drills' folders, the oldest first."""
    return [one for path in inside(home()) if (one := _read(path)) is not None]


def inside(place: Path | None) -> list[Path]:
    """What is in a folder, by name; nothing where it cannot be read."""
    try:
        return sorted(place.iterdir()) if place is not None else []
    except OSError:
        return []


def named(name: str) -> Folder | None:
    """The folder of this name, or of the only one that begins so."""
    there = found()
    exact = [one for one in there if one.path.name == name]
    begun = exact or [one for one in there if name and one.path.name.startswith(name)]
    return begun[0] if len(begun) == 1 else None


def remove(folder: Folder) -> None:
    """Remove the files, the log last, and the folder; raises ``MissingError`` when something is in the way."""
    try:
        fd = files.directory(folder.path)
        try:
            # the log last: what is cut off in the middle is still a drill's folder
            with os.scandir(fd) as entries:
                names = sorted((entry.name for entry in entries), key=lambda one: one == LOG)
            for name in names:
                if not OWN.fullmatch(name):
                    raise MissingError(
                        f"{folder.path}: {name} is not a drill's file; the folder stays", remedy="move it away first"
                    )
                os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
        folder.path.rmdir()
    except OSError as error:
        raise MissingError(
            f"cannot remove {folder.path}: {error.strerror}", remedy="look at what is in it, and at its permissions"
        ) from error


def _read(path: Path) -> Folder | None:
    """What the folder is; ``None`` when it is not a drill's."""
    name = NAME.fullmatch(path.name)
    if name is None:
        return None
    try:
        seen = path.lstat()
        if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid() or not _is_log(path / LOG):
            return None
        entries = list(_entries(path))
        begun = datetime.strptime(name[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except (OSError, ValueError):
        return None
    report = _Report()
    with contextlib.suppress(OSError, msgspec.DecodeError, RecursionError):
        report = msgspec.json.decode(files.read(path / "report.json", most=64 << 20), type=_Report)
    return Folder(
        path,
        begun,
        sum(size for _, size in entries),
        report.verdict,
        report.headline,
        _held(path / LOG) or (not report.verdict and alive(int(name[2]))),
        tuple(sorted(one for one, _ in entries if not OWN.fullmatch(one))),
    )


def _entries(path: Path) -> Iterator[tuple[str, int]]:
    with os.scandir(path) as entries:
        for entry in entries:
            yield entry.name, entry.stat(follow_symlinks=False).st_size


def _is_log(path: Path) -> bool:
    """Whether the file begins as a drill's log does."""
    if not stat.S_ISREG(path.lstat().st_mode):
        return False
    with os.fdopen(files.opened(path), "rb") as file:
        line = file.readline(LONGEST + 1)
    try:
        return isinstance(decode(line), Header)
    except msgspec.DecodeError:
        return False


def _held(log: Path) -> bool:
    """Whether a drill has the log open to write (``evidence.log`` locks it)."""
    try:
        fd = files.opened(log)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def alive(pid: int) -> bool:
    """Whether the process that the folder is named after runs, and is one of ours: it may be writing its reports."""
    try:
        return b"hitless" in files.read(Path(f"/proc/{pid}/cmdline"))
    except OSError:
        return False
