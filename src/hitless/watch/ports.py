"""What the watch's loop needs of the world: a feed of rules, the node, a guard's tables, and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hitless.model.families import Family
from hitless.model.headers import PacketHeader
from hitless.model.rules import Ruleset
from hitless.observe import Asking, NodeView, Witnesses
from hitless.semantics import ChainName
from hitless.watch.feeds import Step

__all__ = ["FeedPort", "MachineTime", "NodePort", "StandbyFacts", "StandbyPort", "Time", "World"]


class Time(Protocol):
    """Time beside the clock that stamps events."""

    def monotonic(self) -> float:
        """Seconds of a clock that only goes forward."""

    def worked(self) -> float:
        """Seconds for which this thread has had a processor."""


class MachineTime:
    """This machine's."""

    def monotonic(self) -> float:
        """Seconds of a clock that only goes forward."""
        return time.monotonic()

    def worked(self) -> float:
        """Seconds for which this thread has had a processor."""
        return time.thread_time()


class _Surroundings(Protocol):
    def refresh(self) -> bool:
        """Whether a fact of the node has changed."""


class FeedPort(Protocol):
    """Committed rule sets, one after the other. Real: ``hitless.watch.feeds.Feed``."""

    follow: frozenset[ChainName]
    towards: Callable[[], Iterable[PacketHeader]]

    @property
    def surroundings(self) -> _Surroundings: ...

    @property
    def current(self) -> Ruleset: ...

    @property
    def generation(self) -> int: ...

    @property
    def legacy(self) -> bool: ...

    @property
    def backlog(self) -> int: ...

    @property
    def behind(self) -> bool: ...

    def next(self, timeout: float | None = None) -> Step | None: ...

    def find_legacy(self) -> Step | None: ...

    def verify(self, chains: Iterable[ChainName]) -> Step | None: ...

    def sets_used(self, chain: ChainName) -> frozenset[str]: ...

    def take_lag(self) -> int: ...

    def finish(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...


class NodePort(Protocol):
    """The node around the rules. Real: ``hitless.observe.LiveNode``."""

    @property
    def view(self) -> NodeView: ...

    def look(self, now: float) -> bool: ...

    def witnesses(self, asking: Asking) -> Witnesses: ...

    def close(self) -> None: ...


class StandbyPort(Protocol):
    """A guard's standby tables. Real: ``hitless.watch.standbys.StandbyTables``."""

    def facts(self, families: Collection[Family]) -> Mapping[Family, StandbyFacts]:
        """Whether a guard holds each family's table now, and how many flows it has translated."""


@dataclass(frozen=True, slots=True)
class StandbyFacts:
    """``guard``: a process holds the table; ``flows``: translated since the table was made."""

    guard: bool = False
    flows: int = 0


@dataclass(frozen=True, slots=True)
class World:
    """All ports together."""

    feed: FeedPort
    node: NodePort
    time: Time
    standby: StandbyPort
