"""The agent's ports: protocols with a real and a fake implementation each.

A plan needs ``AgentRulesPort``; ``AgentNodePort`` is all of a node's kernel, and ``AllRulesPort`` reads the rules of
all programs. ``CommitsPort`` and ``LegacyTables`` report that rules have changed. ``Runtime`` is the clock, waiting,
and the two threads that call the kernel. The loop gets all of them as arguments, so that tests run it in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future
from typing import Protocol, TypeVar

from hitless.heal import ConntrackPort
from hitless.kernel.addresses import Paths
from hitless.kernel.commits import Commit
from hitless.model.families import Address, Backend, Family, Network
from hitless.model.rules import Ruleset
from hitless.model.state import NodeState
from hitless.observe import Asking, Witnesses
from hitless.plan import PlannedTransaction

__all__ = [
    "AgentClock",
    "AgentNodePort",
    "AgentRulesPort",
    "AllRulesPort",
    "AroundPort",
    "ClosingConntrack",
    "CommitsPort",
    "FactsPort",
    "LegacyTables",
    "Runtime",
]

_T = TypeVar("_T")


class AgentRulesPort(Protocol):
    """Rules of one node. Real: ``hitless.agent.node.AgentNode``; fake: ``hitless.testing.FakeKernel``."""

    def observe(self, families: Collection[Family]) -> NodeState:
        """The rules at every place of these families, in every backend."""

    def apply(self, transaction: PlannedTransaction) -> None:
        """Commit one transaction, whole or not at all; raises ``ProgramError`` (``LockBusy``, ``NotSupported``)."""

    def egress(self, families: Collection[Family]) -> Ruleset:
        """The chains that a pod's packet to the outside passes near ours; sets are not read."""

    def detect(self) -> Backend:
        """The iptables backend that the kubelet and kube-proxy use."""

    def knows_random_fully(self, backend: Backend) -> bool:
        """Whether this backend supports MASQUERADE --random-fully."""


class ClosingConntrack(ConntrackPort, Protocol):
    """The connection table of one namespace."""

    def close(self) -> None:
        """Close it."""


class FactsPort(Protocol):
    """Addresses and routes of a node. Real: ``hitless.kernel.addresses.NodeFacts``."""

    def addresses(self, family: Family) -> frozenset[Address]:
        """The node's own addresses."""

    def routes(self, family: Family) -> Iterable[Network]:
        """Where its routes lead."""

    def paths(self, family: Family) -> Paths:
        """By which interfaces addresses are reached at present."""

    def close(self) -> None:
        """Close it."""


class AroundPort(Protocol):
    """The node's pods and uplink, which evaluations are about. Real: ``hitless.observe.LiveNode``."""

    def look(self, now: float) -> bool:
        """Read them again when that is due; whether it was done."""

    def witnesses(self, asking: Asking) -> Witnesses:
        """The pods, uplink and far ends of a network's evaluation."""

    def close(self) -> None:
        """Close it."""


class AgentNodePort(AgentRulesPort, Protocol):
    """All of a node's kernel that the agent reads and writes."""

    @property
    def commands(self) -> int:
        """How many programs were run."""

    @property
    def generation(self) -> int:
        """The nf_tables generation that the last observation belongs to."""

    def hinted(self) -> Backend | None:
        """The backend in which the kubelet left its hints."""

    def has_legacy(self) -> bool:
        """Whether there are legacy tables."""

    def conntrack(self) -> ClosingConntrack:
        """Open the connection table."""

    def facts(self) -> FactsPort:
        """Open the addresses and routes."""

    def around(self, families: tuple[Family, ...]) -> AroundPort:
        """Open the view of the node's pods and uplink."""

    def close(self) -> None:
        """Close everything; the rules stay."""


class AllRulesPort(Protocol):
    """The rules of all programs on one node; for the judging thread. Real: ``hitless.agent.node.AllRules``."""

    def everything(self, families: Collection[Family]) -> Ruleset:
        """All rules that a pod's packet to the outside may meet."""

    def changed(self, families: Collection[Family]) -> bool:
        """Whether ``everything`` may have changed since the last call; legacy tables are not compared."""

    def around(self, families: tuple[Family, ...]) -> AroundPort:
        """Open the view of the node's pods and uplink."""

    def close(self) -> None:
        """Stop observing."""


class CommitsPort(Protocol):
    """Commits to nf_tables as they happen. Real: ``hitless.kernel.commits.Commits``."""

    def ready(self) -> Iterator[Commit]:
        """Those that have arrived; raises ``KernelError`` (``EventsLostError``) where some are missing."""

    def close(self) -> None:
        """Close it."""


class LegacyTables(Protocol):
    """Changes of the legacy tables. Real: ``hitless.agent.legacy.LegacyWatch``."""

    def pass_ended(self, cost: float) -> None:
        """A pass has just ended, and took so many seconds."""

    def close(self) -> None:
        """Stop."""


class AgentClock(Protocol):
    """Time."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""

    def wall(self) -> float:
        """The time of day, in seconds since 1970."""


class Runtime(AgentClock, Protocol):
    """Clock, waiting, and the threads that call the kernel. Real: ``hitless.agent.runtime.AsyncRuntime``."""

    async def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when ``wake`` is called; at once if it was called since the last
        ``wait``."""

    def wake(self) -> None:
        """End ``wait``."""

    async def run(self, action: Callable[[], _T]) -> _T:
        """Call this in the kernel's thread, one call after the other."""

    def begin(self, action: Callable[[], _T]) -> Future[_T]:
        """Call this in the judging thread, without waiting for it; ``wake`` is called when it has returned."""

    async def end(self, action: Callable[[], None], judging: Callable[[], None]) -> None:
        """Make the last call in each thread; a running call in the judging thread is not waited for."""
