"""Windows beside a slow, obvious account of them, around the changes of twenty years and many zones."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest
from tests.unit.operations.rules_at_random import differs

from hitless.operations.windows import Gate, WindowSchedule, parsed


@pytest.mark.slow
def test_rules_drawn_at_random_open_as_the_reference_says() -> None:
    found = [differs(seed) for seed in range(100)]
    assert [one for one in found if one not in ("", "refused")] == []
    assert found.count("") > 80


@pytest.mark.slow
def test_a_gate_with_a_clock_that_jumps_is_open_exactly_in_the_windows() -> None:
    text = '[[window]]\nname = "a"\ncron = "0 1-3 * * *"\nduration = "40m"\nzone = "Europe/Berlin"\n'
    text += '[[window]]\nname = "b"\nrrule = "FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=30"\nduration = "2h"\n'
    windows = parsed(text, source="f", beside=str, at=int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()))
    begin, end = (int(datetime(2026, 3, day, tzinfo=UTC).timestamp()) for day in (20, 31))
    spans = [(one.begin, one.end) for one in WindowSchedule(windows).openings(begin - 86400, before=end + 86400)]
    draw = random.Random(14)
    at = float(begin)
    gate = Gate(windows, now=lambda: at)
    answers = set()
    for _ in range(4000):
        at += draw.choice([1, 7, 61, 600, 3600, -3000, -86400, 86400 * draw.random()])
        at = at if begin <= at < end else begin + draw.random() * (end - begin)
        expected = any(first <= int(at) < last for first, last in spans)
        assert (gate.refusal() == "") is expected, at
        answers.add(expected)
    assert answers == {True, False}
