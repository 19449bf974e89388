"""The watch, the agent and the guard report the same for the same rules (bench/observers.py: 100,000 rule sets)."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from tests.unit.observe.mutations import MUTATIONS
from tests.unit.observe.three import OBSERVERS, disagreements, rate

CASES = int(os.environ.get("HITLESS_OBSERVER_CASES", "150"))
SEED = os.environ.get("HITLESS_SEED", "1")


@pytest.mark.slow
def test_all_three_observers_give_the_same_answer_on_random_rule_sets() -> None:
    tally: Counter[str] = Counter()
    assert not list(disagreements(SEED, CASES, tally))
    assert tally["rule sets"] == CASES
    # answers of one kind alone would prove nothing
    assert all(share > least for share, least in zip(rate(tally).values(), (0.2, 0.005, 0.2), strict=True)), tally
    assert tally["vacuous"] < 0.1 * CASES, tally
    for kind in ("iptables-legacy", "iptables-nft", "nftables", "inet tables", "sets", "marks", "jumps", "no uplink"):
        assert tally[kind] > 0.1 * CASES, tally


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MUTATIONS)
def test_an_observer_that_makes_a_mistake_is_found(mistake: str) -> None:
    wrong, says = MUTATIONS[mistake]
    found = disagreements("mistakes", 2_000, Counter(), {**OBSERVERS, wrong: says}, checked=2_000)
    next(found)  # the first is enough
