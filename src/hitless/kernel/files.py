"""Reading and writing files as root: regular files only.

Problem: at a configured path, or where our own files should be, there may be something else: a FIFO blocks the reader,
a device returns anything, a symbolic or hard link leads writes into another program's file, an endless file fills the
memory. Promise: ``read`` opens without waiting, takes regular files only (symbolic links are followed: a ConfigMap is
made of them) and at most ``most`` bytes; ``replace`` writes a new file and renames it into place, whatever was there;
``own`` opens a file that we append to or lock, and refuses links, files of other users and anything but regular files.
All of them raise ``OSError`` with a message for users; the caller adds where and what for.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["MOST", "directory", "opened", "own", "read", "read_text", "replace"]

MOST = 8 << 20
"""Bytes that are read of a file where the caller names no other bound."""

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def opened(path: Path) -> int:
    """A descriptor for reading a regular file; the caller closes it."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _regular(os.fstat(fd), path)
    except OSError:
        os.close(fd)
        raise
    return fd


def directory(path: Path) -> int:
    """A descriptor of a directory, not by a symbolic link, for use as ``dir_fd``; the caller closes it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def read(path: Path, *, most: int = MOST) -> bytes:
    """The whole of a regular file of at most ``most`` bytes."""
    fd = opened(path)
    pieces: list[bytes] = []
    left = most + 1
    try:
        while left > 0 and (piece := os.read(fd, min(left, 1 << 16))):
            pieces.append(piece)
            left -= len(piece)
    finally:
        os.close(fd)
    if left <= 0:
        raise OSError(errno.EFBIG, f"is longer than {most} bytes", str(path))
    return b"".join(pieces)


def read_text(path: Path, *, most: int = MOST) -> str:
    """The same as text; raises also ``UnicodeDecodeError``."""
    return read(path, most=most).decode("utf-8")


def replace(path: Path, data: bytes, *, mode: int | None = 0o644, durable: bool = True) -> None:
    """Write the data there, whole or not at all. What was there, a link or a FIFO too, is replaced, not written to.

    ``mode``: its permissions, ``None`` for the user's umask; ``durable``: it is on the disk when this returns.
    """
    draft = path.with_name(f".{path.name}.new")
    for _ in range(2):
        with suppress(FileNotFoundError):
            draft.unlink()  # left by a killed process, or planted
        try:
            fd = os.open(
                draft,
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o666 if mode is None else mode,
            )
            break
        except FileExistsError:
            continue  # another process writes it too
    else:
        raise OSError(errno.EBUSY, "is being written by another process", str(path))
    try:
        try:
            if mode is not None:
                os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        if path.is_dir() and not path.is_symlink():
            raise OSError(errno.EISDIR, "is a directory, not a regular file", str(path))
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise


def own(path: Path, flags: int, mode: int = 0o600) -> int:
    """A descriptor for a file of ours that stays: made if it is not there, a regular one, with one name, and ours."""
    fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    try:
        found = os.fstat(fd)
        _regular(found, path)
        if found.st_nlink != 1:
            raise OSError(errno.EMLINK, "has another name (a hard link), or none", str(path))
        if found.st_uid != os.geteuid():
            raise OSError(errno.EPERM, f"belongs to user {found.st_uid}", str(path))
    except OSError:
        os.close(fd)
        raise
    return fd


def _regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((text for is_kind, text in _KINDS if is_kind(found.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"is {kind}, not a regular file", str(path))
