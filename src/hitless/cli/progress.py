"""``--progress live|lines|none``: what a drill shows on standard error while it runs; ``--quiet`` is older."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from hitless.errors import InputError

__all__ = ["chosen", "options"]

_F = TypeVar("_F", bound=Callable[..., Any])


def options(command: _F) -> _F:
    """Both options; the function gets ``progress_`` and ``quiet``."""
    command = click.option("--quiet", is_flag=True, help="The same as --progress lines.")(command)
    return click.option(
        "--progress",
        "progress_",
        type=click.Choice(["live", "lines", "none"]),
        help="On standard error meanwhile: a table that is redrawn, a line for each step, or nothing.  [default: live "
        "on a terminal, else lines]",
    )(command)


def chosen(progress: str | None, *, quiet: bool) -> str | None:
    """What was asked for; ``None``: whatever fits standard error."""
    if quiet and progress not in (None, "lines"):
        raise InputError(f"contradicts --progress {progress}", where="--quiet", expected="one of the two")
    if progress == "live" and not sys.stderr.isatty():
        raise InputError(
            "live redraws a terminal, and standard error is none", where="--progress", expected="lines or none"
        )
    return "lines" if quiet else progress
