"""Detecting changes of the legacy tables by polling.

Problem: the old xtables path has no events, and asking the kernel every 2 ms would cost more than 2 % of a core in
wake-ups alone. Promise: ``Poller.wait`` returns at each change of a table, with the time before which it cannot have
happened, the new rules, and the writer as far as it is known. Uses of the xtables lock wake it at once, and make it
check every 0.3 ms while the lock is in use and shortly after; for writers that take no lock it checks every 20 ms (2 ms
if the lock cannot be watched). A table that was replaced by one of the same size differs only in its entries: these are
compared when the lock is released by a process that may have written, and now and then. A daemon that does not need
sub-millisecond precision asks for ``gentle``: it checks when the lock is released and seldom before, because a check
waits, spinning, while another process reads a large table; comparisons then take at most a three-hundredth of a core,
and unused tables are kept compressed. Next stages: ``hitless.watch``, ``hitless.agent``, ``hitless.guard``.

Cost and bounds, measured, are in docs/legacy.md.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from hitless.kernel import memory
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.xtables.layout import entry_offsets, same_entries
from hitless.kernel.xtables.lockwatch import LOCK, LockWatch, lock_paths
from hitless.kernel.xtables.packed_entries import Entries
from hitless.kernel.xtables.sockopt import TABLES, Info, Tables, decode_info
from hitless.kernel.xtables.tables import decode_table, unread_table
from hitless.model.events import Writer
from hitless.model.families import Family
from hitless.model.rules import Ruleset, Table

__all__ = ["LOCK", "Poller", "Snapshot", "lock_paths"]

MILLISECOND = 1_000_000
_EAGER = int(0.3 * MILLISECOND)  # between checks while the lock is in use
_IN_USE_GENTLE = 100 * MILLISECOND  # gentle: the same
_CALM_GENTLE = 50 * MILLISECOND  # gentle: between checks while the lock is not in use
_HINT_SHARE_GENTLE = 300  # gentle: and since the last comparison, at hints
_EAGER_AFTER = 20 * MILLISECOND  # and for so long after its last use: agents run their programs in quick succession
_EAGER_USE = 1000 * MILLISECOND  # one program with 5,000 Services has the lock for up to a second
_LONG_USE = 60_000 * MILLISECOND  # a file that is open for longer is not taken as a use
_CALM = 20 * MILLISECOND  # between checks when the lock is watched and unused
_CALM_UNWATCHED = 2 * MILLISECOND  # between checks when the lock cannot be watched
_NAMES_EVERY = 100 * MILLISECOND  # between checks for tables created without the lock
_DEEP_LEAST = 500 * MILLISECOND  # between comparisons of entries without a hint
_DEEP_SHARE = 1000  # and at least so many times what the last comparison took: a thousandth of a core
_DEEP_CHEAP = MILLISECOND // 4  # entries that compare this fast are compared at every eager check


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The legacy tables after a change: seen at ``t``, not yet there at ``before`` (nanoseconds of the poller's clock).

    ``changed``: the tables that differ from the previous snapshot. A table that was replaced again before it could be
    read has opaque chains here, and another snapshot follows with the newer contents.
    """

    t: int
    before: int
    ruleset: Ruleset
    changed: tuple[tuple[Family, str], ...]
    writer: Writer | None = None


@dataclass(slots=True)
class _Seen:
    """The last read of one table."""

    raw: bytes | None = None  # GET_INFO, as it was last seen
    info: Info | None = None
    entries: Entries | None = None
    table: Table | None = None
    offsets: Sequence[int] = ()


