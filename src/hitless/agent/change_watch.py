"""What may have touched our rules, and who did it.

Problem: an event says "look", and must say whom to name. Promise: commits to the chains that lead pods outside, and
changes of legacy tables where there are any (``hitless.agent.legacy``), wake the loop; the last of them is the
suspect if the look finds damage. Commits that an observation already covers (its generation is as high) are dropped,
our own among them.
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
    """Somebody who may have changed our rules: monotonic time, nf_tables generation (0: legacy), who."""

    time: float
    generation: int
    pid: int
    name: str

    @property
    def kin(self) -> str:
        """What is one opponent in a fight: iptables and ip6tables are (the kernel cuts names at 15 bytes), and a writer
        without a name is one of iptables-legacy."""
        return (self.name or "iptables-legacy").replace("ip6tables", "iptables")[:14]

    @property
    def label(self) -> str:
        """For messages."""
        name = self.name or "unknown"
        return f"{name} (pid {self.pid})" if self.pid else name


def interesting(families: Collection[Family]) -> frozenset[ChainName]:
    """Our chains, the base chains that lead to them, and their tables (an empty chain name)."""
    found: set[ChainName] = set()
    for family in families:
        for backend in (each for each in Backend if each.path is KernelPath.NF_TABLES):
            for purpose in Purpose:
                names = Place(backend, family, purpose).names
                found |= {ChainName(family.nft, names.table, chain) for chain in (names.chain, names.base, "")}
    return frozenset(found)


class ChangeWatch:
    """Listens in the event loop; ``wake`` is called when it is time to look, ``stir`` when others have changed rules
    of theirs. ``listen`` (a function and what to call) begins to listen and returns how to end it; ``legacy`` makes
    what watches the legacy tables."""

    def __init__(
        self,
        commits: CommitsPort,
        clock: AgentClock,
        *,
        listen: Callable[[Callable[[], None]], Callable[[], None]],
        legacy: Callable[[Callable[[int, str], None]], LegacyTables],
    ) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.stir: Callable[[], None] = lambda: None
        self._commits, self._clock = commits, clock
        self._listen, self._make_legacy = listen, legacy
        self._end: Callable[[], None] | None = None
        self._interesting = interesting(tuple(Family))
        self._suspects: list[Suspect] = []
        self._seen = 0
        self._legacy: LegacyTables | None = None
        self.lost = 0

    def start(self) -> None:
        """Begin to listen."""
        self._end = self._listen(self.collect)

    def follow_legacy(self) -> None:
        """From now on watch the legacy tables too."""
        if self._legacy is None:
            self._legacy = self._make_legacy(self._legacy_changed)

    def close(self) -> None:
        """Stop listening."""
        if self._end is not None:
            self._end()
        self._commits.close()
        if self._legacy is not None:
            self._legacy.close()

    def _legacy_changed(self, pid: int, name: str) -> None:
        self._suspects.append(Suspect(self._clock.monotonic(), 0, pid, name))
        self.wake()

    def looked(self, cost: float) -> None:
        """A look is over, and took so long."""
        if self._legacy is not None:
            self._legacy.looked(cost)

    def collect(self) -> None:
        """Take what has been committed."""
        if self._collect():
            self.wake()

    def _collect(self) -> bool:
        """Whether there was anything that may have touched our rules."""
        found = False
        try:
            for commit in self._commits.ready():
                if commit.generation > self._seen and commit.touched & self._interesting:
                    self._suspects.append(Suspect(self._clock.monotonic(), commit.generation, commit.pid, commit.name))
                    found = True
                elif commit.generation > self._seen:
                    self.stir()
        except KernelError as error:  # EventsLostError, or a message that nobody understands: all the same, look
            self.lost += 1
            why = "the kernel dropped events" if isinstance(error, EventsLostError) else "an event is not understood"
            self._suspects.append(Suspect(self._clock.monotonic(), self._seen + 1, 0, f"unknown ({why})"))
            self.wake()
        return found

    def take(self) -> list[Suspect]:
        """The suspects since the last call, oldest first."""
        found, self._suspects = self._suspects, []
        return found

    def covered(self, first: int, last: int) -> list[Suspect]:
        """A look began with generation ``first`` and ended with ``last``: what was committed until then is no news.

        Returns the commits that the look had seen already when it began and that are not taken yet.
        """
        self._collect()
        seen = [one for one in self._suspects if 0 < one.generation <= first]
        self._seen = max(self._seen, last)
        self._suspects = [one for one in self._suspects if one.generation == 0 or one.generation > last]
        if self._suspects:
            self.wake()
        return seen
