"""The trials of the self-test: known faults in a drill, and what the drill must find.

Problem: a test that finds nothing may be blind. Promise: each trial is a whole drill of a harmless agent in a lab, with
one fault of known effect in its round; the expected findings are compared with the record and the verdict. Trials: gaps
of known length; harmless rule changes; exactly N dropped connections; a restart with nothing wrong; a prober that is
stopped; a watch and a far end that are killed. Next stage: ``selftest`` runs them and reports.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hitless.drill.injector import Injected, Injector
from hitless.drill.labs import OpenedLab
from hitless.evidence import AgentVerdict, Record
from hitless.evidence.doubts import LATE, not_sent
from hitless.evidence.records import Outage
from hitless.kernel import processes
from hitless.kernel.cpu_priority import stolen
from hitless.lab import saboteurs
from hitless.model.families import Backend

__all__ = ["Finding", "Trial", "trials"]

MS = 1_000_000
_PAUSE_MS = 80  # between two gaps

_Victim = tuple[str, int, int]
"""A dropped connection: its far end's address, its source port, its destination port."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was done, what was found, and whether that is right.

    ``busy``: it is not right, and the tools report that this machine was too busy.
    """

    trial: str
    done: str
    found: str
    right: bool
    busy: bool = False


class Trial(Protocol):
    """A fault and its checks."""

    name: str

    async def act(self, opened: OpenedLab) -> None:
        """Cause the fault, in the running drill."""

    def check(self, record: Record, verdict: AgentVerdict) -> Sequence[Finding]:
        """The findings."""


def _verdict(trial: str, record: Record, verdict: AgentVerdict, wanted: str, *, seen: bool = True) -> Finding:
    """The verdict must be ``wanted`` and give a reason; ``seen``: the record shows what was done."""
    found = f"{verdict.verdict}: {verdict.reasons[0] if verdict.reasons else 'no reason'}"
    right = verdict.verdict == wanted and bool(verdict.reasons) and seen
    return Finding(trial, f"verdict {wanted}", found, right, _unproven(record, verdict))


def _lag(record: Record, tool: str) -> int:
    return max((beat.max_lag_ns for beat in record.heartbeats if beat.tool == tool), default=0)


def _stalled(record: Record, verdict: AgentVerdict) -> bool:
    """Whether the prober or the far end reports that it was not scheduled for a while."""
    stalled = max(verdict.prober_lag_ms * MS, _lag(record, "farend")) > LATE
    return stalled or bool(not_sent(verdict))


def _unproven(record: Record, verdict: AgentVerdict) -> bool:
    """Whether the verdict is inconclusive, and a stalled tool is the reason."""
    return verdict.verdict == "inconclusive" and _stalled(record, verdict)


@dataclass
class Gaps:
    """Gaps of known length: each found, begin and end at the right time, its writer named, and no other gap."""

    lengths: Sequence[float]
    tolerance: int
    name: str = "gaps"
    injected: list[Injected] = field(default_factory=list)
    pid: int = 0
    polled: bool = False  # whether the watch polls the rules
    stolen: int = 0  # nanoseconds of CPU time that the hypervisor took meanwhile

    async def act(self, opened: OpenedLab) -> None:
        """One after another, with a pause between."""
        plan, node = opened.lab.plan, opened.lab.nodes[0]
        self.polled = plan.backend.legacy
        self.stolen = -stolen()
        injector = Injector(node.namespace, plan.backend, plan.families[0], opened.recorder.log.clock)
        async with injector:
            self.pid = injector.pid
            for length in self.lengths:
                self.injected.append(await injector.gap(length))
                await asyncio.sleep(_PAUSE_MS / 1000)
        self.stolen += stolen()

    def check(self, record: Record, verdict: AgentVerdict) -> Sequence[Finding]:
        """Begin and end within ``tolerance``; the lost connections are those that began in a gap."""
        found = self._paired(record.outages)
        strangers = sum(not any(one.touches(out.begin, out.end) for one in self.injected) for out in record.outages)
        strangers = 0 if len(found) == len(record.outages) else strangers  # each gap has its outage, however late
        missed = [one for one in self.injected if one not in [mine for mine, _ in found]]
        misses = sorted(max(one.begin.miss(out.begin), one.end.miss(out.end)) for one, out in found)
        writers = sum(1 for _, out in found if out.opened_by and out.opened_by.pid == self.pid)
        count, lost = len(self.injected), bool(record.lost_events)
        late = max(_lag(record, "watch"), self.stolen)
        which = ", ".join(f"{one.asked:g}" for one in missed)
        missing = f" (not those of {which} ms; the watch was late by {late / MS:.2f} ms)" if missed else ""
        findings = [
            Finding(
                self.name,
                f"{count} gaps of {min(self.lengths):g} to {max(self.lengths):g} ms",
                f"{len(found)} found{missing}, {strangers} more",
                bool(count) and len(found) == count and not strangers,
                # events were lost, or the tables were polled too late
                busy=lost or bool(self.polled and missed and late > self._unseen(missed, record.outages) * MS),
            )
        ]
        if misses:
            middle, worst = misses[len(misses) // 2] / MS, misses[-1] / MS
            findings.append(
                Finding(
                    self.name,
                    f"begin and end within {self.tolerance / MS:g} ms",
                    f"median {middle:.2f} ms, worst {worst:.2f} ms off",
                    misses[-1] <= self.tolerance,
                    busy=lost or late > self.tolerance,
                )
            )
        # after lost events, the writers are unknown
        done, named = f"process {self.pid} wrote all", f"named for {writers} of {len(found)}"
        findings.append(Finding(self.name, done, named, bool(found) and writers == len(found), busy=lost))
        return [*findings, *self._felt(record, verdict, busy=lost or late > self.tolerance)]

    def _paired(self, outages: Sequence[Outage]) -> list[tuple[Injected, Outage]]:
        """Each gap that was made, with the outage that was found for it.

        In order, if there are as many of both (their times are checked elsewhere); else by their times.
        """
        if len(outages) == len(self.injected):
            return list(zip(self.injected, outages, strict=True))
        pairs = [(one, out) for one in self.injected for out in outages if one.touches(out.begin, out.end)]
        ones, outs = ([pair[side] for pair in pairs] for side in (0, 1))
        return [(one, out) for one, out in pairs if ones.count(one) == 1 and outs.count(out) == 1]

    def _unseen(self, missed: Sequence[Injected], outages: Sequence[Outage]) -> float:
        """The length (milliseconds) of the shortest gap that was missed, or of the pause between two merged ones."""
        merged = [one for one in missed if any(one.touches(out.begin, out.end) for out in outages)]
        alone = [one.asked for one in missed if one not in merged]
        return min([*alone, *([_PAUSE_MS] if merged else [])], default=0.0)

    def _felt(self, record: Record, verdict: AgentVerdict, *, busy: bool) -> Sequence[Finding]:
        """The connections that began in the gaps; ``busy``: the watch was too late to give exact times."""
        least = sum(max(0, one.end.sent - one.begin.answered) for one in self.injected)
        most = sum(one.end.answered - one.begin.sent for one in self.injected)
        begin, end = record.phases[0].t, record.measured.begin
        whole = [one for one in record.attempts if begin <= one.t and one.t + one.interval_ns <= end]
        covered = sum({one.t: one.interval_ns for one in whole}.values())
        rate = sum(one.sent for one in whole) / max(1, covered)
        near = 0.85 * rate * least - 10 <= verdict.lost <= 1.15 * rate * most + 10
        strays = verdict.lost - verdict.causes.get("gap", 0) - verdict.causes.get("poisoned", 0)
        done = f"about {rate * (least + most) / 2:.0f} connections begun in them"
        found = f"{verdict.lost} lost, {strays} of them elsewhere"
        stalled = verdict.prober_lag_ms > 50 or _lag(record, "farend") > LATE
        busy = stalled or (near and bool(strays) and busy)
        return [
            Finding(self.name, done, found, near and not strays, busy),
            _verdict(self.name, record, verdict, "fail"),
        ]


@dataclass
class Harmless:
    """Rule changes without effect: no gap, no loss, but recorded."""

    name: str = "harmless changes"

    async def act(self, opened: OpenedLab) -> None:
        """Duplicate rules, rules in another order, and the original rules again."""
        target = saboteurs.SabotageTarget.of(opened.lab.cluster, opened.lab.nodes[0])
        for fault in ("duplicate", "reorder"):
            harmless = saboteurs.FAULTS[fault](target)
            await asyncio.to_thread(harmless.__enter__)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(harmless.__exit__, None, None, None)

    def check(self, record: Record, verdict: AgentVerdict) -> Sequence[Finding]:
        """Recorded as changes, and a pass."""
        seen = Finding(
            self.name,
            "rules doubled, reordered, put back",
            f"{len(record.changes)} changes, {len(record.outages)} gaps, {verdict.lost} lost",
            bool(record.changes) and not record.outages and not verdict.lost,
            busy=bool(record.changes) and not record.outages and _unproven(record, verdict),
        )
        return [seen, _verdict(self.name, record, verdict, "pass")]


@dataclass
class Losses:
    """Exactly N connections whose packets are all dropped before NAT: these are lost, and no others."""

    count: int
    name: str = "losses"
    victims: frozenset[_Victim] = frozenset()

    async def act(self, opened: OpenedLab) -> None:
        """Drop the first N flows, by an nftables set that collects them; the rules that the watch reads do not change.

        By destination too, not only by source port: flows to other addresses may use the same source ports.
        """
        plan, node = opened.lab.plan, opened.lab.nodes[0]
        family = plan.families[0]
        table = "inet hitless_selftest"
        network = f"{family.nft} saddr {plan.network(family)}"
        kind, flow = f"{family}_addr . inet_service . inet_service", f"{family.nft} daddr . tcp sport . tcp dport"
        text = (
            f"table {table} {{ set victims {{ type {kind}; size {self.count}; flags dynamic; }}\n"
            "chain drop_some { type filter hook prerouting priority raw;\n"
            f"{network} {flow} @victims drop\n"
            f"{network} tcp flags & (syn | ack) == syn add @victims {{ {flow} }} drop\n}}\n}}\n"
        )

        def run(*command: str, stdin: str = "") -> str:
            return processes.run(command, namespace=node.namespace, stdin=stdin).stdout

        await asyncio.to_thread(run, "nft", "-f", "-", stdin=text)
        try:
            await asyncio.sleep(3.5)  # past the prober's timeout: a retry must not get through
            listed = json.loads(await asyncio.to_thread(run, "nft", "-j", "list", "set", *table.split(), "victims"))
        finally:
            await asyncio.to_thread(run, "nft", "delete", "table", *table.split())
        (victims,) = [one["set"] for one in listed["nftables"] if "set" in one]
        self.victims = frozenset(_victim(element) for element in victims.get("elem", ()))

    def check(self, record: Record, verdict: AgentVerdict) -> Sequence[Finding]:
        """Compare addresses and ports."""
        lost = {(loss.dst, loss.sport, loss.dport) for loss in record.losses}
        right = lost == self.victims and len(record.losses) == len(self.victims) == self.count
        excused = sum(verdict.causes.get(cause, 0) for cause in ("starved", "far_end_down"))
        busy = self.victims <= lost and len(record.losses) - excused <= self.count and _stalled(record, verdict)
        found = Finding(
            self.name,
            f"{len(self.victims)} connections dropped",
            f"{verdict.lost} lost, {len(lost & self.victims)} of them these, as {', '.join(verdict.causes) or 'none'}",
            right and set(verdict.causes) == {"timeout"},
            busy=busy,
        )
        return [found, _verdict(self.name, record, verdict, "fail")]


def _victim(element: Mapping[str, Any]) -> _Victim:
    """An element of ``nft -j``: the flow, or an object around it."""
    address, sport, dport = element.get("elem", {}).get("val", element)["concat"]
    return str(address), int(sport), int(dport)


@dataclass
class Quiet:
    """A restart with nothing wrong: no gap, nothing lost, a pass."""

    name: str = "nothing wrong"

    async def act(self, opened: OpenedLab) -> None:
        """Nothing."""

    def check(self, record: Record, verdict: AgentVerdict) -> Sequence[Finding]:
        """A pass."""
        found = f"{len(record.outages)} gaps, {verdict.lost} of {verdict.attempted:,} lost"
        right = not record.outages and not verdict.lost and verdict.attempted > 0
        busy = not record.outages and verdict.attempted > 0 and _unproven(record, verdict)
        seen = Finding(self.name, "a restart that changes nothing", found, right, busy)
        return [seen, _verdict(self.name, record, verdict, "pass")]


@dataclass
class Signalled:
    """A tool that is stopped for a while, or killed: the drill must not pass."""

    tool: str
    kill: bool
    name: str

    async def act(self, opened: OpenedLab) -> None:
        """Send the signals."""
        pid = opened.tools[self.tool].process.pid
        if self.kill:
            os.kill(pid, signal.SIGKILL)
            return
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(1.2)
        finally:
            os.kill(pid, signal.SIGCONT)

    def check(self, record: Record, verdict: AgentVerdict) -> Sequence[Finding]:
        """Inconclusive, and the record says why: the tool ended, or the prober was late."""
        ended = any(note.code == f"{self.tool}_ended" for note in record.notes)
        seen = ended if self.kill else verdict.prober_lag_ms * MS > LATE
        return [_verdict(self.name, record, verdict, "inconclusive", seen=seen)]


def trials(backend: Backend, *, quick: bool = False) -> list[Trial]:
    """All trials for a backend; ``quick``: fewer gaps."""
    # iptables-legacy reports no changes and is polled: shorter gaps may be missed
    lengths = [3.0, 5.0] if backend.legacy else [1.0, 2.0, 5.0]
    lengths += [10.0, 20.0, 50.0, 100.0, 200.0]
    repeats = 1 if quick else 3
    tolerance = 5 * MS if backend.legacy else 2 * MS
    found: list[Trial] = [Gaps([*(lengths * repeats), 500.0, 1000.0], tolerance), Losses(40), Harmless(), Quiet()]
    found.append(Signalled("probe", False, "prober stopped for 1.2 s"))
    found.append(Signalled("watch", True, "watcher killed"))
    found.append(Signalled("farend", True, "far end killed"))
    return found
