"""The plan of a drill: a frozen value that is refused as a whole if it is impossible.

Problem: a drill that finds an invalid option in its third round has cost a cluster two restarts. Promise:
``DrillPlan`` checks itself when it is made, before anything is touched, and names the wrong flag. Times are seconds.
Next stage: ``running`` executes it on a ``targets.DrillTarget``.
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
"""The minimum and maximum of each number of a ``DrillPlan``."""


class Outside(StrEnum):
    """How an agent is restarted other than by the lab or the Kubernetes API."""

    COMMAND = "command"  # the operator's own command


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """Rounds of restarts and their times; ``settle``: the pause after each, ``recovery``: after the last.

    ``patience`` is the limit of each wait until the agent is ready.
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
