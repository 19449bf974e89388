"""Paths that a command may write to: what ``--out`` names, and nothing else.

Problem: an empty ``--out`` would mean the current directory, and a report cut off by a full disk looks like a report.
Promise: ``FolderParameter`` and ``FileParameter`` refuse an impossible path before anything is done; ``write`` writes
a file whole or not at all, and reports which file failed and why.
"""

from __future__ import annotations

import errno
import os
from abc import ABC, abstractmethod
from pathlib import Path

import click

from hitless.errors import InputError, MissingError
from hitless.evidence.log import remedy
from hitless.kernel import files

__all__ = ["FileParameter", "FolderParameter", "write"]


class _Place(click.ParamType, ABC):  # type: ignore[type-arg]  # takes an argument from click 8.4 on only
    name = "path"
    expected = ""

    @abstractmethod
    def wrong(self, path: Path) -> str:
        """Why this path cannot be used; empty when it can."""

    def convert(self, value: str | Path, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Raises ``InputError`` with the option's name."""
        flag = param.opts[0] if param is not None else ""
        if not str(value).strip():
            raise InputError("is empty", where=flag, expected=self.expected)
        path = Path(value)
        try:
            problem = self.wrong(path) or _in_the_way(path)
        except (OSError, ValueError) as error:
            problem = f"cannot be used: {error.strerror if isinstance(error, OSError) else error}"
        if problem:
            raise InputError(f"{path} {problem}", where=flag, expected=self.expected)
        return path


def _in_the_way(path: Path) -> str:
    """The part of the path that exists and is not a folder."""
    found = next((one for one in path.absolute().parents if os.path.lexists(one)), Path("/"))
    return "" if found.is_dir() else f"cannot be made: {found} is not a folder"


class FolderParameter(_Place):
    """A folder that exists or can be made."""

    expected = "a folder, there or to be made"

    def wrong(self, path: Path) -> str:
        return "is a file" if os.path.lexists(path) and not path.is_dir() else ""


class FileParameter(_Place):
    """A file that is replaced or made, in a folder that exists."""

    expected = "a file in a folder that is there"

    def wrong(self, path: Path) -> str:
        if path.is_dir():
            return "is a folder"
        return "" if path.absolute().parent.is_dir() else f"cannot be made: there is no folder {path.parent}"


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all; raises ``MissingError`` that names it."""
    data = text.encode("utf-8", "backslashreplace")
    try:
        # a pipe, a terminal or /dev/null is written to; a file is replaced
        if path.is_relative_to("/dev") or path.is_relative_to("/proc") or (path.exists() and not path.is_file()):
            _pour(path, data)
        else:
            files.replace(path, data, mode=None)
    except OSError as error:
        unread = error.errno == errno.ENXIO
        why = "it is a FIFO without a reader, or a socket" if unread else error.strerror
        raise MissingError(f"cannot write {path}: {why}", remedy=remedy(error)) from error


def _pour(path: Path, data: bytes) -> None:
    """Write to a pipe or device; a FIFO without a reader is an error at once."""
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    os.set_blocking(fd, True)
    with os.fdopen(fd, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
