"""Gaps of known length, to test the measurement.

Problem: to test a measurement one must know the truth more exactly than the measurement does. Promise: an ``Injector``
is one long-lived program of the kind that agents use (iptables-nft-restore, iptables-legacy-restore or nft) in a node's
namespace. Each change is one commit, and the program's own output after it bounds its time: not before ``sent`` and not
after ``answered``. The watch must name this program as the writer. hitless's own decoding and event reading are not
used here, so that an error in them cannot hide itself.
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
    """A gap that was made; ``asked``: its intended length in milliseconds."""

    asked: float
    begin: CommitTime
    end: CommitTime

    def touches(self, begin: int, end: int) -> bool:
        """Whether a time overlaps with it."""
        return begin <= self.end.answered and self.begin.sent <= end


class Injector:
    """Makes gaps by a RETURN in front of the agent's masquerade rules; a context manager."""

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
        """The program's process id: the writer of all gaps."""
        return self._process.pid if self._process else 0

    async def __aenter__(self) -> Injector:
        # stdbuf: the output after each commit must not wait in a buffer of 4 KiB
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
        """One commit and the output after it: a verbose restore repeats comments, nft reports an unknown table."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._number += 1
        mark = f"hitless-{self._number}"
        native = self._backend.native
        # with nft, the mark is a table that does not exist: its error message is the output
        request = f"list table ip {mark}" if native else f"# {mark}"
        sent = self._clock.now()
        self._process.stdin.write(f"{text}\n{request}\n".encode())
        output = await asyncio.wait_for(self._until(mark), _ANSWER)
        if not native and "rror" in output:
            raise ProgramError(self.command, 1, output)
        return CommitTime(sent, self._clock.now())

    async def _until(self, mark: str) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        output = ""
        while line := (await self._process.stdout.readline()).decode(errors="replace"):
            if "return # handle " in line:
                self._handle = line.rpartition(" ")[2].strip()
            if mark in line:
                return output
            output += line
        raise ProgramError(self.command, await self._process.wait(), output)
