"""Everything that leaves the guard: journal, log, numbers, state for ``hitless guard status``, Kubernetes Events.

Promise: one place that turns what happened into records; a sink that fails costs its records and nothing else. Numbers
are totals since the process began and are what the metrics page shows. Next stage: ``metrics`` renders them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from hitless import __version__
from hitless.daemon.log_records import line_of
from hitless.daemon.logs import Log
from hitless.guard import records
from hitless.guard.gaps import OpenGap
from hitless.guard.journal import Journal
from hitless.guard.meter import Moved
from hitless.guard.notices import Notices, stays
from hitless.guard.poisoned_flows import Freed
from hitless.guard.reasons import Reason
from hitless.guard.side import Side
from hitless.guard.standby_rules import StandbyRules
from hitless.guard.statefile import Numbers, StandbyHolder, StateFile, family_facts
from hitless.kernel.clock import Clock
from hitless.model.events import Writer
from hitless.model.families import Family

__all__ = ["Numbers", "Reporter"]

_LAST = 20  # gaps that status shows
_MOST_WRITERS = 64
_LISTED = 20
_LONG = 10_000_000_000  # nanoseconds after which a gap is reported although it is still open
_QUIET = 60_000_000_000  # nanoseconds between records of a leak that goes on


class Reporter:
    """Reports to all sinks. ``post`` gets records that users should see (Kubernetes Events)."""

    def __init__(
        self,
        log: Log,
        journal: Journal,
        clock: Clock,
        *,
        state: Path | None = None,
        post: Callable[[records.Record], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._notices = Notices(log)
        self._journal = journal
        self._clock = clock
        self._state = StateFile(state, monotonic)
        self._monotonic = monotonic
        self._post = post
        self.numbers: dict[Family, Numbers] = {family: Numbers() for family in Family}
        self.counts: dict[str, int] = {"lost_events": 0}
        self.recent: list[records.Record] = []
        self._recent: list[dict[str, object]] = []  # as status shows them
        self.problem = ""
        self.ended = ""  # why the guard ended, when that was a failure
        self.guarding = True  # false: it only observes
        self.status: dict[str, object] = {}
        self.turned = monotonic()  # when the loop was last here
        self._long: dict[tuple[Family, str], int] = {}
        self._leaks: dict[Family, tuple[int, list[str]]] = {}
        self._leak_due: dict[Family, int] = {}
        self._before: dict[Family, tuple[int, int]] = {}
        self._bare: set[Family] = set()  # the standby was not in the kernel for a while of the open gap

    # --- records

    def record(self, record: records.Record) -> None:
        """Keep a record, log it, and post it where it matters."""
        self._journal.write(record)
        self.recent = [*self.recent, record][-_LAST:]
        self._recent = [*self._recent, msgspec.to_builtins(record)][-_LAST:]
        event, facts = line_of(record)
        loud = isinstance(record, records.Withdrawn | records.ForwardGap | records.LeakSeen) or (
            isinstance(record, records.GuardGap) and not record.covered
        )
        if isinstance(record, records.GuardNote):
            loud = facts.pop("level") != "info"
        (self._log.notice if loud else self._log.info)(event, **facts)
        if self._post is not None:
            self._post(record)

    def note(self, level: str, text: str) -> None:
        """Something that users should know."""
        self.record(records.GuardNote(t=self._clock.now(), level=level, text=text))

    def count(self, name: str) -> None:
        """Count something that belongs to no family."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def followed(self, side: Side, why: Reason, standby: StandbyRules, t: int, writer: Writer | None) -> None:
        """The standby follows the primary."""
        self.numbers[side.family].followed += 1
        self.record(
            records.Followed(
                t=t,
                family=side.family.value,
                why=str(why),
                code=why.code,
                networks=[str(network) for network in standby.networks],
                left_out=[str(one) for one in standby.left_out],
                writer=writer,
            )
        )

    def withdrawn(self, side: Side, why: Reason, t: int) -> None:
        """The standby is empty."""
        self.numbers[side.family].withdrawn += 1
        self.record(records.Withdrawn(t=t, family=side.family.value, why=str(why), code=why.code))

    def gap(
        self, side: Side, gap: OpenGap, t: int, writer: Writer | None, *, healed: int, still_open: bool = False
    ) -> None:
        """The primary's gap is over (or the guard ends in it)."""
        numbers = self.numbers[side.family]
        name = (gap.opened_by.comm if gap.opened_by is not None else "") or "unknown"
        if name not in numbers.gaps and len(numbers.gaps) >= _MOST_WRITERS:
            name = "other"
        numbers.gaps[name] = numbers.gaps.get(name, 0) + 1
        numbers.gap_ns += t - gap.begin
        numbers.longest_gap_ns = max(numbers.longest_gap_ns, t - gap.begin)
        record = self._gap_record(side, gap, t, writer, healed=healed, still_open=still_open)
        self._before.pop(side.family, None)
        numbers.uncovered += not record.covered
        self.record(record)

    def _gap_record(
        self, side: Side, gap: OpenGap, t: int, writer: Writer | None, *, healed: int, still_open: bool
    ) -> records.GuardGap:
        numbers = self.numbers[side.family]
        carried, leaked = self._before.get(side.family, (numbers.carried, numbers.leaked))
        return records.GuardGap(
            t=t,
            family=side.family.value,
            networks=list(gap.networks),
            begin=gap.begin,
            end=t,
            covered=self.guarding
            and side.installed is not None
            and numbers.leaked == leaked
            and side.family not in self._bare,
            carried=numbers.carried - carried,
            leaked=numbers.leaked - leaked,
            healed=healed,
            code=gap.how,
            reason=gap.reason,
            opened_by=gap.opened_by,
            closed_by=writer,
            open=still_open,
        )

    def forward_gap(self, side: Side, gap: OpenGap, t: int, writer: Writer | None, *, still_open: bool = False) -> None:
        """Forwarding dropped pods' flows for a while."""
        numbers = self.numbers[side.family]
        numbers.forward_gaps += 1
        numbers.forward_gap_ns += t - gap.begin
        self.record(_forward_record(side, gap, t, writer, still_open=still_open))

    def partly(self, side: Side, t: int) -> None:
        """Other pods than before are cut off although others are not: a policy, or half an outage."""
        self.record(
            records.Partly(
                t=t, family=side.family.value, pods=side.pods, pods_not_carried=side.kept, reason=side.partly
            )
        )

    def goes_on(self, side: Side, t: int) -> None:
        """Report each gap that stays open for long, once: users should not have to wait for its end."""
        for kind, gap in (("egress", side.egress.open), ("forward", side.forward.open)):
            key = (side.family, kind)
            if gap is None:
                self._long.pop(key, None)
            elif t - gap.begin > _LONG and self._long.get(key) != gap.begin:
                self._long[key] = gap.begin
                if kind == "forward":
                    self.record(_forward_record(side, gap, t, None, still_open=True))
                else:
                    self.record(self._gap_record(side, gap, t, None, healed=0, still_open=True))

    def bare(self) -> None:
        """The standby was not in the kernel for a while, or is not: gaps of that time were not covered."""
        self._bare = set(Family)

    def quiet(self, side: Side) -> None:
        """Nothing is amiss: what was so before is not of the next gap."""
        if not self.problem and not side.open:
            self._bare.discard(side.family)

    def moved(self, family: Family, moved: Moved) -> None:
        """The family's counters moved."""
        self.numbers[family].carried += moved.carried
        self.numbers[family].leaked += moved.leaked

    def opened(self, side: Side) -> None:
        """A gap begins: what was counted until now is not a part of it."""
        self._before[side.family] = self.numbers[side.family].carried, self.numbers[side.family].leaked
        gap = side.egress.open
        if gap is not None:
            writer = f"{gap.opened_by.comm} (pid {gap.opened_by.pid})" if gap.opened_by is not None else "unknown"
            self._log.info("gap begins", family=side.family.value, reason=gap.reason, writer=writer)

    def freed(self, family: Family, freed: Freed, after: str, begin: int, packets: int, *, dry: bool) -> None:
        """Poisoned flows were freed (``dry``: found), or packets leaked."""
        now = self._clock.now()
        if packets or (dry and freed.count and after != "again"):
            seen, flows = self._leaks.get(family, (0, []))
            self._leaks[family] = seen + packets, [*flows, *freed.flows][:_LISTED]
            self._leaked(family, now)
        if freed.count and not dry:
            self.numbers[family].healed += freed.count
            self.record(records.Healed(t=now, family=family.value, flows=freed.count, after=after, took_ns=now - begin))

    def lists(self, family: Family, t: int) -> bool:
        """Whether a leak at ``t`` would be written at once: then it is worth looking up which flows it is of."""
        return t >= self._leak_due.get(family, 0)

    def _leaked(self, family: Family, t: int, *, last: bool = False) -> None:
        """A leak is written when it begins, and then at most once in a while: it must not push the gaps out of the
        journal."""
        if family in self._leaks and (last or self.lists(family, t)):
            packets, flows = self._leaks.pop(family)
            self._leak_due[family] = t + _QUIET
            self.record(records.LeakSeen(t=t, family=family.value, packets=packets, flows=flows))

    # --- state

    def state(self, sides: Mapping[Family, Side], holder: StandbyHolder | None) -> None:
        """Write what ``hitless guard status`` shows, when it changed."""
        self.turned = self._monotonic()
        self._notices.hear(sides, observing=holder is None)
        for family in list(self._leaks):
            self._leaked(family, self._clock.now())
        self.status = {
            "schema": 1,
            "pid": os.getpid(),
            "version": __version__,
            "mode": "observe" if holder is None else "guard",
            "problem": self.problem,
            "journal_problem": self._journal.problem or self._state.problem,
            "records_lost": self._journal.failed,
            "families": {f.value: family_facts(side, self.numbers[f], holder) for f, side in sides.items()},
            "recent": list(self._recent),
        }
        self._state.write(self.status)

    def close(self, sides: Mapping[Family, Side]) -> None:
        """The guard ends: the journal stays, and of the state only that it ended by a failure."""
        for family in list(self._leaks):
            self._leaked(family, self._clock.now(), last=True)
        if self.status:  # it had begun
            networks = [network for side in sides.values() if side.installed for network in side.installed.networks]
            self._log.info("stopped", reason=stays(networks, guarding=self.guarding))
        if self.ended:
            self._state.write({**self.status, "problem": self.ended, "ended": True})
        else:
            self._state.remove()


def _forward_record(side: Side, gap: OpenGap, t: int, writer: Writer | None, *, still_open: bool) -> records.ForwardGap:
    return records.ForwardGap(
        t=t,
        family=side.family.value,
        networks=list(gap.networks),
        begin=gap.begin,
        end=t,
        code=gap.how,
        reason=gap.reason,
        opened_by=gap.opened_by,
        closed_by=writer,
        open=still_open,
    )
