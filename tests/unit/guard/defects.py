"""Defects that the random lives must find: one thing of the guard is wrong in each.

``DEFECTS`` has, for each by its name, what makes it. A test and ``bench/guard_lives.py --defects`` plant
them one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

from tests.unit.guard.lives import of

from hitless.guard import loop
from hitless.guard.deciding import Decider, Decision
from hitless.guard.gaps import Tracker
from hitless.guard.healing import Healing
from hitless.guard.loop import Loop
from hitless.guard.side import Side
from hitless.guard.standby_table import StandbyTable

__all__ = ["DEFECTS", "found_after"]

Planted = Callable[[], AbstractContextManager[Any]]
_LIFE = 500  # steps


def _instead(where: Any, name: str, what: Callable[..., Any]) -> Planted:
    return lambda: patch.object(where, name, what)


def _only(where: Any, name: str, when: Callable[..., bool]) -> Planted:
    """The method does its work only then."""
    before = getattr(where, name)

    def perhaps(self: Any, *values: Any, **named: Any) -> Any:
        return before(self, *values, **named) if when(self, *values, **named) else None

    return lambda: patch.object(where, name, perhaps)


def _gives_up(decider: Decider, now: float, why: Any, due: float | None) -> Decision:
    decider._give_up(now, said=False)
    return Decision("withdraw", why)


DEFECTS: Mapping[str, Planted] = {
    "damage is taken for a decision": _instead(Decider, "_hold", _gives_up),
    "what others took away is not put back": _instead(StandbyTable, "restore", lambda self: False),
    "tables are not brought up to date": _instead(StandbyTable, "install", lambda self, desired: False),
    "a gap is never over": _only(Tracker, "see", lambda self, fate, t, writer: bool(fate.cut)),
    "changes are not seen": _only(Side, "see", lambda self, *_: self._passed is None),
    "a write that failed is not tried again": _only(Loop, "_stand", lambda self, observation: observation is not None),
    "flows are not freed after a gap": _only(Healing, "heal", lambda self, side, after, *_: after == "start"),
    "a new guard knows nothing of what stands": _instead(loop, "found_in", lambda *_: None),
    "the rules are not followed": _instead(Decider, "_follow", lambda self, seen, now, why, **_: Decision("keep", why)),
}


def found_after(name: str, most: int, seed: int = 1) -> tuple[int, str]:
    """How many steps random lives take to find it, and what they say; 0 steps: they did not."""
    steps = 0
    with DEFECTS[name]():
        while steps < most:
            life = None
            try:
                life = of(seed)
                while life.steps < _LIFE:
                    life.step()
                life.settle()
            except Exception as error:  # noqa: BLE001 - whatever shows that something is wrong
                return steps + (life.steps if life is not None else 1), f"{type(error).__name__}: {error}"
            steps, seed = steps + life.steps, seed + 1
    return 0, ""
