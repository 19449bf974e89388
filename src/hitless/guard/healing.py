"""When flows are freed, and what is reported of it.

Promise: a healing that freed something, or that a gap or a leak called for, is repeated a little later, for flows that
were being opened then; a guard that observes, or has withdrawn, lists and frees nothing. Where the connection table
cannot be read, it is tried twice again. Next stage: ``loop`` calls it.
"""

from __future__ import annotations

from typing import Protocol

from hitless.daemon.logs import Log
from hitless.errors import HitlessError
from hitless.guard.ports import FlowsPort, GuardTime, TablesPort
from hitless.guard.reporting import Reporter
from hitless.guard.schedule import AGAIN, Schedule
from hitless.guard.side import Side
from hitless.model.families import Family

__all__ = ["Healing"]


class _Ports(Protocol):
    @property
    def flows(self) -> FlowsPort: ...

    @property
    def tables(self) -> TablesPort | None: ...

    @property
    def time(self) -> GuardTime: ...


class Healing:
    """One node's."""

    def __init__(self, ports: _Ports, schedule: Schedule, reporter: Reporter, log: Log) -> None:
        self._flows, self._tables, self._time = ports.flows, ports.tables, ports.time
        self._schedule, self._reporter, self._log = schedule, reporter, log
        self._freed: dict[Family, int] = {}

    def take(self, family: Family) -> int:
        """How many flows were freed since the last call."""
        return self._freed.pop(family, 0)

    def later(self, family: Family) -> None:
        """At the next turn, and a little later."""
        self._schedule.heal(family, self._time.monotonic(), (0.0, *AGAIN))

    def heal(self, side: Side, after: str, packets: int = 0) -> None:
        """Free what is poisoned (``--observe``: list it). ``packets``: leaked ones that led here."""
        standby, family = side.decider.installed, side.family
        if standby is None:
            return
        begin = self._time.now()
        dry = self._tables is None or side.withdrawn is not None
        try:
            freed = self._flows.heal(standby, dry=dry)
        except HitlessError as error:
            self._log.warning("cannot look for poisoned flows", family=family.value, reason=str(error))
            if after != "again":
                self._schedule.heal(family, self._time.monotonic())
            return
        if after != "again" and (freed.count or packets or after == "gap"):
            self._schedule.heal(family, self._time.monotonic())
        self._freed[family] = self._freed.get(family, 0) + (0 if dry else freed.count)
        if packets and not freed.count and self._reporter.lists(family, begin):
            freed.flows += self._flows.untranslated(standby)
        self._reporter.freed(family, freed, after, begin, packets, dry=dry)
