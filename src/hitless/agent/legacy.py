"""Notices changes of the legacy tables.

Problem: the old xtables path sends no events, and a whole table of 30,000 rules takes 16 MB and 10 ms to read. Promise:
when a writer releases the xtables lock, a pass is requested, and the writer is named. For writers that take no lock,
the tables' sizes and counts (GET_INFO, 3 us a table) are compared 20 times a second. A use of the lock that changed no
size requests a pass too, but such passes take a fifth of the time at most. The tables themselves are not kept in
memory, as ``hitless.kernel.xtables.Poller`` does for the watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from hitless.agent.ports import AgentClock
from hitless.kernel.namespaces import Namespace
from hitless.kernel.xtables.lockwatch import Holder, LockWatch, lock_paths
from hitless.kernel.xtables.sockopt import TABLES, Tables
from hitless.model.families import Family

__all__ = ["LegacyWatch", "legacy_watch"]

_GAP = 0.05
_SHARE = 4  # a pass without a visible change may follow after this many times what the last one took


class InfoPort(Protocol):
    """The legacy tables of one family. Real: ``hitless.kernel.xtables.sockopt.Tables``."""

    def info_bytes(self, table: str) -> bytes | None:
        """A table's sizes and counts, undecoded; ``None``: there is no such table."""

    def close(self) -> None:
        """Close it."""


class LockPort(Protocol):
    """Uses of the xtables lock. Real: ``hitless.kernel.xtables.lockwatch.LockWatch``."""

    @property
    def fds(self) -> Sequence[int]:
        """File descriptors that become readable at a use."""

    def drain(self, now: int) -> tuple[bool, bool]:
        """Read the events: whether the lock was opened, and released."""

    def writer(self, since: int) -> Holder | None:
        """The process that used it."""

    def close(self) -> None:
        """Close it."""


def legacy_watch(
    namespace: Namespace, loop: asyncio.AbstractEventLoop, clock: AgentClock, changed: Callable[[int, str], None]
) -> LegacyWatch:
    """One for the real tables of a namespace."""
    tables = [Tables(namespace, family) for family in Family]
    return LegacyWatch(tables, LockWatch(lock_paths(namespace)), loop, clock, changed)


class LegacyWatch:
    """In the event loop; ``changed`` gets the writer's process id (0: not known) and name."""

    def __init__(
        self,
        tables: Sequence[InfoPort],
        lock: LockPort,
        loop: asyncio.AbstractEventLoop,
        clock: AgentClock,
        changed: Callable[[int, str], None],
    ) -> None:
        """``tables``: of each family; ``lock``: the xtables lock."""
        self._loop, self._clock, self._changed = loop, clock, changed
        self._tables, self._lock = tuple(tables), lock
        self._known = self._sizes()
        self._quiet_until = 0.0
        self._hinted: asyncio.TimerHandle | None = None
        for fd in self._lock.fds:
            loop.add_reader(fd, self._used)
        self._timer = loop.call_later(_GAP, self._poll)

    def pass_ended(self, cost: float) -> None:
        """A pass has just ended, and took so many seconds."""
        self._quiet_until = self._clock.monotonic() + _SHARE * cost

    def close(self) -> None:
        """Stop, and close everything."""
        self._timer.cancel()
        if self._hinted is not None:
            self._hinted.cancel()
        for fd in self._lock.fds:
            self._loop.remove_reader(fd)
        self._lock.close()
        for tables in self._tables:
            tables.close()

    def _sizes(self) -> tuple[bytes | None, ...]:
        return tuple(tables.info_bytes(name) for tables in self._tables for name in TABLES)

    def _poll(self) -> None:
        self._timer = self._loop.call_later(_GAP, self._poll)
        self._compare()

    def _compare(self) -> bool:
        """Report a change of the sizes; whether there was one."""
        now = self._sizes()
        if now == self._known:
            return False
        self._known = now
        self._report()
        return True

    def _used(self) -> None:
        _, closed = self._lock.drain(int(self._clock.wall() * 1e9))
        if not closed or self._compare() or self._hinted is not None:
            return
        # rules may have been replaced by as many of the same size
        wait = max(0.0, self._quiet_until - self._clock.monotonic())
        self._hinted = self._loop.call_later(wait, self._follow_hint)

    def _follow_hint(self) -> None:
        self._hinted = None
        self._report()

    def _report(self) -> None:
        writer = self._lock.writer(0)
        if writer is None or not writer.comm:  # it has ended already
            self._changed(writer.pid if writer is not None else 0, "")
        else:
            self._changed(writer.pid, writer.comm)
