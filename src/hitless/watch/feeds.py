"""Committed rule sets, one after another, of both kernel paths (nf_tables, legacy).

Problem: nf_tables announces its commits, the legacy path must be polled, and a packet passes both. Promise: ``Feed``
gives each change of either as a ``Step`` with the whole rule set after it, stamped when it was noticed, with its writer
as far as the kernel tells. The legacy path is polled only while it has tables. It evaluates nothing. Next
stage: ``watching``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType

from hitless.errors import HitlessError, KernelError, MissingError, ours
from hitless.kernel.clock import Clock
from hitless.kernel.cpu_priority import hasten
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables import Mirror, TableChange, Update
from hitless.kernel.nftables.interest import EVERYTHING, Interest
from hitless.kernel.nftables.wire import FAMILIES
from hitless.kernel.surroundings import NodeSurroundings
from hitless.kernel.xtables.polling import Poller, Snapshot
from hitless.kernel.xtables.sockopt import TABLES, Tables
from hitless.model.events import Writer
from hitless.model.families import Backend, Family, KernelPath
from hitless.model.headers import PacketHeader
from hitless.model.rules import Hook, Rule, Ruleset, Table

__all__ = ["ChangedTable", "Feed", "Step"]

_XTABLES = frozenset(TABLES)
"""The names that iptables-nft gives its tables, in the families ip and ip6."""

ChainName = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class ChangedTable:
    """One table's part of a commit. ``hooks``: where base chains came, went or changed their policy."""

    family: str
    table: str
    backend: Backend
    added: int
    removed: int
    chains: frozenset[str]
    sets: frozenset[str]
    hooks: frozenset[str]
    summary: str


@dataclass(frozen=True, slots=True)
class Step:
    """A committed rule set. ``changes`` is ``None`` after a full read: anything may have changed since ``noticed``."""

    t: int
    ruleset: Ruleset
    generation: int = 0
    writer: Writer | None = None
    changes: tuple[ChangedTable, ...] | None = None
    lost: bool = False
    reason: str = ""
    noticed: int = 0


