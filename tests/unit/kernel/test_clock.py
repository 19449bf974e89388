"""The clock that all records of a process share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hitless.kernel import clock


def test_a_stop_between_the_two_clocks_of_the_anchor_makes_no_clock_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all its records would be early by the pause, and an effect would come before its cause."""
    stop = 300_000_000
    monotonic = iter([1_000 + stop, 2_000, 3_000 + stop, 4_000])  # twice the process was stopped before it was read
    wall = iter([5_000_001_000, 5_000_002_000, 5_000_003_000, 5_000_004_000])
    fake = SimpleNamespace(time_ns=lambda: next(wall), monotonic_ns=lambda: next(monotonic))
    monkeypatch.setattr(clock, "time", fake)
    assert clock.Clock().anchor == 5_000_000_000
