"""The one observer of a node's rules: both of the kernel's paths, as one rule set.

Problem: nf_tables reports commits by events, the legacy path must be polled, and other programs change their own rules
all day long. Promise: everything that a pod's packet may meet at the hooks of ``semantics.HOOKS`` is known, with sets,
maps and the node's facts. ``next`` gives one committed state after the other, with its time and its writer; commits
that change nothing that a pod's packet may meet are part of the next one that does. ``now`` gives what is committed at
this moment, for a caller that only needs the present state.

Only one state of nf_tables is in memory at a time, however many commits wait. With ``follow_legacy`` a thread polls the
legacy path, and at most ``_MOST_SNAPSHOTS`` of its snapshots wait; without it the tables are read when ``now`` is
called, and not kept. ``next`` raises the error of a thread that failed. It never evaluates rules. Next stages:
``agent``, ``guard``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hitless.errors import HitlessError, KernelError, MissingError, ours
from hitless.kernel import memory, xtables
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables.interest import Interest
from hitless.kernel.nftables.mirror import Mirror, Sockets, Update
from hitless.kernel.surroundings import NodeSurroundings
from hitless.kernel.xtables.sockopt import TABLES, Tables
from hitless.model.families import Family
from hitless.model.rules import Ruleset
from hitless.semantics import HOOKS

if TYPE_CHECKING:
    from hitless.kernel.xtables.polling import Poller, Snapshot
    from hitless.model.events import Writer

__all__ = ["Observation", "RulesObserver"]

_MOST_SNAPSHOTS = 8  # of the legacy tables, each of which is a copy of what was changed
_BRIEFLY = 0.01
_OVERTIME = 0.5  # seconds of work on what waits, beyond the time that a caller allows
_TURN = 0.5  # seconds between checks whether to stop
_PATIENCE = 0.2  # seconds for the events of what is committed already
_AROUND = 1.0  # seconds between questions whether ipsets and interfaces are as they were
_ABSENT = 1.0  # seconds between checks for legacy tables while there are none


@dataclass(frozen=True, slots=True)
class Observation:
    """The rules from ``t`` on, not before ``before``. ``own``: one of the observer's ``tables`` was touched."""

    t: int
    before: int
    ruleset: Ruleset
    writer: Writer | None = None
    lost: bool = False
    own: bool = False


class RulesObserver:
    """A context manager; ``first`` is the state at the beginning. For one thread.

    ``tables``: names of nf_tables tables that are always kept whole. ``follow_legacy``: see above. Raises
    ``MissingError`` without permission or nf_tables.
    """

    def __init__(
        self,
        families: Collection[Family] = tuple(Family),
        namespace: Namespace = HERE,
        clock: Clock | None = None,
        *,
        tables: Collection[str] = (),
        follow_legacy: bool = True,
        sockets: Sockets | None = None,
    ) -> None:
        memory.return_large_blocks()
        self.families = tuple(families)
        self._namespace = namespace
        self._clock = clock or Clock.from_environment()
        self._own = frozenset(tables)
        self._waiting: deque[Snapshot | HitlessError] = deque()
        self._stop = threading.Event()
        interest = Interest(frozenset(HOOKS), self._own)
        self._mirror = Mirror(
            namespace, self.families, interest=interest, clock=self._clock, collapse=True, sockets=sockets
        )
        self._legacy = Ruleset()
        self._surroundings = NodeSurroundings(namespace)
        self._asked = self._clock.monotonic()
        self._unreported = False  # ``now`` took in a change, which ``settle`` has not reported yet
        self._poller: Poller | None = None
        self._thread: threading.Thread | None = None
        try:
            if follow_legacy:
                self._poller = self._find_legacy()
                self._thread = threading.Thread(target=self._run, name="legacy-tables", daemon=True)
        except BaseException:
            self._mirror.close()
            raise
        memory.trim()

    def __enter__(self) -> RulesObserver:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End observing."""
        self._stop.set()
        if self._poller is not None:
            self._poller.wake()
        if self._thread is not None and self._thread.ident is not None:
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
        deadline = self._clock.monotonic() + max(0.0, timeout)
        while True:
            if self._waiting:
                return self._from_legacy(self._waiting.popleft())
            left = deadline - self._clock.monotonic()
            update = self._mirror.next(max(0.0, left))
            if update is not None and (found := self._from_nft(update)) is not None:
                return found
            over = self._clock.monotonic() - deadline
            if not self._waiting and (over > _OVERTIME or (over >= 0 and not self._mirror.waiting)):
                return self._changed_around()

    # --- the present state, for callers that do not follow every commit

    def settle(self, patience: float = _PATIENCE) -> bool:
        """Take in what is committed by now. Whether any result may differ from the last call's: rules of nf_tables, or
        a fact of the node, have changed. The legacy tables are not read."""
        changed, self._unreported = self._take_in(patience) or self._unreported, False
        return changed

    def _take_in(self, patience: float) -> bool:
        changed = False
        whole = self._mirror.catch_up(patience)
        while (update := self._mirror.next(0)) is not None:
            # without any change: something is known now that could not be read before
            changed = changed or not update.changes or any(change.kept for change in update.changes)
        # a rule may need a set, or an interface, that was made right before it
        if changed or self._clock.monotonic() - self._asked >= _AROUND:
            changed = self.look_around() or changed
        return changed or not whole

    def look_around(self) -> bool:
        """Read again what rules need to know about the node, such as members of ipsets; whether any has changed."""
        changed = self._surroundings.refresh()
        self._asked = self._clock.monotonic()
        return changed

    def now(self, families: Collection[Family]) -> Ruleset:
        """The rules of these families that are committed at this moment; the legacy tables are read again."""
        # a change that is taken in here may concern a family that the caller has evaluated already
        self._unreported = self._take_in(_PATIENCE) or self._unreported
        wanted = {"inet", *(family.nft for family in families)}
        tables = [table for table in self._mirror.current.tables if table.family in wanted]
        return Ruleset((*tables, *xtables.read_ruleset(self._namespace, families).tables), self._surroundings)

    # --- the next state

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
        from hitless.model.events import Writer  # 4 MB, only for callers that need the writer

        own = changes is None or any(change.key[1] in self._own for change in changes)
        if changes and not own and not any(change.kept for change in changes):
            return None
        writer = Writer(update.pid, update.comm, update.argv, update.parent) if update.pid else None
        return Observation(update.t, update.noticed or update.t, self._both(), writer, update.lost, own)

    def _changed_around(self) -> Observation | None:
        """What changes without an event of nf_tables, mainly members of ipsets: read once a second."""
        if self._clock.monotonic() - self._asked < _AROUND:
            return None
        before = self._clock.now()
        changed = self.look_around()
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
        except BaseException as error:  # noqa: BLE001 - any failure of a source ends the guard, which raises it
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
            pass  # changes in the meantime are one change at the next reading
        self._waiting.append(snapshot)
        self._mirror.wake()

    def _any_legacy(self) -> bool:
        for family in self.families:
            try:
                with Tables(self._namespace, family) as tables:
                    if any(tables.present(name) for name in TABLES):
                        return True
            except (KernelError, MissingError):  # this kernel has no such family, or no legacy path
                continue
        return False

    def _find_legacy(self) -> Poller | None:
        if not self._any_legacy():
            return None
        poller = self._start_poller()
        self._legacy = poller.snapshot().ruleset
        return poller

    def _start_poller(self) -> Poller:
        from hitless.kernel.xtables.polling import Poller

        return Poller(self._namespace, self.families, clock=self._clock, gentle=True)
