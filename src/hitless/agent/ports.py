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
        """What stands at every place of these families, in every backend."""

    def apply(self, transaction: PlannedTransaction) -> None:
        """Commit one transaction, whole or not at all; raises ``ProgramError`` (``LockBusy``, ``NotSupported``)."""

    def egress(self, families: Collection[Family]) -> Ruleset:
        """The rules that a pod's packet to the outside passes at our chains, as far as they can be read at once."""

    def detect(self) -> Backend:
        """The iptables backend that the kubelet and kube-proxy use."""

    def knows_random_fully(self, backend: Backend) -> bool:
        """Whether MASQUERADE --random-fully can be had."""


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
        """The ways to addresses, as the node is now."""

    def close(self) -> None:
        """Close it."""


class AroundPort(Protocol):
    """Whom questions are about. Real: ``hitless.observe.LiveNode``."""

    def look(self, now: float) -> bool:
        """Look again when it is time; whether that was done."""

    def witnesses(self, asking: Asking) -> Witnesses:
        """Whom to ask about a network."""

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
        """Whether legacy tables stand here."""

    def conntrack(self) -> ClosingConntrack:
        """The connection table, opened."""

    def facts(self) -> FactsPort:
        """Addresses and routes, opened."""

    def around(self, families: tuple[Family, ...]) -> AroundPort:
        """The pods and the way out, opened."""

    def close(self) -> None:
        """Close everything; the rules stay."""


class AllRulesPort(Protocol):
    """Everybody's rules on one node; belongs to the judging thread. Real: ``hitless.agent.node.AllRules``."""

    def everything(self, families: Collection[Family]) -> Ruleset:
        """All that a pod's packet to the outside may meet."""

    def changed(self, families: Collection[Family]) -> bool:
        """Whether ``everything`` may give another answer since the last call; legacy tables are not looked at."""

    def around(self, families: tuple[Family, ...]) -> AroundPort:
        """The pods and the way out, opened."""

    def close(self) -> None:
        """Observe no more."""


class CommitsPort(Protocol):
    """Commits to nf_tables as they happen. Real: ``hitless.kernel.commits.Commits``."""

    def ready(self) -> Iterator[Commit]:
        """Those that are there now; raises ``KernelError`` (``EventsLostError``) where some cannot be had."""

    def close(self) -> None:
        """Close it."""


class LegacyTables(Protocol):
    """Changes of the legacy tables. Real: ``hitless.agent.legacy.LegacyWatch``."""

    def looked(self, cost: float) -> None:
        """A look has just ended, and took so long (seconds)."""

    def close(self) -> None:
        """Stop."""


class AgentClock(Protocol):
    """Time."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""

    def wall(self) -> float:
        """The time of day, in seconds since 1970."""


class Runtime(AgentClock, Protocol):
    """Time, waiting, and the threads in which the kernel is asked. Real: ``hitless.agent.runtime.AsyncRuntime``."""

    async def wait(self, seconds: float) -> None:
        """Until so much time is over, or ``wake`` is called: it counts also when it was called before."""

    def wake(self) -> None:
        """End ``wait``."""

    async def run(self, action: Callable[[], _T]) -> _T:
        """Do this in the kernel's thread: one after the other."""

    def begin(self, action: Callable[[], _T]) -> Future[_T]:
        """Do this in the judging thread, for which nothing waits; ``wake`` when it is over."""

    async def end(self, action: Callable[[], None], judging: Callable[[], None]) -> None:
        """Do these as the last, each in its thread; what the judging thread is busy with is not waited for."""
