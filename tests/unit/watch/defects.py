"""Defects that random histories of a watch must find: in each, one thing of the watch is wrong.

A test and ``bench/interleavings.py --defects`` plant them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.histories import Planted
from tests.unit.planting import instead

from hitless.model.events import Gap, Writer
from hitless.watch import loop
from hitless.watch.heartbeat import Totals
from hitless.watch.loop import WatchLoop
from hitless.watch.networks import Networks, Watched
from hitless.watch.schedule import WatchSchedule
from hitless.watch.standbys import Standbys
from hitless.watch.tracking import Tracker

__all__ = ["DEFECTS"]

close = Tracker._close


def _forgets_who_closed(self: Tracker, opened: Any, t: int, writer: Writer | None, *, still_open: bool = False) -> Gap:
    return close(self, opened, t, None, still_open=still_open)


def _keeps_chains_of_the_last_answer(self: Watched, answer: Any) -> None:
    self.answer, self.counted, self.chains = answer, True, answer.chains


DEFECTS: Mapping[str, Planted] = {
    "changes of chains are not relevant": instead(WatchLoop, "_matters", lambda self, change: bool(change.hooks)),
    "a new base chain is not relevant": instead(loop, "_HOOKS", frozenset()),  # type: ignore[arg-type]
    "lost events are not reported": instead(WatchLoop, "_resynced", lambda self, step: iter(())),
    "the last commits are not waited for": instead(loop, "_LAST_WAITS", 0),  # type: ignore[arg-type]
    "a gap is closed by nobody": instead(Tracker, "_close", _forgets_who_closed),
    "a gap that is open at the end is not reported": instead(Tracker, "finish", lambda self, t: []),
    "pods that change are not evaluated": instead(Networks, "refresh", lambda self: False),
    "pods are never counted": instead(WatchLoop, "_count", lambda self, now: iter(())),
    "one pod's answer counts for all": instead(Watched, "take", _keeps_chains_of_the_last_answer),
    "nothing is compared with the kernel": instead(WatchSchedule, "verifies", lambda self, now: False),
    "what the standby carries at the end is not reported": instead(Standbys, "finish", lambda self, t: iter(())),
    "lateness is not measured": instead(Totals, "late", lambda self, lag: None),
}
