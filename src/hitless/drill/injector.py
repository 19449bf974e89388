"""Gaps of known length, for testing the tester.

Problem: to test a measure one must know the truth better than the measure does. Promise: an ``Injector`` is one
long-lived program of the kind that agents use (iptables-nft-restore, iptables-legacy-restore or nft) in a node's
namespace; each change is one commit, and the program's own answer after it bounds when it happened: not before ``sent``
and not after ``answered``. The program is what the watch must name as the writer. Nothing of hitless's own decoding or
event reading is used here, so that a mistake there cannot hide itself.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from types import TracebackType

from hitless.errors import ProgramError
from hitless.kernel import processes
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import Namespace
from hitless.model.families import Backend, Family

__all__ = ["CommitTime", "Injected", "Injector"]

_ANSWER = 20.0
"""Seconds for a commit: with 5,000 Services iptables-legacy takes one or two."""


@dataclass(frozen=True, slots=True)
class CommitTime:
    """A commit happened not before ``sent`` and not after ``answered`` (Unix nanoseconds of the drill's clock)."""

    sent: int
    answered: int

    def miss(self, t: int) -> int:
        """How far ``t`` lies outside, in nanoseconds; 0 inside."""
        return max(self.sent - t, t - self.answered, 0)


@dataclass(frozen=True, slots=True)
class Injected:
    """A gap that was made; ``asked`` is its intended length in milliseconds."""

    asked: float
    begin: CommitTime
    end: CommitTime

    def touches(self, begin: int, end: int) -> bool:
        """Whether a time overlaps with it."""
        return begin <= self.end.answered and self.begin.sent <= end


class Injector:
    """Opens and closes gaps by a RETURN in front of the agent's masquerade rules; a context manager."""

    def __init__(self, namespace: Namespace, backend: Backend, family: Family, clock: Clock) -> None:
        self._namespace = namespace
        self._backend = backend
        self._family = family
        self._clock = clock
        self._process: asyncio.subprocess.Process | None = None
        self._number = 0
        self._handle = ""

    @property
    def command(self) -> tuple[str, ...]:
        """The program, as it is started."""
        program = self._backend.writer(self._family)
        return (program, *(("-i", "-a", "-e") if self._backend.native else ("--noflush", "--wait", "--verbose")))

    @property
    def pid(self) -> int:
        """The program's process: the writer of every gap."""
        return self._process.pid if self._process else 0

    async def __aenter__(self) -> Injector:
        # stdbuf: the answer to each commit must come at once, not when four kilobytes have gathered
        line = ["stdbuf", "-oL", *self.command]
        processes.program(self.command[0])
        self._process = await processes.start_async(
            line, namespace=self._namespace, stdin=processes.PIPE, stdout=processes.PIPE, stderr=processes.STDOUT
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        if kind is not None:
            processes.send(self._process, signal.SIGKILL)
        await self._process.wait()

    async def gap(self, milliseconds: float) -> Injected:
        """Make a gap of about this length."""
        begin = await self._open()
        try:
            await asyncio.sleep(milliseconds / 1000)
        finally:
            end = await self._close()
        return Injected(milliseconds, begin, end)

    async def _open(self) -> CommitTime:
        if not self._backend.native:
            return await self._commit("*nat\n-I FLANNEL-POSTRTG 1 -j RETURN\nCOMMIT")
        chain = f"{self._family.nft} {self._backend.table(self._family)} postrtg"
        return await self._commit(f"insert rule {chain} return")

    async def _close(self) -> CommitTime:
        if not self._backend.native:
            return await self._commit("*nat\n-D FLANNEL-POSTRTG 1\nCOMMIT")
        chain = f"{self._family.nft} {self._backend.table(self._family)} postrtg"
        return await self._commit(f"delete rule {chain} handle {self._handle}")

    async def _commit(self, text: str) -> CommitTime:
        """One commit and its answer: a verbose restore repeats comments, nft says what it thinks of a question."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._number += 1
        mark = f"hitless-{self._number}"
        native = self._backend.native
        # For nft the mark is a table that does not exist: its error message is the answer.
        question = f"list table ip {mark}" if native else f"# {mark}"
        sent = self._clock.now()
        self._process.stdin.write(f"{text}\n{question}\n".encode())
        heard = await asyncio.wait_for(self._until(mark), _ANSWER)
        if not native and "rror" in heard:
            raise ProgramError(self.command, 1, heard)
        return CommitTime(sent, self._clock.now())

    async def _until(self, mark: str) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        heard = ""
        while line := (await self._process.stdout.readline()).decode(errors="replace"):
            if "return # handle " in line:
                self._handle = line.rpartition(" ")[2].strip()
            if mark in line:
                return heard
            heard += line
        raise ProgramError(self.command, await self._process.wait(), heard)
