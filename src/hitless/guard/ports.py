"""What the guard's loop needs of the world, as the few methods that the real things and the tests' share.

Everything that runs gets these handed in, time itself too: a day of a guard's life fits into a second of a test.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from hitless.guard.places import Around
from hitless.guard.poisoned_flows import Freed
from hitless.guard.standby_rules import StandbyRules
from hitless.guard.standby_table import FoundStandby
from hitless.guard.statements import Statement
from hitless.kernel.clock import Clock
from hitless.kernel.nftables.owned import Count, Owner
from hitless.model.families import Family
from hitless.observe.rules import Observation

__all__ = [
    "FlowsPort",
    "GuardMachineTime",
    "GuardTime",
    "RulesPort",
    "StatementsPort",
    "SurroundingsPort",
    "TablesPort",
]


class GuardTime(Protocol):
    """The clocks that the loop reads."""

    def now(self) -> int:
        """Unix nanoseconds, of the clock that never steps."""

    def monotonic(self) -> float:
        """Seconds of a clock that only goes forward."""

    def wall(self) -> float:
        """Unix seconds as files carry them."""

    def worked(self) -> float:
        """Seconds for which this thread has had a processor."""


class GuardMachineTime:
    """This machine's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> int:
        """Unix nanoseconds, of the clock that never steps."""
        return self._clock.now()

    def monotonic(self) -> float:
        """Seconds of a clock that only goes forward."""
        return time.monotonic()

    def wall(self) -> float:
        """Unix seconds as files carry them."""
        return time.time()

    def worked(self) -> float:
        """Seconds for which this thread has had a processor."""
        return time.thread_time()


class RulesPort(Protocol):
    """The node's rules. Real: ``hitless.observe.rules.RulesObserver``."""

    @property
    def first(self) -> Observation:
        """What was there at the beginning."""

    @property
    def waiting(self) -> bool:
        """Whether there is more to come at once."""

    def next(self, timeout: float) -> Observation | None:
        """The next state, or ``None`` when nothing changed in time."""


class TablesPort(Protocol):
    """The standby's tables in the kernel. Real: ``standby_table.StandbyTable``."""

    def adopt(self, found: Mapping[Family, FoundStandby | None]) -> None:
        """Take over what an earlier guard left."""

    def install(self, desired: Mapping[Family, StandbyRules | None]) -> bool:
        """Make the tables hold these; whether anything was written."""

    def restore(self) -> bool:
        """Write again what another program deleted; whether that was needed."""

    def owner(self, family: Family) -> Owner | None:
        """How the kernel holds the family's table."""

    def counters(self, family: Family) -> Mapping[str, Count]:
        """The family's counters."""

    def close(self) -> None:
        """Let go of the tables; they stay."""


class FlowsPort(Protocol):
    """The connection table. Real: ``poisoned_flows.Healer``."""

    def heal(self, standby: StandbyRules, *, dry: bool = False) -> Freed:
        """Free every poisoned flow of the standby's family."""

    def untranslated(self, standby: StandbyRules) -> list[str]:
        """Flows that should be translated and are not."""

    def close(self) -> None:
        """Close it."""


class SurroundingsPort(Around, Protocol):
    """The node's pods and uplinks. Real: ``places.Places``."""

    def changed(self, now: float) -> frozenset[Family]:
        """Families with other pods, or another uplink, than before."""

    def close(self) -> None:
        """Close it."""


class StatementsPort(Protocol):
    """What the agent itself states. Real: ``statements.read`` with the primary's files and processes."""

    def __call__(self, spoken: float, /) -> Statement | None:
        """Its statement; those older than ``spoken`` (Unix seconds) do not count."""
