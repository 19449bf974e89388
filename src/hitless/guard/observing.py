"""Every change of the node's rules, from both of the kernel's paths, as one queue.

Problem: nf_tables tells by events, the legacy path must be asked, and strangers change their own rules all day long.
Promise: what was committed comes out of ``next`` one state after the other, with the other path's latest state beside
it, the time and the writer. States in which nobody touched anything that a pod's packet may meet are one with the next
in which somebody did; only one state of nf_tables is held at a time, whatever waits. The legacy path has a thread of
its own, of which at most ``_MOST_SNAPSHOTS`` wait. A failure of a thread comes out of ``next`` as the error that it
is. What it never does: evaluate. Next stage: ``running``.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

from hitless.errors import HitlessError, ours
from hitless.guard.learning import TABLE
from hitless.kernel import memory
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables.interest import Interest
from hitless.kernel.nftables.mirror import Mirror, Update
from hitless.kernel.surroundings import Surroundings
from hitless.kernel.xtables.polling import Poller, Snapshot
from hitless.kernel.xtables.sockopt import Tables
from hitless.model.events import Writer
from hitless.model.families import Family
from hitless.model.rules import Ruleset
from hitless.semantics import HOOKS

__all__ = ["Observation", "Observer"]

_INTEREST = Interest(frozenset(HOOKS), frozenset({TABLE}))
_MOST_SNAPSHOTS = 8  # of the legacy tables, each of which is a copy of what was changed
_BRIEFLY = 0.01
_OVERTIME = 0.5  # seconds of work on what waits, beyond the time that a caller allows
_TURN = 0.5  # seconds between looks at whether it is time to stop
_AROUND = 1.0  # seconds between questions whether ipsets and interfaces are as they were
_ABSENT = 1.0  # seconds between looks for legacy tables while there are none


@dataclass(frozen=True, slots=True)
class Observation:
    """The rules from ``t`` on, not before ``before``. ``own``: the guard's own table was touched."""

    t: int
    before: int
    ruleset: Ruleset
    writer: Writer | None = None
    lost: bool = False
    own: bool = False


class Observer:
    """A context manager; ``first`` is the state at the beginning."""

    def __init__(self, families: tuple[Family, ...], namespace: Namespace = HERE, clock: Clock | None = None) -> None:
        memory.return_large_blocks()
        self._families = families
        self._namespace = namespace
        self._clock = clock or Clock.from_environment()
        self._waiting: deque[Snapshot | HitlessError] = deque()
        self._stop = threading.Event()
        self._mirror = Mirror(namespace, families, interest=_INTEREST, clock=self._clock, collapse=True)
        self._legacy = Ruleset()
        self._surroundings = Surroundings(namespace)
        self._asked = time.monotonic()
        try:
            self._poller: Poller | None = self._find_legacy()
        except BaseException:
            self._mirror.close()
            raise
        memory.trim()
        self._thread = threading.Thread(target=self._run, name="legacy-tables", daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._poller is not None:
            self._poller.wake()
        self._thread.join()
        self._mirror.close()
        self._surroundings.close()
        if self._poller is not None:
            self._poller.close()

    @property
    def first(self) -> Observation:
        """What was there when the observer was made; later changes come out of ``next``."""
        now = self._clock.now()
        return Observation(now, now, self._both(), lost=True)

    @property
    def has_legacy(self) -> bool:
        """Whether the legacy path has tables."""
        return bool(self._legacy.tables)

    def next(self, timeout: float) -> Observation | None:
        """The next state, or ``None`` when nothing changed in time; raises what a source raised."""
        deadline = time.monotonic() + max(0.0, timeout)
        while True:
            if self._waiting:
                return self._from_legacy(self._waiting.popleft())
            left = deadline - time.monotonic()
            update = self._mirror.next(max(0.0, left))
            if update is not None and (found := self._from_nft(update)) is not None:
                return found
            over = time.monotonic() - deadline
            if not self._waiting and (over > _OVERTIME or (over >= 0 and not self._mirror.waiting)):
                return self._changed_around()

    def _from_legacy(self, item: Snapshot | HitlessError) -> Observation:
        if isinstance(item, HitlessError):
            raise item
        self._legacy = item.ruleset
        return Observation(item.t, item.before, self._both(), item.writer)

    def _from_nft(self, update: Update) -> Observation | None:
        """``None`` where nothing was touched that matters here."""
        changes = update.changes
        if changes is None:  # everything was read again
            memory.trim()
        own = changes is None or any(change.key[1] == TABLE for change in changes)
        if changes and not own and not any(change.kept for change in changes):
            return None
        writer = Writer(update.pid, update.comm, update.argv, update.parent) if update.pid else None
        return Observation(update.t, update.noticed or update.t, self._both(), writer, update.lost, own)

    def _changed_around(self) -> Observation | None:
        """What changes without an event of nf_tables, members of ipsets above all: asked for once a second."""
        if time.monotonic() - self._asked < _AROUND:
            return None
        before = self._clock.now()
        changed = self._surroundings.refresh()
        self._asked = time.monotonic()
        return Observation(self._clock.now(), before - int(_AROUND * 1e9), self._both()) if changed else None

    @property
    def waiting(self) -> bool:
        """Whether there is more to come at once."""
        return bool(self._waiting) or self._mirror.waiting > 0

    def _both(self) -> Ruleset:
        return Ruleset((*self._mirror.current.tables, *self._legacy.tables), self._surroundings)

    # --- the thread

    def _run(self) -> None:
        try:
            self._follow_legacy()
        except BaseException as error:  # noqa: BLE001 - whatever ends a source ends the guard, which raises it
            self._waiting.append(ours(error, "the guard's thread for the legacy tables"))
            self._mirror.wake()

    def _follow_legacy(self) -> None:
        while not self._stop.is_set():
            poller = self._poller
            if poller is None:
                # a legacy table comes with the first use of iptables-legacy; until then polling would be for nothing
                if not self._stop.wait(_ABSENT) and self._any_legacy():
                    self._poller = self._start_poller()
                    self._give(self._poller.snapshot())
                continue
            snapshot = poller.wait(_TURN)
            if snapshot is not None:
                self._give(snapshot)

    def _give(self, snapshot: Snapshot) -> None:
        while len(self._waiting) >= _MOST_SNAPSHOTS and not self._stop.wait(_BRIEFLY):
            pass  # what is changed meanwhile is one change for the next look
        self._waiting.append(snapshot)
        self._mirror.wake()

    def _any_legacy(self) -> bool:
        for family in self._families:
            with Tables(self._namespace, family) as tables:
                if any(tables.present(name) for name in ("nat", "filter")):
                    return True
        return False

    def _find_legacy(self) -> Poller | None:
        if not self._any_legacy():
            return None
        poller = self._start_poller()
        self._legacy = poller.snapshot().ruleset
        return poller

    def _start_poller(self) -> Poller:
        return Poller(self._namespace, self._families, clock=self._clock, gentle=True)
