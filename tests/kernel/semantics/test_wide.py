"""The evaluator against the kernel with the whole vocabulary, and answers to what was carried: nothing told wrongly.

HITLESS_BATCHES sets how many batches (of 24 rule sets each) every test tries; bench/differential.py tries thousands.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.kernel.semantics.wide import WAYS, compare, prepare
from tests.kernel.semantics.wires import Wires, need, wires

from hitless.model.families import Family

pytestmark = pytest.mark.kernel

BATCHES = int(os.environ.get("HITLESS_BATCHES", "2"))


@pytest.fixture(scope="module")
def net() -> Iterator[Wires]:
    need("ipset")
    with wires() as made:
        prepare(made)
        yield made


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("way", WAYS)
def test_rule_sets_of_the_whole_vocabulary_do_what_the_evaluator_says(net: Wires, way: str, family: Family) -> None:
    if way != "native":
        need(f"{family.iptables}-{way}-restore")
    tally: Counter[str] = Counter()
    wrong = [each for number in range(BATCHES) for each in compare(net, way, family, f"{number} {way} {family}", tally)]
    assert not wrong, wrong[0]
    assert tally["packets"] >= BATCHES * 90
    assert tally["cannot tell"] < 0.2 * tally["packets"], tally
    assert min(tally["carried"], tally["leaked"], tally["dropped"]) > 0, tally
