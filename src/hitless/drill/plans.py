"""What a drill shall do: a frozen value, refused whole when it asks for something impossible.

Problem: a drill that finds out in its third round that an option makes no sense has cost a cluster two restarts.
Promise: ``DrillPlan`` checks itself when it is made and names the flag that is wrong; nothing has been touched by then.
Times are seconds, as people write them. Next stage: ``running`` carries it out on a ``targets.Target``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from hitless.errors import InputError
from hitless.lab.supervisor import Method
from hitless.restarts.methods import ApiMethod

__all__ = ["LIMITS", "ApiMethod", "DrillPlan", "Method", "Outside"]

_LONGEST = 3600.0

LIMITS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "rounds": (1, 10_000),
        "rate": (1, 20_000),
        "streams": (0, 1000),
        "stop_for": (0.0, _LONGEST),
        "baseline": (1.0, _LONGEST),
        "settle": (0.0, _LONGEST),
        "recovery": (3.0, _LONGEST),
        "patience": (1.0, _LONGEST),
    }
)
"""Of each number of a ``DrillPlan`` the least and the most."""


class Outside(StrEnum):
    """How an agent is restarted where neither the lab nor the Kubernetes API does it."""

    COMMAND = "command"  # whatever the operator's own command does


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """Rounds of restart with their times; ``settle`` is the calm after each, ``recovery`` after the last.

    ``patience`` bounds every wait for the agent: for ready at first, and for ready again.
    """

    rounds: int = 5
    method: Method | ApiMethod | Outside = Method.SIGTERM
    stop_for: float = 5.0
    crashes: int = 3
    baseline: float = 1.5
    settle: float = 0.5
    recovery: float = 3.0
    patience: float = 60.0
    rate: int = 1000
    streams: int = 4
    families: tuple[str, ...] = field(default=("ipv4",))

    def __post_init__(self) -> None:
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if not least <= value <= most:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{value} is out of range", where=flag, expected=f"{least:g} to {most:g}")
        if not self.families:
            raise InputError("names no family", where="--family", expected="ipv4, ipv6 or dual")
