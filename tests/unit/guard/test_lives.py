"""The guard's loop in random lives (HITLESS_LOOP_STEPS: how many steps; bench/interleavings.py: 100,000)."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from tests.unit.guard.defects import DEFECTS
from tests.unit.guard.lives import KIND
from tests.unit.histories import found_after, run
from tests.unit.remembering import remembering

STEPS = int(os.environ.get("HITLESS_LOOP_STEPS", "2000"))
SEED = os.environ.get("HITLESS_SEED", "1")


@pytest.mark.slow
def test_the_invariants_hold_through_random_lives() -> None:
    tally: Counter[str] = Counter()
    with remembering():
        run(KIND, SEED, STEPS, tally)
    assert tally["steps"] >= STEPS
    # a run in which nothing happened would prove nothing
    assert all(tally[name] for name in KIND.counted), tally


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(name: str) -> None:
    steps, what = found_after(KIND, DEFECTS[name], 3000)
    assert steps, "nothing that the guard promises was seen to be broken"
    assert "AssertionError" in what