class Feed:
    """A context manager. ``interest``: what of nf_tables is kept. ``follow`` names the chains that the reader cares
    about, ``towards`` the packets: the legacy path's are compared rule by rule, as far as these may meet them. For one
    thread; ``wake`` may come from anywhere. Raises ``MissingError`` without permission."""

    def __init__(
        self,
        namespace: Namespace = HERE,
        families: Collection[Family] = (Family.IPV4, Family.IPV6),
        backends: Collection[Backend] = tuple(Backend),
        *,
        clock: Clock | None = None,
        interest: Interest = EVERYTHING,
        receive_buffer: int = 8 << 20,
        urgent: bool = False,
    ) -> None:
        self._namespace, self._families, self._clock = namespace, tuple(families), clock or Clock.from_environment()
        self._with_legacy, self._urgent = any(each.legacy for each in backends), urgent
        self._snapshots: deque[Snapshot] = deque()
        self._polling: _Polling | None = None
        self._legacy: tuple[Table, ...] = ()
        self.surroundings = NodeSurroundings(namespace)
        self._last = 0
        self.follow: frozenset[ChainName] = frozenset()
        self.towards: Callable[[], Iterable[PacketHeader]] = tuple
        # without an nf_tables backend there are no events to wait for, but its waiting serves the legacy path too
        self._mirror = Mirror(
            namespace,
            self._families,
            None if any(each.path is KernelPath.NF_TABLES for each in backends) else (),
            interest=interest,
            clock=self._clock,
            receive_buffer=receive_buffer,
            urgent=urgent,
        )
        try:
            self.find_legacy()
        except BaseException:
            self._mirror.close()
            raise

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End watching."""
        if self._polling is not None:
            self._polling.close()
            self._polling = None
        self.surroundings.close()
        self._mirror.close()

    @property
    def current(self) -> Ruleset:
        """The rule set after the last step."""
        return Ruleset((*self._mirror.current.tables, *self._legacy), node=self.surroundings)

    @property
    def generation(self) -> int:
        """The nf_tables generation of ``current``."""
        return self._mirror.generation

    @property
    def legacy(self) -> bool:
        """Whether the legacy path has tables, and is polled."""
        return self._polling is not None

    @property
    def backlog(self) -> int:
        """How many commits were received and not yet applied."""
        return self._mirror.waiting

    def finish(self) -> None:
        """Read a last time: ``behind`` is then whether ``next`` still has something that was committed before now."""
        self._last = self._mirror.committed
        if self._polling is not None:
            self._polling.stop()
            self._polling.collect()

    @property
    def behind(self) -> bool:
        """After ``finish``: whether ``next`` has not given everything yet. Later commits of others do not count."""
        missing = (self._last - self.generation) & 0xFFFFFFFF  # the number wraps
        return bool(self._snapshots) or 0 < missing < 1 << 31

    def wake(self) -> None:
        """Make ``next`` return now."""
        self._mirror.wake()

    def find_legacy(self) -> Step | None:
        """Start to poll the legacy path if it has tables by now; the step that this makes."""
        if not self._with_legacy or self._polling is not None or not self._legacy_present():
            return None
        polling = _Polling(
            self._namespace, self._families, self._clock, self._snapshots, self._mirror.wake, self._urgent
        )
        self._polling = polling
        self._legacy = polling.first.ruleset.tables
        return Step(
            polling.first.t,
            self.current,
            self.generation,
            reason="iptables-legacy has tables: they are polled from now on",
            noticed=polling.first.t,
        )

    def _legacy_present(self) -> bool:
        for family in self._families:
            try:
                with Tables(self._namespace, family) as tables:
                    if any(tables.present(name) for name in TABLES):
                        return True
            except (KernelError, MissingError):  # the family, or the legacy path, is not in this kernel
                continue
        return False

    def next(self, timeout: float | None = None) -> Step | None:
        """The next change; ``None`` when there was none in time, or at ``wake``."""
        if self._snapshots:
            return self._from_legacy(self._snapshots.popleft())
        update = self._mirror.next(timeout)
        if update is not None:
            return self._from_nft(update)
        if self._snapshots:
            return self._from_legacy(self._snapshots.popleft())
        if self._polling is not None and self._polling.failure is not None:
            raise self._polling.failure
        return None

    def take_lag(self) -> int:
        """The longest time from a commit to here since the last call, in nanoseconds; for the legacy path, by how much
        it was polled later than planned."""
        return max(self._mirror.take_lag(), 0 if self._polling is None else self._polling.take_lag())

    def sets_used(self, chain: ChainName) -> frozenset[str]:
        """The nf_tables sets that a chain referred to when it was read."""
        return self._mirror.sets_used(*chain)

    def verify(self, chains: Iterable[ChainName]) -> Step | None:
        """Compare chains with the kernel's; the step of a full read when they differ."""
        update = self._mirror.verify(chains)
        return None if update is None else self._from_nft(update)

    def _from_nft(self, update: Update) -> Step:
        writer = Writer(update.pid, update.comm, update.argv, update.parent) if update.pid else None
        changes = None if update.changes is None else tuple(_changed(change) for change in update.changes)
        return Step(
            update.t,
            self.current,
            update.generation,
            writer,
            changes,
            update.lost,
            update.reason,
            update.noticed,
        )

    def _from_legacy(self, snapshot: Snapshot) -> Step:
        old = {(table.family, table.name): table for table in self._legacy}
        self._legacy = snapshot.ruleset.tables
        new = {(table.family, table.name): table for table in self._legacy}
        changes = []
        headers = tuple(self.towards())
        for family, name in snapshot.changed:
            key = (family.nft, name)
            followed = {chain for nft, table, chain in self.follow if (nft, table) == key}
            towards = [header for header in headers if header.version == (4 if family is Family.IPV4 else 6)]
            changes.append(_compared(key, old.get(key), new.get(key), followed, towards))
        return Step(snapshot.t, self.current, self.generation, snapshot.writer, tuple(changes))


