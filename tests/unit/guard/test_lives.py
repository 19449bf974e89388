"""Random interleavings of rules, failures, lost events, time and death; bench/guard_lives.py runs many more."""

from __future__ import annotations

import pytest
from tests.unit.guard.defects import DEFECTS, found_after
from tests.unit.guard.lives import of
from tests.unit.remembering import remembering


@pytest.mark.parametrize("seed", range(4))
def test_the_invariants_hold_through_a_random_life(seed: int) -> None:
    life = of(seed)
    with remembering():
        for _ in range(500):
            life.step()
        life.settle()
    assert life.steps == 500 and life.deaths == life.guards - 1


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(name: str) -> None:
    with remembering():
        steps, what = found_after(name, 3000)
    assert steps, "nothing that the guard promises was seen to be broken"
    assert "AssertionError" in what
