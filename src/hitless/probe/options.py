"""The options of a prober, with their defaults.

Next stage: ``traffic`` makes lanes, clients and schedules from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hitless.model.families import Family
from hitless.probe.targets import ProbeEndpoint

__all__ = ["DEFAULT_RATE", "POLITE_RATE", "ProbeOptions"]

DEFAULT_RATE = 1000.0
"""New flows per second to a far end: ten of them fall into a gap of 10 ms."""

POLITE_RATE = 10.0
"""Default of new flows per second to other targets."""


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """The options. Rates are new flows per second; ``other_rate`` is for targets that are not far ends.

    ``mix``: weights of the kinds (default: ``DEFAULT_MIX`` to a far end, all equal to others); ``count``: end after so
    many attempts to far ends and as many to others; ``control``: also probed, at ``POLITE_RATE``, and counted
    separately; at most ``knockers`` lost flows are watched.
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
