"""Defects that the random interleavings must find: one line of the agent is wrong in each.

``DEFECTS`` has, for each by its name, what makes it. A test and ``bench/interleavings.py --defects``
plant them one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from tests.unit.agent.interleavings import run

from hitless.agent import reconciling, worker
from hitless.agent.damage import Damage
from hitless.agent.fights import Fights, Verdict
from hitless.agent.reconciling import Pass
from hitless.agent.reloads import Reload
from hitless.agent.reporting import Reporter
from hitless.agent.schedule import Schedule
from hitless.agent.watching import Watch
from hitless.model.rules import Rule, Source
from hitless.model.state import Place, is_owned
from hitless.plan import planning

__all__ = ["DEFECTS", "found_after"]

Planted = Callable[[], AbstractContextManager[Any]]


def _instead(where: Any, name: str, what: Callable[..., Any]) -> Planted:
    return lambda: patch.object(where, name, what)


def _then(where: Any, name: str, more: Callable[..., Any]) -> Planted:
    """The method, and ``more`` (its object and arguments) behind it."""
    before = getattr(where, name)

    def both(self: Any, *values: Any, **named: Any) -> Any:
        result = before(self, *values, **named)
        more(self, *values, **named)
        return result

    return lambda: patch.object(where, name, both)


def _never_settles(look: Schedule, now: float) -> None:
    look._look = float("inf")


def _claims_to_be_settled(*values: Any, **named: Any) -> Pass:
    done = reconcile(*values, **named)
    return replace(done, left=planning.Plan())


def _slows_down_for_ever(schedule: Schedule, now: float, delay: float) -> None:
    schedule._not_before = now + 1e6 * delay


def _says_nothing_is_amiss(reporter: Reporter, look: object) -> None:
    reporter.health.problems = ()


def _takes_others(rule: Rule, place: Place) -> bool:
    return is_owned(rule, place) or any(isinstance(step, Source) for step in rule.steps)


def _collects_what_came(watch: Watch) -> None:
    wake, watch.wake = watch.wake, lambda: None
    found, watch.wake = watch._collect(), wake
    if found:
        watch.wake()


def _keeps_suspects(self: Watch, first: int, last: int) -> list[Any]:
    self._collect()
    self._suspects.clear()
    self._seen = max(self._seen, last)
    return []


reconcile = reconciling.reconcile

DEFECTS: Mapping[str, Planted] = {
    "events do not call for a look": _instead(Schedule, "call", lambda self: None),
    "after a failed reading nothing is looked at again": _then(Schedule, "looking", _never_settles),
    "a new configuration waits for the next comparison": _instead(Schedule, "anew", lambda self: self._retries.anew()),
    "commits during a look are dropped": _instead(Watch, "covered", _keeps_suspects),
    "lost events call for nothing": _instead(Watch, "collect", _collects_what_came),
    "flows are freed once only": _instead(Schedule, "repaired", lambda self, now, *, healed: None),
    "healing waits for ever": _instead(Schedule, "take_heal", lambda self, now: False),
    "damage is never over": _instead(Damage, "over", lambda self: None),
    "damage begins anew with each look": _then(Damage, "seen", lambda self, *_, **__: self.over()),
    "a fight's delay has no end": _instead(Schedule, "slow_down", _slows_down_for_ever),
    "every damage is a fight": _instead(Fights, "damage", lambda self, writer, now: Verdict(False, 30.0, 1)),
    "a reload is never over": _instead(Reload, "goes_on", lambda self, now: self.begun is not None),
    "what is not applied is called settled": _instead(worker, "reconcile", _claims_to_be_settled),
    "a failure does not make the node unready": _instead(Reporter, "unsettled", _says_nothing_is_amiss),
    "rules for pods' networks are taken for ours": _instead(planning, "is_owned", _takes_others),
}


def found_after(name: str, most: int, seed: str = "defects") -> tuple[int, str]:
    """How many steps random interleavings take to find it, and what they say; 0 steps: they did not."""
    tally: Counter[str] = Counter()
    with DEFECTS[name]():
        try:
            run(seed, most, tally)
        except Exception as error:  # noqa: BLE001 - whatever shows that something is wrong
            return tally["steps"], f"{type(error).__name__}: {error}"
    return 0, ""
