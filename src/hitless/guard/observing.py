"""Every change of the node's rules, from both of the kernel's paths, as one queue.

Problem: nf_tables tells by events, the legacy path must be asked, and each blocks its reader. Promise: a thread each;
what they see comes out of ``next`` one committed state after the other, with the other path's latest state beside it,
the time and the writer. A failure of a thread comes out of ``next`` as the error that it is. What it never does:
evaluate. Next stage: ``running``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from hitless.errors import HitlessError, ours
from hitless.guard.learning import TABLE
from hitless.kernel import memory
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables.mirror import Mirror, Update
from hitless.kernel.xtables.polling import Poller, Snapshot
from hitless.kernel.xtables.sockopt import Tables
from hitless.model.events import Writer
from hitless.model.families import Family
from hitless.model.rules import Ruleset

__all__ = ["Observation", "Observer"]

_TURN = 0.5  # seconds between looks at whether it is time to stop
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
        self._queue: queue.SimpleQueue[Update | Snapshot | HitlessError] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._mirror = Mirror(namespace, families, clock=self._clock)
        self._nft = self._mirror.current
        self._legacy = Ruleset()
        try:
            self._poller: Poller | None = self._find_legacy()
        except BaseException:
            self._mirror.close()
            raise
        memory.trim()
        self._threads = [
            threading.Thread(target=self._run, args=(source,), name=source.__name__, daemon=True)
            for source in (self._follow_nft, self._follow_legacy)
        ]

    def __enter__(self) -> Observer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._mirror.close()
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
        try:
            item = self._queue.get(timeout=max(0.0, timeout))
        except queue.Empty:
            return None
        if isinstance(item, HitlessError):
            raise item
        if isinstance(item, Snapshot):
            self._legacy = item.ruleset
            return Observation(item.t, item.before, self._both(), item.writer)
        self._nft = item.ruleset
        writer = Writer(item.pid, item.comm, item.argv, item.parent) if item.pid else None
        own = item.changes is None or any(change.key[1] == TABLE for change in item.changes)
        return Observation(item.t, item.noticed or item.t, self._both(), writer, item.lost, own)

    @property
    def waiting(self) -> bool:
        """Whether there is more to come at once."""
        return not self._queue.empty() or self._mirror.waiting > 0

    def _both(self) -> Ruleset:
        return Ruleset((*self._nft.tables, *self._legacy.tables))

    # --- threads

    def _run(self, source: Callable[[], None]) -> None:
        try:
            source()
        except BaseException as error:  # noqa: BLE001 - whatever ends a source ends the guard, which raises it
            self._queue.put(ours(error, f"the guard's thread {source.__name__.strip('_')}"))

    def _follow_nft(self) -> None:
        while not self._stop.is_set():
            update = self._mirror.next(_TURN)
            if update is not None:
                if update.changes is None:  # everything was read again
                    memory.trim()
                self._queue.put(update)

    def _follow_legacy(self) -> None:
        while not self._stop.is_set():
            poller = self._poller
            if poller is None:
                # a legacy table comes with the first use of iptables-legacy; until then polling would be for nothing
                if not self._stop.wait(_ABSENT) and self._any_legacy():
                    self._poller = self._start_poller()
                    self._queue.put(self._poller.snapshot())
                continue
            snapshot = poller.wait(_TURN)
            if snapshot is not None:
                self._queue.put(snapshot)

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
