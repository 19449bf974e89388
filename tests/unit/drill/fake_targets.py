"""A fake target: subjects that write a lab's events, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hitless.drill import Subject, SubjectName, SubjectRecorder
from hitless.errors import HitlessError
from hitless.kernel.clock import Clock
from hitless.model import events as e

MS = 1_000_000
S = 1000 * MS
START = 1_700_000_000 * S


class VirtualClock(Clock):
    """The event loop's time as Unix nanoseconds."""

    def now(self) -> int:
        return START + round(asyncio.get_running_loop().time() * 1e9)


@dataclass
class FakeSubject:
    """Streams until it is quiet; a restart takes 0.3 s and causes the given losses."""

    recorder: SubjectRecorder
    gap: float = 0.0
    lost: int = 0
    dies: bool = False
    silent: bool = False
    carried: bool = True
    ready: bool = True
    restarts: bool = True
    sport: int = 40000

    def state(self, state: str) -> None:
        self.recorder.write(
            e.RuleState(t=self.recorder.now, family="ipv4", network="10.42.0.0/16", state=state),  # type: ignore[arg-type]
            "watch",
        )

    async def stream(self) -> None:
        for tool in ("watch", "probe"):
            self.recorder.write(e.Header(t=self.recorder.now, tool=tool, version="0"), tool)
        self.state("carried" if self.carried else "not_carried")
        while not self.silent:
            begin = self.recorder.now
            await asyncio.sleep(0.1)
            self.recorder.write(
                e.Attempts(t=begin, interval_ns=100 * MS, kind="tcp", family="ipv4", sent=100, ok=100), "probe"
            )

    async def restart(self, round: int) -> None:
        for step in ("stop", "exited", "started"):
            evidence = "process 2 runs, process 1 has ended" if step == "started" and self.restarts else ""
            self.recorder.write(
                e.Restart(t=self.recorder.now, step=step, round=round, method="sigterm", evidence=evidence)
            )
        begin = self.recorder.now
        if self.gap:
            self.state("not_carried")
            await asyncio.sleep(self.gap)
            self.recorder.write(
                e.Gap(t=self.recorder.now, family="ipv4", network="10.42.0.0/16", begin=begin, end=self.recorder.now),
                "watch",
            )
            self.state("carried")
        for _ in range(self.lost):
            self.sport += 1
            self.recorder.write(
                e.Loss(
                    t=begin, kind="tcp", family="ipv4", src="10.42.0.2", sport=self.sport, dst="198.51.100.1",
                    dport=7801, planned=begin, end=begin + S, cause="timeout",
                ),
                "probe",
            )  # fmt: skip
        if self.dies:
            self.recorder.fail("probe ended by itself with exit code 1: out of memory")
        await asyncio.sleep(0.3)
        if self.ready:
            self.recorder.write(e.Restart(t=self.recorder.now, step="ready", round=round, method="sigterm"))

    async def quiet(self) -> None:
        await asyncio.sleep(2.5)
        for tool in ("watch", "probe"):
            self.recorder.write(e.Summary(t=self.recorder.now, tool=tool), tool)


@dataclass
class FakeTarget:
    """Subjects by name; ``kinds`` makes each one, or raises when it is opened."""

    kinds: Mapping[str, Callable[[SubjectRecorder], FakeSubject] | HitlessError]
    far_end: bool = False
    story: list[str] = field(default_factory=list)

    @property
    def config(self) -> Mapping[str, Any]:
        return {"target": "fake", "far_end": self.far_end}

    def subjects(self) -> Sequence[SubjectName]:
        return [SubjectName(name, "node-1") for name in self.kinds]

    @asynccontextmanager
    async def open(self, name: SubjectName, recorder: SubjectRecorder) -> AsyncIterator[Subject]:
        kind = self.kinds[name.agent]
        self.story.append(f"{name.agent} opens")
        if isinstance(kind, HitlessError):
            raise kind
        subject = kind(recorder)
        streaming = asyncio.create_task(subject.stream())
        try:
            yield subject
        finally:
            streaming.cancel()
            with suppress(asyncio.CancelledError):
                await streaming
            self.story.append(f"{name.agent} closed")
