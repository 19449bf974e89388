"""Defects that random lives of a guard must find: in each, one thing of the guard is wrong.

A test and ``bench/interleavings.py --defects`` plant them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.unit.histories import Planted
from tests.unit.planting import instead, only

from hitless.guard import loop
from hitless.guard.deciding import Decider, Decision
from hitless.guard.gaps import GapTracker
from hitless.guard.healing import Healing
from hitless.guard.loop import GuardLoop
from hitless.guard.side import Side
from hitless.guard.standby_table import StandbyTable

__all__ = ["DEFECTS"]


def _gives_up(decider: Decider, now: float, why: Any, due: float | None) -> Decision:
    decider._give_up(now, stated=False)
    return Decision("withdraw", why)


DEFECTS: Mapping[str, Planted] = {
    "damage is taken for a decision": instead(Decider, "_hold", _gives_up),
    "what others took away is not put back": instead(StandbyTable, "restore", lambda self: False),
    "tables are not brought up to date": instead(StandbyTable, "install", lambda self, desired: False),
    "a gap is never over": only(GapTracker, "see", lambda self, fate, t, writer: bool(fate.cut)),
    "changes are not seen": only(Side, "see", lambda self, *_: self._passed is None),
    "a write that failed is not tried again": only(
        GuardLoop, "_stand", lambda self, observation: observation is not None
    ),
    "flows are not freed after a gap": only(Healing, "heal", lambda self, side, after, *_: after == "start"),
    "a new guard knows nothing of what stands": instead(loop, "found_in", lambda *_: None),
    "the rules are not followed": instead(Decider, "_follow", lambda self, seen, now, why, **_: Decision("keep", why)),
}