class _Polling:
    """The thread that polls the legacy tables."""

    def __init__(
        self,
        namespace: Namespace,
        families: Iterable[Family],
        clock: Clock,
        into: deque[Snapshot],
        wake: Callable[[], None],
        urgent: bool,
    ) -> None:
        self._poller = Poller(namespace, families, clock=clock)
        try:
            self.first = self._poller.snapshot()
        except BaseException:
            self._poller.close()
            raise
        self.failure: HitlessError | None = None
        self._into, self._wake, self._urgent, self._stop = into, wake, urgent, False
        self._thread = threading.Thread(target=self._run, name="legacy-tables", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if self._urgent:
            hasten(2)
        try:
            while not self._stop:
                snapshot = self._poller.wait()
                if snapshot is not None:
                    self._into.append(snapshot)
                    self._wake()
        except BaseException as error:  # noqa: BLE001 - without this thread nothing is seen any more: ``collect`` raises it
            self.failure = ours(error, "the thread that asks the legacy tables")
            self._wake()

    def stop(self) -> None:
        self._stop = True
        self._poller.wake()
        self._thread.join()

    def take_lag(self) -> int:
        return self._poller.take_lag()

    def collect(self) -> None:
        if self.failure is not None:
            raise self.failure
        self._into.extend(self._poller.last())

    def close(self) -> None:
        self.stop()
        self._poller.close()


def _changed(change: TableChange) -> ChangedTable:
    family, table = change.key
    family_name = FAMILIES[family]
    backend = Backend.of(KernelPath.NF_TABLES, native=family_name == "inet" or table not in _XTABLES)
    return ChangedTable(
        family_name,
        table,
        backend,
        change.added,
        change.removed,
        frozenset(change.chains),
        frozenset(change.sets),
        frozenset(change.hooks),
        change.summary(),
    )


def _compared(
    key: tuple[str, str], old: Table | None, new: Table | None, followed: Iterable[str], towards: Sequence[PacketHeader]
) -> ChangedTable:
    """A legacy change, as far as the followed chains show it: the path replaces whole tables."""
    chains, changes, added, removed = set(), [], 0, 0
    for name in sorted(followed):
        before, after = _rules(old, name, towards), _rules(new, name, towards)
        if before == after:
            continue
        chains.add(name)
        more, less = _count(before, after)
        added, removed = added + more, removed + less
        signs = " ".join(text for number, text in ((less, f"-{less}"), (more, f"+{more}")) if number)
        noun = " rule" if more + less == 1 else " rules"
        changes.append(f"{name}: {signs}{noun}" if signs else f"{name}: reordered")
    hooks = frozenset(hook.hook for _, hook in _hooks(old) ^ _hooks(new))
    if hooks:
        changes.append("base chains or policies changed")
    return ChangedTable(
        *key,
        Backend.of(KernelPath.XTABLES, native=False),
        added,
        removed,
        frozenset(chains),
        frozenset(),
        hooks,
        "; ".join(changes[:6]) or "table replaced",
    )


def _rules(table: Table | None, name: str, towards: Sequence[PacketHeader]) -> list[Rule] | None:
    """The rules of a chain that one of these packets may meet; of a short chain these are nearly all, of one with a
    rule for each Service a few."""
    if table is None or name not in table.chains:
        return None
    if not towards:
        return list(table.chains[name].rules)
    found = {number: rule for each in towards for number, rule in table.rules_for(name, each)}
    return [found[number] for number in sorted(found)]


def _count(before: Sequence[Rule] | None, after: Sequence[Rule] | None) -> tuple[int, int]:
    old = list(before or ())
    more = 0
    for rule in after or ():
        if rule in old:
            old.remove(rule)
        else:
            more += 1
    return more, len(old)


def _hooks(table: Table | None) -> frozenset[tuple[str, Hook]]:
    return frozenset() if table is None else frozenset(table.hooks())
