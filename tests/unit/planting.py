"""Planting a defect: while the context manager is entered that these make, one method does something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from tests.unit.histories import Planted

__all__ = ["instead", "only", "then"]


def instead(where: Any, name: str, what: Callable[..., Any]) -> Planted:
    """Another function in its place."""
    return lambda: patch.object(where, name, what)


def then(where: Any, name: str, more: Callable[..., Any]) -> Planted:
    """The method, and afterwards ``more`` with its object and arguments."""
    before = getattr(where, name)

    def both(self: Any, *values: Any, **named: Any) -> Any:
        result = before(self, *values, **named)
        more(self, *values, **named)
        return result

    return lambda: patch.object(where, name, both)


def only(where: Any, name: str, when: Callable[..., bool]) -> Planted:
    """The method does its work only if ``when`` says so of its object and arguments; else nothing."""
    before = getattr(where, name)

    def perhaps(self: Any, *values: Any, **named: Any) -> Any:
        return before(self, *values, **named) if when(self, *values, **named) else None

    return lambda: patch.object(where, name, perhaps)
