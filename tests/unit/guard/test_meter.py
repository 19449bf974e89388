"""When counters contradict the guard, and when they do not."""

from __future__ import annotations

from hitless.guard.meter import Meter

SECOND = 1_000_000_000


def test_what_moved_is_told_at_each_sample() -> None:
    meter = Meter()
    assert meter.sample(0, 5, 1).carried == 0
    moved = meter.sample(SECOND, 9, 1)
    assert (moved.carried, moved.leaked) == (4, 0)


def test_flows_in_a_quiet_time_were_translated_wrongly() -> None:
    meter = Meter()
    meter.sample(SECOND, 0, 0)
    assert meter.sample(2 * SECOND, 3, 0).wrongly == 0  # the events that explain it may still come
    assert meter.sample(3 * SECOND, 3, 0).wrongly == 3


def test_flows_around_a_change_of_the_rules_are_what_the_standby_is_for() -> None:
    meter = Meter()
    meter.sample(SECOND, 0, 0)
    meter.sample(2 * SECOND, 30, 0)
    meter.disturb(int(1.5 * SECOND))
    assert meter.sample(3 * SECOND, 30, 0).wrongly == 0
    assert meter.sample(4 * SECOND, 30, 0).wrongly == 0


def test_a_change_a_moment_before_the_interval_counts_as_in_it() -> None:
    meter = Meter()
    meter.disturb(SECOND - 50_000_000)
    for at, carried in ((1, 0), (2, 1), (3, 1)):
        assert meter.sample(at * SECOND, carried, 0).wrongly == 0


def test_a_polled_primary_is_given_three_intervals() -> None:
    meter = Meter(polled=True)
    told = [meter.sample(at * SECOND, at, 0).wrongly for at in range(1, 6)]
    assert told == [0, 0, 0, 0, 3]


def test_counters_that_began_anew_prove_nothing() -> None:
    meter = Meter()
    meter.sample(SECOND, 50, 2)
    moved = meter.sample(2 * SECOND, 3, 0)
    assert (moved.carried, moved.leaked, moved.wrongly) == (3, 0, 0)
    assert meter.sample(3 * SECOND, 3, 0).wrongly == 0
