"""A node in memory and in virtual time, for the watch's loop: rules of others, a mirror of them, pods, standbys.

``Node`` is every port of the loop. What others write is committed to ``rules`` at once, and reaches the watch as a step
of the feed, as late as the test wants. The mirror (``current``) is what the steps told so far; a change without an
event makes it differ from ``rules`` until it is compared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from tests.unit.guard.flannels import NETWORK

from hitless.model.events import Writer
from hitless.model.families import Backend, Family, family_of
from hitless.model.headers import PacketHeader
from hitless.model.rules import Hook, Ruleset, Table
from hitless.observe import Asking, LocalPod, NodeView, Witnesses, find
from hitless.semantics import ChainName
from hitless.watch.feeds import ChangedTable, Step
from hitless.watch.ports import StandbyFacts

EPOCH = 1_700_000_000_000_000_000

Key = tuple[str, str, bool]


@dataclass(frozen=True)
class _Commit:
    """What a commit made of tables; with a ``reason`` these are all that were read."""

    t: int
    generation: int
    tables: Mapping[Key, Table | None]
    writer: Writer | None = None
    reason: str = ""
    lost: bool = False


@dataclass
class Node:
    """One node. ``pods``: how many pods each network has."""

    seconds: float = 0.0
    horizon: float = 0.0  # the feed waits no longer than until then
    rules: dict[Key, Table] = field(default_factory=dict)
    pods: int = 0
    facts_changed: bool = False
    compares_for: float = 0.0  # seconds of work that a comparison takes
    guards: bool = False
    flows: int = 0
    delays: list[int] = field(default_factory=list)  # of each step, in nanoseconds
    comparisons: int = 0
    follow: frozenset[ChainName] = frozenset()
    towards: Callable[[], Iterable[PacketHeader]] = tuple
    legacy: bool = False
    generation: int = 1
    handed: list[Step] = field(default_factory=list)  # to the loop, until the test clears it
    _kernel: int = 1  # generation
    _work: float = 0.0
    _mirror: dict[Key, Table] = field(default_factory=dict)
    _queue: deque[_Commit] = field(default_factory=deque)
    _end: int | None = None

    # --- time

    def now(self) -> int:
        return EPOCH + round(self.seconds * 1e9)

    def monotonic(self) -> float:
        return self.seconds

    def worked(self) -> float:
        return self._work

    # --- what others do

    def begin(self, tables: Iterable[Table]) -> None:
        """These rules are there."""
        self.rules = {_key(table): table for table in tables}

    def read(self) -> None:
        """A watch begins: everything is read, and nothing waits."""
        self._queue.clear()
        self.legacy, self.generation, self._end = False, self._kernel, None
        self._mirror = {key: table for key, table in self.rules.items() if not table.legacy}
        self.find_legacy()
        self.handed.clear()

    def write(self, tables: Sequence[Table | None], keys: Sequence[Key], writer: Writer | None) -> bool:
        """Make these tables so (``None``: delete); whether that changes anything."""
        new = {key: table for key, table in zip(keys, tables, strict=True) if self.rules.get(key) is not table}
        if not new:
            return False
        self._apply(self.rules, new)
        if all(legacy for _, _, legacy in new) and not self.legacy:
            return True  # nothing announces it
        self._kernel += 1
        self._queue.append(_Commit(self.now(), self._kernel, new, writer))
        return True

    def write_silently(self, table: Table) -> None:
        """A change whose event does not come, although none is said to be lost."""
        self.rules[_key(table)] = table

    def lose(self) -> None:
        """The kernel drops the events that wait: everything is read again."""
        self._queue.clear()
        self._read_again("the kernel dropped events", lost=True)

    def read_again(self) -> None:
        """Everything is read again for a reason of ours; no commit is skipped."""
        self._read_again("a table did not fit", lost=False)

    def _read_again(self, reason: str, *, lost: bool) -> None:
        everything: dict[Key, Table | None] = {key: self.rules.get(key) for key in self._mirror.keys() | self.rules}
        if not self.legacy:
            everything = {key: table for key, table in everything.items() if not key[2]}
        self._queue.append(_Commit(self.now(), self._kernel, everything, None, reason, lost))

    @staticmethod
    def _apply(tables: dict[Key, Table], new: Mapping[Key, Table | None]) -> None:
        for key, table in new.items():
            if table is None:
                tables.pop(key, None)
            else:
                tables[key] = table

    # --- the feed

    @property
    def surroundings(self) -> Node:
        return self

    def refresh(self) -> bool:
        changed, self.facts_changed = self.facts_changed, False
        return changed

    @property
    def current(self) -> Ruleset:
        return Ruleset(tuple(self._mirror.values()))

    @property
    def backlog(self) -> int:
        return len(self._queue)

    @property
    def behind(self) -> bool:
        return self._end is not None and self.generation < self._end

    def next(self, timeout: float | None = None) -> Step | None:
        if self._queue:
            commit = self._queue.popleft()
            changed = None if commit.reason else tuple(
                _changed(key, self._mirror.get(key), table) for key, table in commit.tables.items()
            )  # fmt: skip
            self._apply(self._mirror, commit.tables)
            self.generation = commit.generation
            self.delays.append(self.now() - commit.t)
            return self._hand(
                Step(commit.t, self.current, commit.generation, commit.writer, changed, commit.lost,
                     commit.reason, commit.t)
            )  # fmt: skip
        until = self.seconds + (timeout or 0.0)
        self.seconds = max(self.seconds, until if self._end is not None else min(until, self.horizon))
        return None

    def find_legacy(self) -> Step | None:
        tables = {key: table for key, table in self.rules.items() if key[2]}
        if self.legacy or not tables:
            return None
        self.legacy = True
        self._mirror.update(tables)
        return self._hand(Step(self.now(), self.current, self.generation, reason="legacy tables", noticed=self.now()))

    def verify(self, chains: Iterable[ChainName]) -> Step | None:
        self.comparisons += 1
        self.seconds += self.compares_for
        self._work += self.compares_for
        if self._queue or not any(self._differs(chain) for chain in chains):
            return None
        self._mirror = {key: table for key, table in self.rules.items() if self.legacy or not table.legacy}
        return self._hand(
            Step(self.now(), self.current, self.generation, reason="the rules differ", noticed=self.now())
        )

    def _hand(self, step: Step) -> Step:
        self.handed.append(step)
        return step

    def _differs(self, chain: ChainName) -> bool:
        family, table, name = chain
        kept, held = (tables.get((family, table, False)) for tables in (self._mirror, self.rules))
        return kept is not held and (kept and kept.chains.get(name)) != (held and held.chains.get(name))

    def sets_used(self, chain: ChainName) -> frozenset[str]:
        return frozenset()

    def take_lag(self) -> int:
        return 0

    def finish(self) -> None:
        self._end = self._kernel

    def never_delivered(self) -> None:
        """The last commits do not come."""
        self._queue.clear()

    def wake(self) -> None:
        """Nothing waits in another thread."""

    def close(self) -> None:
        """Nothing to close."""

    # --- the node around

    view = NodeView()

    def look(self, now: float) -> bool:
        return True

    def witnesses(self, asking: Asking) -> Witnesses:
        return _witnesses(asking, self.pods)

    # --- a guard's tables

    def facts(self, families: Collection[Family]) -> Mapping[Family, StandbyFacts]:
        return dict.fromkeys(families, StandbyFacts(self.guards, self.flows))


def _key(table: Table) -> Key:
    return table.family, table.name, table.legacy


@lru_cache(1024)
def _witnesses(asking: Asking, pods: int) -> Witnesses:
    home = NETWORK[family_of(asking.network)]
    found = find(replace(asking, uplink="eth0"), NodeView(), lambda *_: "")
    return replace(found, pods=tuple(LocalPod(home[number + 10], f"veth{number}") for number in range(pods)))


@lru_cache(4096)
def _hooks(hooks: tuple[tuple[str, Hook], ...]) -> frozenset[tuple[str, Hook]]:
    return frozenset(hooks)


_known: dict[tuple[Key, int, int], tuple[Table | None, Table | None, ChangedTable]] = {}


def _changed(key: Key, old: Table | None, new: Table | None) -> ChangedTable:
    """What the kernel's events tell of a commit: the chains and base chains that it touched."""
    known = _known.get((key, id(old), id(new)))
    if known is not None and known[0] is old and known[1] is new:
        return known[2]
    before, after = (table.chains if table is not None else {} for table in (old, new))
    chains = frozenset(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    hooks = _hooks(tuple(old.hooks()) if old else ()) ^ _hooks(tuple(new.hooks()) if new else ())
    touched = frozenset(hook.hook for _, hook in hooks)
    added, removed = (sum(len(each[name].rules) for name in chains if name in each) for each in (after, before))
    backend = Backend.LEGACY if key[2] else Backend.NFT
    found = ChangedTable(
        key[0], key[1], backend, added, removed, chains, frozenset(), touched, ", ".join(sorted(chains))
    )
    _known[key, id(old), id(new)] = old, new, found
    return found
