"""Numbers that people give: click takes "nan" and "inf" for a number, and every range lets "nan" pass."""

from __future__ import annotations

import math

import click

__all__ = ["finite"]


def finite(_context: click.Context, _parameter: click.Parameter, value: float | None) -> float | None:
    """A callback for options of type float."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value
