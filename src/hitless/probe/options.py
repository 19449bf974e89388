"""What a prober is told, and what it does when it is not told.

Nothing here acts. Next stage: ``traffic`` makes lanes, kinds and schedules of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hitless.model.families import Family
from hitless.probe.targets import ProbeEndpoint

__all__ = ["DEFAULT_RATE", "POLITE_RATE", "ProbeOptions"]

DEFAULT_RATE = 1000.0
"""New flows per second to our own far end: a gap of 10 ms meets ten of them."""

POLITE_RATE = 10.0
"""New flows per second to anybody else's address, unless asked otherwise."""


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """What to do. Rates are new flows per second; ``other_rate`` is for targets that are not our far end.

    ``mix`` weighs the kinds (default: ``DEFAULT_MIX`` to a far end, all alike to others); ``count`` ends it after so
    many attempts to far ends and as many to others; ``control`` is probed beside, at ``POLITE_RATE``, and its outcomes
    are kept apart; at most ``knockers`` lost flows are watched on.
    """

    endpoints: tuple[ProbeEndpoint, ...]
    rate: float = DEFAULT_RATE
    other_rate: float = POLITE_RATE
    mix: Mapping[str, int] | None = None
    timeout_ns: int = 2_500_000_000
    duration_ns: int | None = None
    count: int | None = None
    streams: int = 0
    sources: Mapping[Family, str] = field(default_factory=dict)
    interface: str = ""
    knockers: int = 64
    control: tuple[ProbeEndpoint, ...] = ()
    insecure: bool = False
