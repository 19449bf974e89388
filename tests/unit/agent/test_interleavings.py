"""The agent's loop under random interleavings (HITLESS_LOOP_STEPS: how many; bench/interleavings.py: 100,000)."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from tests.unit.agent.defects import DEFECTS, found_after
from tests.unit.agent.interleavings import run
from tests.unit.remembering import remembering

STEPS = int(os.environ.get("HITLESS_LOOP_STEPS", "2400"))
SEED = os.environ.get("HITLESS_SEED", "1")


def test_what_the_agent_promises_holds_whatever_comes_in_between() -> None:
    tally: Counter[str] = Counter()
    with remembering():
        run(SEED, STEPS, tally)
    assert tally["steps"] >= STEPS
    # a run in which nothing happened would prove nothing
    assert min(tally[name] for name in ("deaths", "damages repaired", "ready", "settled")) > 0, tally


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_found(name: str) -> None:
    with remembering():
        steps, what = found_after(name, 8000)
    assert steps, "nothing that the agent promises was seen to be broken"
    assert "AssertionError" in what
