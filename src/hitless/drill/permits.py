"""Whether a drill may restart something now: checked before each subject and each round.

Problem: a drill that began inside a maintenance window may still run when the window closes. Promise: nothing begins
that ``refusal`` forbids; what is running is finished. The header's fields about windows are here as well. The drill
knows nothing about calendars: ``hitless.operations`` does, and ``hitless.cli`` connects the two.
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
    """``refusal`` returns why nothing may begin now, or ""; ``config``: for the log's header; ``warning``: for all
    reports, if the user overrode the windows."""

    refusal: Callable[[], str] = _never
    config: Mapping[str, Any] = field(default_factory=dict)
    warning: str = ""
