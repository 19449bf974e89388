"""The watch's loop in random histories, by a seed and under a Hypothesis state machine (``histories``)."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from tests.unit.histories import explore, found_after, run, shrunk
from tests.unit.remembering import remembering
from tests.unit.watch.defects import DEFECTS
from tests.unit.watch.histories import KIND

STEPS = int(os.environ.get("HITLESS_LOOP_STEPS", "2000"))
SEED = os.environ.get("HITLESS_SEED", "1")


@pytest.mark.slow
def test_the_invariants_hold_through_random_histories() -> None:
    tally: Counter[str] = Counter()
    with remembering():
        run(KIND, SEED, STEPS, tally)
    assert tally["steps"] >= STEPS
    # a run in which nothing happened would prove nothing
    assert all(tally[name] for name in KIND.counted), tally


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(name: str) -> None:
    steps, what = found_after(KIND, DEFECTS[name], 4000)
    assert steps, "nothing that the watch promises was seen to be broken"
    assert "AssertionError" in what


@pytest.mark.slow
def test_the_invariants_hold_in_every_history() -> None:
    """``--hypothesis-profile=explore`` tries fifty times as many."""
    assert explore(KIND, share=0.2).steps > 0


@pytest.mark.slow
def test_a_broken_invariant_is_shown_by_a_short_history() -> None:
    found = shrunk(KIND, DEFECTS["changes of chains are not relevant"], examples=200)
    assert found is not None and "AssertionError" in found.what
    assert len(found.actions) <= 5, found.actions
