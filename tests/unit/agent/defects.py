"""Defects that random histories of the agent must find: in each, one thing of the agent is wrong.

A test and ``bench/interleavings.py --defects`` plant them one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.unit.histories import Planted
from tests.unit.planting import instead, then

from hitless.agent import reconciliation as reconciling
from hitless.agent import worker
from hitless.agent.change_watch import ChangeWatch
from hitless.agent.damage import Damage
from hitless.agent.fights import Fights, FightVerdict
from hitless.agent.reconciliation import Pass
from hitless.agent.reloads import Reload
from hitless.agent.reporter import AgentReporter
from hitless.agent.schedule import AgentSchedule
from hitless.model.rules import Rule, Source
from hitless.model.state import Place, is_owned
from hitless.plan import planning

__all__ = ["DEFECTS"]


def _never_again(schedule: AgentSchedule, now: float) -> None:
    schedule._next_pass = float("inf")


def _claims_to_be_settled(*values: Any, **named: Any) -> Pass:
    done = reconcile(*values, **named)
    return replace(done, left=planning.Plan())


def _slows_down_for_ever(schedule: AgentSchedule, now: float, delay: float) -> None:
    schedule._not_before = now + 1e6 * delay


def _says_nothing_is_amiss(reporter: AgentReporter, look: object) -> None:
    reporter.health.problems = ()


def _takes_others(rule: Rule, place: Place) -> bool:
    return is_owned(rule, place) or any(isinstance(step, Source) for step in rule.steps)


def _collects_what_came(watch: ChangeWatch) -> None:
    on_change, watch.on_change = watch.on_change, lambda: None
    found, watch.on_change = watch._collect(), on_change
    if found:
        watch.on_change()


def _keeps_suspects(self: ChangeWatch, first: int, last: int) -> list[Any]:
    self._collect()
    self._suspects.clear()
    self._seen = max(self._seen, last)
    return []


reconcile = reconciling.reconcile

DEFECTS: Mapping[str, Planted] = {
    "events request no pass": instead(AgentSchedule, "request_pass", lambda self: None),
    "after a failed reading there is no other pass": then(AgentSchedule, "pass_begun", _never_again),
    "a new configuration waits for the next comparison": instead(
        AgentSchedule, "restart", lambda self: self._retries.reset()
    ),
    "commits during a pass are dropped": instead(ChangeWatch, "covered", _keeps_suspects),
    "lost events request no pass": instead(ChangeWatch, "collect", _collects_what_came),
    "flows are freed once only": instead(AgentSchedule, "repaired", lambda self, now, *, healed: None),
    "healing waits for ever": instead(AgentSchedule, "take_heal", lambda self, now: False),
    "damage is never over": instead(Damage, "over", lambda self: None),
    "damage begins anew with each pass": then(Damage, "seen", lambda self, *_, **__: self.over()),
    "a fight's delay has no end": instead(AgentSchedule, "slow_down", _slows_down_for_ever),
    "every damage is a fight": instead(Fights, "damage", lambda self, writer, now: FightVerdict(False, 30.0, 1)),
    "a reload is never over": instead(Reload, "goes_on", lambda self, now: self.begun is not None),
    "what is not applied is called settled": instead(worker, "reconcile", _claims_to_be_settled),
    "a failure does not make the node unready": instead(AgentReporter, "unsettled", _says_nothing_is_amiss),
    "rules for pods' networks are taken for ours": instead(planning, "is_owned", _takes_others),
}
