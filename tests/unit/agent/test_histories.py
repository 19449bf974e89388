"""The agent's loop under a Hypothesis state machine; ``--hypothesis-profile=explore`` tries fifty times as many."""

from __future__ import annotations

import pytest
from tests.unit.agent.defects import DEFECTS
from tests.unit.agent.interleavings import KIND
from tests.unit.histories import explore, shrunk

PLANTED = "a new configuration waits for the next comparison"


@pytest.mark.slow
def test_the_invariants_hold_in_every_history() -> None:
    assert explore(KIND, share=0.3).steps > 0


@pytest.mark.slow
def test_a_broken_invariant_is_shown_by_a_short_history() -> None:
    found = shrunk(KIND, DEFECTS[PLANTED], examples=200)
    assert found is not None and "AssertionError" in found.what
    assert len(found.actions) <= 5, found.actions
