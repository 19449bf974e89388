"""Each loop under a Hypothesis state machine; ``--hypothesis-profile=explore`` tries fifty times as many histories."""

from __future__ import annotations

import pytest
from tests.unit.agent import defects as agent_defects
from tests.unit.agent.interleavings import KIND as AGENT
from tests.unit.guard import defects as guard_defects
from tests.unit.guard.lives import KIND as GUARD
from tests.unit.histories import Kind, Planted, explore, shrunk
from tests.unit.watch import defects as watch_defects
from tests.unit.watch.histories import KIND as WATCH


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "share"), [(AGENT, 0.3), (GUARD, 0.3), (WATCH, 0.2)], ids=["agent", "guard", "watch"])
def test_the_invariants_hold_in_every_history(kind: Kind, share: float) -> None:
    assert explore(kind, share=share).steps > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "defect"),
    [
        (AGENT, agent_defects.DEFECTS["a new configuration waits for the next comparison"]),
        (GUARD, guard_defects.DEFECTS["what others took away is not put back"]),
        (WATCH, watch_defects.DEFECTS["changes of chains are not relevant"]),
    ],
    ids=["agent", "guard", "watch"],
)
def test_a_broken_invariant_is_shown_by_a_short_history(kind: Kind, defect: Planted) -> None:
    found = shrunk(kind, defect, examples=200)
    assert found is not None and "AssertionError" in found.what
    assert len(found.actions) <= 5, found.actions
