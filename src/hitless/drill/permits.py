"""Whether a drill may go on to restart something: asked before each subject and each round.

Problem: a drill that was begun inside a maintenance window may still run when it closes. Promise: nothing is begun that
``refusal`` speaks against; what runs comes to its end. What the record says of windows is here too. The drill knows
nothing of calendars: ``hitless.operations`` does, and ``hitless.cli`` brings them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Permit"]


def _never() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Permit:
    """``refusal`` says why nothing may begin now, or ""; ``config``: for the log's header; ``warning``: for every
    report, where somebody went over the windows."""

    refusal: Callable[[], str] = _never
    config: Mapping[str, Any] = field(default_factory=dict)
    warning: str = ""