class Poller:
    """Changes of some legacy tables of a namespace. For one thread; ``wake`` and ``close`` may come from another."""

    def __init__(
        self,
        namespace: Namespace = HERE,
        families: Iterable[Family] = (Family.IPV4, Family.IPV6),
        tables: Iterable[str] = TABLES,
        *,
        locks: Sequence[str] | None = None,
        clock: Clock | None = None,
        interval_ns: int | None = None,
        gentle: bool = False,
    ) -> None:
        self._clock = Clock() if clock is None else clock
        self._interval = interval_ns
        self._gentle = gentle
        names = tuple(tables)
        self._sources = {family: Tables(namespace, family) for family in families}
        self._seen = {(family, name): _Seen() for family in self._sources for name in names}
        self._lock = LockWatch(lock_paths(namespace) if locks is None else locks)
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._poll = select.poll()
        for fd in (*self._lock.fds, self._waker):
            self._poll.register(fd, select.POLLIN)
        self._eager_until = 0
        self._deep_due = 0
        self._hint_due = 0
        self._deep_cost = 0
        self._names_due = 0
        self._there: list[tuple[tuple[Family, str], _Seen]] = []
        self._checked = self._clock.now()
        self._planned = 0
        self._late = 0
        self._following: Snapshot | None = None
        self._closed = False
        self._woken = False
        self._hinted = True

    def __enter__(self) -> Poller:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all descriptors; ``wait`` must not be running (``wake`` it and join its thread first)."""
        if self._closed:
            return
        self._closed = True
        for source in self._sources.values():
            source.close()
        self._lock.close()
        os.close(self._waker)

    def wake(self) -> None:
        """Make a running ``wait`` return ``None`` now; callable from any thread and from signal handlers."""
        os.eventfd_write(self._waker, 1)

    @property
    def names_writers(self) -> bool:
        """Whether the kernel shows which process uses the lock (fanotify); else /proc/locks is read."""
        return self._lock.names_processes

    @property
    def watches_lock(self) -> bool:
        """Whether a lock file was found and is watched; else the tables are checked more often."""
        return self._lock.watched

    def snapshot(self) -> Snapshot:
        """Read all tables now; later changes are reported against this."""
        t = self._clock.now()
        changed = tuple(key for key in self._seen if self._read(*key))
        self._checked = self._clock.now()
        self._deep_due = self._checked + _DEEP_LEAST
        return Snapshot(self._checked, t, self._ruleset(), changed)

    def wait(self, timeout: float | None = None) -> Snapshot | None:
        """Block until a table changes, at most ``timeout`` seconds; ``None`` when none did, or at ``wake``.

        Raises what reading raises: ``NotFound`` is not among it, a namespace lives as long as its poller.
        """
        deadline = None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
        while True:
            found = self._check() if self._due() else None
            if found is not None:
                self._planned = 0  # the next check is planned at once
                return found
            now = time.monotonic_ns()
            if self._woken or (deadline is not None and now >= deadline):
                self._woken = False
                return None
            pause = self._planned = self._pause()
            self._sleep(pause if deadline is None else min(pause, deadline - now))

    def take_lag(self) -> int:
        """By how much a check was later than planned, in nanoseconds, at most, since the last call: what was changed
        and changed back in that time may be unseen. Reading large tables counts. Callable from any thread."""
        late, self._late = self._late, 0
        return late

    def last(self) -> tuple[Snapshot, ...]:
        """A final check of every table and entry: what was changed before the call is in the result. Not while ``wait``
        is running."""
        found = [self._check()] if self._following is not None else []
        self._names_due = self._deep_due = 0
        found.append(self._check())
        if self._following is not None:
            found.append(self._check())
        return tuple(snapshot for snapshot in found if snapshot is not None)

    def _due(self) -> bool:
        """Whether to check now; in gentle mode a program that only reads is no reason."""
        if not self._gentle or self._hinted or self._following is not None:
            return True
        return self._clock.now() - self._checked >= self._pause()

    def _pause(self) -> int:
        now = self._clock.now()
        in_use = self._lock.used_since(now)
        if self._gentle:
            return _IN_USE_GENTLE if 0 <= in_use < _LONG_USE else _CALM_GENTLE
        if now < self._eager_until or 0 <= in_use < _EAGER_USE:
            return _EAGER
        if self._interval is not None:
            return self._interval
        if not self._there:
            return _NAMES_EVERY
        return _CALM if self._lock.watched and not 0 <= in_use < _LONG_USE else _CALM_UNWATCHED

    def _sleep(self, nanoseconds: int) -> None:
        """Wait for a use of the lock, a wake-up, or the time; short waits sleep, because poll counts in
        milliseconds."""
        if nanoseconds < MILLISECOND:
            time.sleep(nanoseconds / 1e9)
            ready = self._poll.poll(0)
        else:
            ready = self._poll.poll(nanoseconds // MILLISECOND)
        if not ready:
            return
        now = self._clock.now()
        if any(fd == self._waker for fd, _ in ready):
            os.eventfd_read(self._waker)
            self._woken = True
        _opened, closed = self._lock.drain(now)
        self._eager_until = now + _EAGER_AFTER
        if closed:
            self._hinted = True
            self._deep_due = min(self._deep_due, self._hint_due)

    def _check(self) -> Snapshot | None:
        if self._following is not None:
            following, self._following = self._following, None
            return following
        before, now = self._checked, self._clock.now()
        self._late = max(self._late, now - before - self._planned)
        if now < self._eager_until:
            self._lock.ask(now)
        # a table created by a program's first rule must be found while the program is still known
        if now >= self._names_due or (self._hinted if self._gentle else now < self._eager_until):
            self._names_due = now + _NAMES_EVERY
            made = {family: source.names() for family, source in self._sources.items()}
            self._there = [(key, seen) for key, seen in self._seen.items() if key[1] in made[key[0]]]
        noticed = {
            key: raw
            for key, seen in self._there
            if (raw := self._sources[key[0]].info_bytes(key[1])) is not None and raw != seen.raw
        }
        t = self._clock.now()
        changed: list[tuple[Family, str]] = []
        if now >= self._deep_due or (now < self._eager_until and self._deep_cost < _DEEP_CHEAP):
            begun = time.thread_time_ns()  # without times in which this process was stopped
            changed = [key for key in self._seen if self._read(*key)]
            self._deep_cost = time.thread_time_ns() - begun
            self._deep_due = now + max(_DEEP_LEAST, _DEEP_SHARE * self._deep_cost)
            self._hint_due = now + _HINT_SHARE_GENTLE * self._deep_cost if self._gentle else 0
        elif noticed:
            changed = [key for key in noticed if self._read(*key)]
        self._checked, self._hinted = now, False
        unread = {key: raw for key, raw in noticed.items() if raw != self._seen[key].raw}
        if not changed and not unread:
            if self._gentle:
                self._rest()
            return None
        self._lock.drain(self._clock.now())
        holder = self._lock.writer(before)
        writer = None if holder is None else Writer(*holder)
        whole = Snapshot(t, before, self._ruleset(), tuple(changed), writer)
        if not unread:
            return whole
        # Reading a large table takes longer than changing it again: what was in it in between is not known. Tables that
        # were read as usual are in the first of the two snapshots.
        self._following = replace(whole, t=self._clock.now(), before=t, changed=tuple(unread))
        return replace(whole, ruleset=self._ruleset(unread), changed=tuple({**unread, **dict.fromkeys(changed)}))

    def _rest(self) -> None:
        """Compress tables that are not used."""
        rested = [seen.entries.rest() for seen in self._seen.values() if seen.entries is not None]
        if any(rested):
            memory.trim()

    def _read(self, family: Family, name: str) -> bool:
        """Read a table; returns whether it differs from the last read in more than counters."""
        seen = self._seen[family, name]
        reading = self._sources[family].entries(name)
        if reading is None:
            return False
        seen.raw = reading.raw
        if seen.entries is not None and seen.info == reading.info:
            before = seen.entries.whole
            if not seen.offsets:
                seen.offsets = entry_offsets(family, before)
            if same_entries(family, seen.offsets, before, reading.entries):
                return False
        seen.info, seen.entries, seen.offsets = reading.info, Entries(reading.entries), ()
        seen.table = decode_table(family, name, reading.info, seen.entries)
        return True

    def _ruleset(self, unread: Mapping[tuple[Family, str], bytes] = MappingProxyType({})) -> Ruleset:
        """The tables as they were read, except those in ``unread``, of which only GET_INFO is known."""
        tables = (
            unread_table(*key, decode_info(unread[key])) if key in unread else seen.table
            for key, seen in self._seen.items()
        )
        return Ruleset(tuple(table for table in tables if table is not None))
