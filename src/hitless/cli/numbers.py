"""Options that take numbers: the help shows the range, and other values are refused with the flag.

Problem: a range that is found out by trial costs a drill, and click takes "nan" and "inf" for numbers. Promise: every
numeric option of the command line is made by ``number``; its range is shown in ``--help`` and in the error, from one
place (where the value is used has the same bounds: ``LIMITS`` of the plans).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from hitless.errors import InputError
from hitless.model.reading import shown

__all__ = ["Number", "number"]

_PLAIN = re.compile(r"[-+.0-9A-Za-z]{1,40}")  # no blanks, no underscores, no digits of other scripts

_F = TypeVar("_F", bound=Callable[..., Any])


class Number(click.ParamType):  # type: ignore[type-arg]  # takes an argument from click 8.4 on only
    """A whole number (``int`` bounds) or any (``float`` bounds), from ``least`` to ``most``."""

    name = "number"

    def __init__(self, least: float, most: float = math.inf) -> None:
        self.kind: type[int] | type[float] = int if isinstance(least, int) else float
        self.least, self.most = least, most
        self.range = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Raises ``InputError`` with the option's name."""
        flag = param.opts[0] if param is not None else ""
        try:
            if isinstance(value, str) and not _PLAIN.fullmatch(value):
                raise ValueError(value)
            found = self.kind(value)
        except ValueError as error:
            what = "whole number" if self.kind is int else "number"
            raise InputError(f"{shown(value)} is not a {what}", where=flag, expected=self.range) from error
        if not self.least <= found <= self.most or found == math.inf:
            raise InputError(f"{value} is out of range", where=flag, expected=self.range)
        return found


def number(
    *names: str,
    limits: tuple[float, float] | tuple[float],
    help: str,
    default: float | None = None,
    unset: str = "",
    metavar: str = "",
    name: str = "",
) -> Callable[[_F], _F]:
    """An option that takes a number. ``unset``: what the help shows where there is no ``default``;
    ``name``: of the function's parameter, where it is not the option's."""
    type_ = Number(*limits)
    shown = f"{default:g}" if default is not None else unset
    return click.option(
        *names,
        *filter(None, [name]),
        type=type_,
        default=default,
        metavar=metavar or ("N" if type_.kind is int else "SECONDS"),
        help=f"{help}  [{type_.range}{'; default: ' if shown else ''}{shown}]",
    )
