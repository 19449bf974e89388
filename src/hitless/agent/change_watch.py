"""Notices commits that may have changed our rules, and remembers which process made them.

Problem: an event only reports that something changed, but the log must name the process that damaged our rules.
Promise: commits to our chains and to the base chains that lead to them, and changes of legacy tables where there are
any (``hitless.agent.legacy``), request a pass; if that pass finds damage, the last of their writers is the suspect.
Commits that an observation already includes (its generation is at least as high) are dropped, our own among them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from hitless.agent.ports import AgentClock, CommitsPort, LegacyTables
from hitless.errors import EventsLostError, KernelError
from hitless.kernel.chains import ChainName
from hitless.model.families import Backend, Family, KernelPath
from hitless.model.state import Place, Purpose

__all__ = ["ChangeWatch", "Suspect"]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A process that may have changed our rules. ``time``: monotonic; ``generation``: of nf_tables, 0 for legacy."""

    time: float
    generation: int
    pid: int
    name: str

    @property
    def kin(self) -> str:
        """What counts as one opponent in a fight: iptables and ip6tables do (the kernel cuts names at 15 bytes), and a
        writer without a name is one of iptables-legacy."""
        return (self.name or "iptables-legacy").replace("ip6tables", "iptables")[:14]

    @property
    def label(self) -> str:
        """For messages."""
        name = self.name or "unknown"
        return f"{name} (pid {self.pid})" if self.pid else name


def relevant_chains(families: Collection[Family]) -> frozenset[ChainName]:
    """Our chains, the base chains that lead to them, and their tables (an empty chain name)."""
    found: set[ChainName] = set()
    for family in families:
        for backend in (each for each in Backend if each.path is KernelPath.NF_TABLES):
            for purpose in Purpose:
                names = Place(backend, family, purpose).names
                found |= {ChainName(family.nft, names.table, chain) for chain in (names.chain, names.base, "")}
    return frozenset(found)


class ChangeWatch:
    """Runs in the event loop. Calls ``on_change`` when our rules may have changed, and ``on_foreign_change`` when other
    rules have. ``listen`` gets the function to call for new events and returns how to stop; ``legacy`` creates the
    watch of the legacy tables."""

    def __init__(
        self,
        commits: CommitsPort,
        clock: AgentClock,
        *,
        listen: Callable[[Callable[[], None]], Callable[[], None]],
        legacy: Callable[[Callable[[int, str], None]], LegacyTables],
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.on_foreign_change: Callable[[], None] = lambda: None
        self._commits, self._clock = commits, clock
        self._listen, self._make_legacy = listen, legacy
        self._stop_listening: Callable[[], None] | None = None
        self._relevant = relevant_chains(tuple(Family))
        self._suspects: list[Suspect] = []
        self._seen = 0  # the generation of the last observation
        self._legacy: LegacyTables | None = None
        self.lost = 0

    def start(self) -> None:
        """Begin to listen."""
        self._stop_listening = self._listen(self.collect)

    def follow_legacy(self) -> bool:
        """From now on watch the legacy tables too. Returns whether this is new: what they hold is then not known."""
        if self._legacy is not None:
            return False
        self._legacy = self._make_legacy(self._legacy_changed)
        return True

    def close(self) -> None:
        """Stop listening."""
        if self._stop_listening is not None:
            self._stop_listening()
        self._commits.close()
        if self._legacy is not None:
            self._legacy.close()

    def _legacy_changed(self, pid: int, name: str) -> None:
        self._suspects.append(Suspect(self._clock.monotonic(), 0, pid, name))
        self.on_change()

    def pass_ended(self, cost: float) -> None:
        """A pass has just ended, and took so many seconds."""
        if self._legacy is not None:
            self._legacy.pass_ended(cost)

    def collect(self) -> None:
        """Read the new events."""
        if self._collect():
            self.on_change()

    def _collect(self) -> bool:
        """Whether there was a commit that may have changed our rules."""
        found = False
        try:
            for commit in self._commits.ready():
                if commit.generation > self._seen and commit.touched & self._relevant:
                    self._suspects.append(Suspect(self._clock.monotonic(), commit.generation, commit.pid, commit.name))
                    found = True
                elif commit.generation > self._seen:
                    self.on_foreign_change()
        except KernelError as error:  # lost events, or one that cannot be read: compare in either case
            self.lost += 1
            why = "the kernel dropped events" if isinstance(error, EventsLostError) else "an event is not understood"
            self._suspects.append(Suspect(self._clock.monotonic(), self._seen + 1, 0, f"unknown ({why})"))
            self.on_change()
        return found

    def take(self) -> list[Suspect]:
        """The suspects since the last call, oldest first."""
        found, self._suspects = self._suspects, []
        return found

    def covered(self, first: int, last: int) -> list[Suspect]:
        """A pass began with generation ``first`` and ended with ``last``: commits up to then need no other pass.

        Returns those up to ``first`` that were not taken yet: the pass has seen what they did.
        """
        self._collect()
        seen = [one for one in self._suspects if 0 < one.generation <= first]
        self._seen = max(self._seen, last)
        self._suspects = [one for one in self._suspects if one.generation == 0 or one.generation > last]
        if self._suspects:
            self.on_change()
        return seen
