"""A miss that a tool's own lateness excuses is counted, and the summary of a run says so."""

from __future__ import annotations

from collections import Counter

import pytest
from tests import excuses


def test_a_miss_is_counted_only_where_it_was_excused(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = Counter[str]()
    monkeypatch.setattr(excuses, "CHECKS", counts)
    assert excuses.check(True, True, "late")
    assert excuses.check(False, True, "late")
    assert not excuses.check(False, False, "late")
    assert counts == {"checks": 3, "late": 1}
    assert excuses.lines(counts) == [
        "1 of 3 checks of measuring tools were excused by their own lateness",
        "  1: late",
    ]


def test_a_run_without_such_checks_reports_nothing() -> None:
    assert excuses.lines(Counter()) == []
