"""A whole node in memory, for running the agent in virtual time: rules, events, connection table, pods.

Promise: ``FakeNode`` is an ``AgentNodePort`` and an ``AllRulesPort``. Every commit is announced as the kernel announces
it: for nf_tables by its generation, its writer and the chains that it touched (``events``, which can lose some), for
the legacy tables by a call. Readings can fail (``fail_reads``). Pods and the uplink are known, and no connection is
poisoned. ``forget`` drops the history, for runs of any length.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from hitless.errors import EventsLostError, HitlessError
from hitless.kernel.addresses import Paths
from hitless.kernel.chains import ChainName
from hitless.kernel.commits import Commit
from hitless.kernel.conntrack import Entry
from hitless.model.families import Address, Backend, Family, Network
from hitless.model.rules import Ruleset, Table
from hitless.model.state import NodeState
from hitless.observe import Asking, LocalPod, NodeView, Witnesses, find
from hitless.plan import PlannedTransaction
from hitless.testing.fake_kernel import FakeKernel

__all__ = ["FakeEvents", "FakeNode"]

_US = (4711, "hitless")


class FakeEvents:
    """``CommitsPort`` of a fake node. ``lose``: the next reading finds that some were dropped."""

    def __init__(self) -> None:
        self.waiting: list[Commit] = []
        self._lost = False

    def lose(self) -> None:
        """Drop what waits, as the kernel does when its buffer is full."""
        self.waiting.clear()
        self._lost = True

    def ready(self) -> Iterator[Commit]:
        """Those that are there now."""
        if self._lost:
            self._lost = False
            raise EventsLostError("follow", "the changes of the rules", reason="the buffer was full")
        while self.waiting:
            yield self.waiting.pop(0)

    def close(self) -> None:
        """Nothing is held."""


class _NoFlows:
    """A connection table without poisoned flows; ``dumps`` counts the readings."""

    def __init__(self) -> None:
        self.dumps = 0

    def dump(self, family: Family, *, without: int = 0) -> Iterator[Entry]:
        """None."""
        self.dumps += 1
        return iter(())

    def delete_all(self, family: Family, entries: Sequence[Entry]) -> Sequence[Entry]:
        """None."""
        return ()

    def close(self) -> None:
        """Nothing is held."""


class _Facts:
    """A node without routes to single pods."""

    def addresses(self, family: Family) -> frozenset[Address]:
        """None."""
        return frozenset()

    def routes(self, family: Family) -> tuple[Network, ...]:
        """None."""
        return ()

    def paths(self, family: Family) -> Paths:
        """None."""
        return Paths(())

    def close(self) -> None:
        """Nothing is held."""


class _Around:
    """A node with one pod, whose link is known, as is the uplink."""

    def look(self, now: float) -> bool:
        """Nothing changes."""
        return False

    def witnesses(self, asking: Asking) -> Witnesses:
        """The pod."""
        return _witnesses(asking)

    def close(self) -> None:
        """Nothing is held."""


@lru_cache(1024)
def _witnesses(asking: Asking) -> Witnesses:
    home = asking.own or asking.network
    found = find(replace(asking, uplink="eth0"), NodeView(), lambda *_: "")
    return replace(found, pods=(LocalPod(home[10], "veth0"),))


class FakeNode(FakeKernel):
    """``commands`` counts what was committed by the agent. ``legacy`` is called for changes of legacy tables."""

    def __init__(self, *, random_fully: bool = True, detected: Backend = Backend.NFT) -> None:
        super().__init__(random_fully=random_fully, detected=detected)
        self.events = FakeEvents()
        self.flows = _NoFlows()
        self.legacy: Callable[[int, str], None] | None = None
        self.version = 0  # of all rules
        self._generation = 1
        self._read = 0
        self._delivered = -1
        self._commands = 0
        self._writer = _US
        self._failing: list[HitlessError] = []

    # --- NodePort

    @property
    def commands(self) -> int:
        """How many transactions were tried."""
        return self._commands

    @property
    def generation(self) -> int:
        """The generation of the last observation."""
        return self._read

    def observe(self, families: Collection[Family]) -> NodeState:
        """As the kernel's, or a failure."""
        self._may_fail()
        self._read = self._generation
        return super().observe(families)

    def apply(self, transaction: PlannedTransaction) -> None:
        """As the kernel's."""
        self._commands += 1
        self._writer = _US
        super().apply(transaction)

    def egress(self, families: Collection[Family]) -> Ruleset:
        """As the kernel's, or a failure."""
        self._may_fail()
        return super().egress(families)

    # --- AllRulesPort

    def everything(self, families: Collection[Family]) -> Ruleset:
        """All rules, or a failure."""
        self._may_fail()
        self._delivered = self._generation
        return super().egress(families)

    def changed(self, families: Collection[Family]) -> bool:
        """Whether rules of nf_tables have changed since ``everything``."""
        self._may_fail()
        return self._delivered != self._generation

    def hinted(self) -> Backend | None:
        """There is no kubelet."""
        return None

    def has_legacy(self) -> bool:
        """Whether there is a legacy table."""
        return any(table.legacy for table in self.ruleset().tables)

    def conntrack(self) -> _NoFlows:
        """The connection table."""
        return self.flows

    def facts(self) -> _Facts:
        """Addresses and routes."""
        return _Facts()

    def around(self, families: tuple[Family, ...]) -> _Around:
        """The pods and the uplink."""
        return _Around()

    def close(self) -> None:
        """Nothing is held."""

    # --- for tests

    def fail_reads(self, error: HitlessError, times: int = 1) -> None:
        """Make the next readings fail."""
        self._failing += [error] * times

    @property
    def fails(self) -> bool:
        """Whether something is still to fail."""
        return bool(self._failing or self._failures)

    def heal_faults(self) -> None:
        """From now on nothing fails."""
        self._failing.clear()
        self._failures.clear()
        self.die_at(None)

    def forget(self) -> None:
        """Drop the history of rules."""
        del self.history[:-1]

    def other(self, backend: Backend, family: Family, text: str, name: str = "fw", pid: int = 77) -> None:
        """A write by another program."""
        self._writer = (pid, name)
        self.write(backend, family, text)

    def write(self, backend: Backend, family: Family, text: str) -> None:
        """Execute a text, and announce it."""
        before = {(table.family, table.name, table.legacy): table for table in self.history[-1].tables}
        super().write(backend, family, text)
        self.version += 1
        pid, name = self._writer
        if backend.legacy:
            if self.legacy is not None:
                self.legacy(pid, name)
            return
        self._generation += 1
        after = {(table.family, table.name, table.legacy): table for table in self.history[-1].tables}
        touched = frozenset(each for key in before.keys() | after.keys() for each in _touched(before, after, key))
        self.events.waiting.append(Commit(self._generation, pid, name, touched))

    def _may_fail(self) -> None:
        if self._failing:
            raise self._failing.pop(0)


_Key = tuple[str, str, bool]


def _touched(before: dict[_Key, Table], after: dict[_Key, Table], key: _Key) -> Iterator[ChainName]:
    family, table, legacy = key
    if legacy:
        return
    old, new = before.get(key), after.get(key)
    if old is new:
        return
    if old is None or new is None:
        yield ChainName(family, table, "")
    old_chains, new_chains = (each.chains if each is not None else {} for each in (old, new))
    for name in old_chains.keys() | new_chains.keys():
        if old_chains.get(name) != new_chains.get(name):
            yield ChainName(family, table, name)
