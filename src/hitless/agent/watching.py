"""What may have touched our rules, and who did it.

Problem: an event says "look", and must say whom to name. Promise: commits to the chains that lead pods outside, and
changes of legacy tables where there are any (polled in a thread of its own), wake the loop; the last of them is the
suspect if the look finds damage. Commits that an observation already covers (its generation is as high) are dropped,
our own among them.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from hitless.errors import KernelError, LostEvents
from hitless.kernel.chains import ChainName
from hitless.kernel.commits import Commits
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.xtables.polling import Poller, Snapshot
from hitless.model.families import Backend, Family
from hitless.model.state import Place, Purpose

__all__ = ["Suspect", "Watch"]


@dataclass(frozen=True, slots=True)
class Suspect:
    """Somebody who may have changed our rules: monotonic time, nf_tables generation (0: legacy), who."""

    time: float
    generation: int
    pid: int
    name: str

    @property
    def label(self) -> str:
        """For messages."""
        return f"{self.name} (pid {self.pid})" if self.pid else self.name


def interesting(families: Collection[Family]) -> frozenset[ChainName]:
    """Our chains, the base chains that lead to them, and their tables (an empty chain name)."""
    found: set[ChainName] = set()
    for family in families:
        for backend in (Backend.NFT, Backend.NFTABLES):
            for purpose in Purpose:
                names = Place(backend, family, purpose).names
                found |= {ChainName(family.nft, names.table, chain) for chain in (names.chain, names.base, "")}
    return frozenset(found)


class Watch:
    """Listens in the event loop; ``wake`` is called when it is time to look."""

    def __init__(self, wake: Callable[[], None], namespace: Namespace = HERE) -> None:
        self._wake = wake
        self._namespace = namespace
        self._commits = Commits(namespace)
        self._interesting = interesting(tuple(Family))
        self._suspects: list[Suspect] = []
        self._seen = 0
        self._legacy: _Legacy | None = None
        self.lost = 0

    def start(self) -> None:
        """Begin to listen."""
        asyncio.get_running_loop().add_reader(self._commits.fileno(), self.collect)

    def follow_legacy(self) -> None:
        """From now on watch the legacy tables too."""
        if self._legacy is None:
            self._legacy = _Legacy(self._namespace, asyncio.get_running_loop(), self._legacy_changed)

    def close(self) -> None:
        """Stop listening."""
        asyncio.get_running_loop().remove_reader(self._commits.fileno())
        self._commits.close()
        if self._legacy is not None:
            self._legacy.close()

    def _legacy_changed(self, snapshot: Snapshot) -> None:
        writer = snapshot.writer
        name, pid = (writer.comm, writer.pid) if writer is not None else ("unknown (iptables-legacy)", 0)
        self._suspects.append(Suspect(time.monotonic(), 0, pid, name))
        self._wake()

    def collect(self) -> None:
        """Take what has been committed."""
        try:
            for commit in self._commits.ready():
                if commit.generation > self._seen and commit.touched & self._interesting:
                    self._suspects.append(Suspect(time.monotonic(), commit.generation, commit.pid, commit.name))
                    self._wake()
        except LostEvents:
            self.lost += 1
            self._suspects.append(Suspect(time.monotonic(), self._seen + 1, 0, "unknown (the kernel dropped events)"))
            self._wake()

    def take(self) -> list[Suspect]:
        """The suspects since the last call, oldest first."""
        found, self._suspects = self._suspects, []
        return found

    def covered(self, generation: int) -> None:
        """An observation has seen everything up to this generation: earlier commits are no news."""
        self._seen = max(self._seen, generation)
        self._suspects = [one for one in self._suspects if one.generation == 0 or one.generation > generation]


class _Legacy:
    """The poller of the legacy tables, in a thread of its own."""

    def __init__(
        self, namespace: Namespace, loop: asyncio.AbstractEventLoop, changed: Callable[[Snapshot], None]
    ) -> None:
        self._loop, self._changed = loop, changed
        self._poller = Poller(namespace)
        self._poller.snapshot()
        self._closing = False
        self._thread = threading.Thread(target=self._follow, name="legacy")
        self._thread.start()

    def _follow(self) -> None:
        while not self._closing:
            try:
                snapshot = self._poller.wait()
            except KernelError:
                continue  # it kept changing while it was read; the next look sees it
            if snapshot is not None and not self._closing:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self._changed, snapshot)

    def close(self) -> None:
        self._closing = True
        self._poller.wake()
        self._thread.join()
        self._poller.close()
