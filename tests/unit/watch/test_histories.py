"""The watch's loop in random histories by a seed; under a Hypothesis state machine: ``tests/unit/test_histories``."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from tests.unit.histories import found_after, run
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
