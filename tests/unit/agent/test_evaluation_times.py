"""How often the agent evaluates what becomes of the pods' packets when no change requests it."""

from __future__ import annotations

import pytest

from hitless.agent.schedule import AgentSchedule


@pytest.mark.parametrize(("cost", "after"), [(0.0, 30.0), (0.01, 50.0), (0.5, 2500.0), (1.0, 3600.0), (60.0, 3600.0)])
def test_a_slow_evaluation_is_repeated_more_rarely_within_an_hour(cost: float, after: float) -> None:
    schedule = AgentSchedule(resync=60.0)
    for _ in range(2):  # a single slow one does not count
        schedule.evaluation_ended(1000.0, cost, full=True, evaluated=True)
    assert not schedule.full_evaluation_due(1000.0 + after - 0.1)
    assert schedule.full_evaluation_due(1000.0 + after)
