"""Random interleavings of rules, failures, lost events, time and death; bench/guard_lives.py runs many more."""

from __future__ import annotations

import pytest
from tests.unit.guard.lives import Life

from hitless.model.families import Family


@pytest.mark.parametrize("seed", range(4))
def test_the_invariants_hold_through_a_random_life(seed: int) -> None:
    life = Life(seed, families=tuple(Family) if seed % 2 else (Family.IPV4,))
    for _ in range(250):
        life.step()
    life.settle()
    assert life.steps == 250 and life.deaths == life.guards - 1
