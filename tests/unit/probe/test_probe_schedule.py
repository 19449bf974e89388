"""When attempts begin, and on which 5-tuple: pure functions of the time that is put in."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from hitless.probe.schedule import BEHIND_NS, SendSchedule, interleave
from hitless.probe.tuples import REUSE_NS, Tuples, fastest

MS = 1_000_000
SECOND = 1_000_000_000


def drain(schedule: SendSchedule, now: int) -> list[int]:
    taken = []
    while (planned := schedule.take(now)) is not None:
        taken.append(planned)
    return taken


def test_attempts_are_planned_at_the_rate_and_do_not_drift() -> None:
    schedule = SendSchedule(0, 3.0)  # a third of a second is not a whole number of nanoseconds
    taken = [planned for second in range(1000) for planned in drain(schedule, second * SECOND)]
    # each turn is late for the first of its second by more than the bound: only the whole count matters here
    assert len(taken) + schedule.skipped == 3 * 999 + 1
    assert all(abs(planned - round(planned * 3 / SECOND) * SECOND / 3) < 1 for planned in taken)


def test_what_is_a_little_late_is_sent_and_what_is_too_late_is_skipped_and_counted() -> None:
    schedule = SendSchedule(0, 1000.0)
    assert drain(schedule, BEHIND_NS) == [index * MS for index in range(51)]
    assert schedule.skipped == 0
    taken = drain(schedule, SECOND)
    assert len(taken) <= 51
    assert len(taken) + schedule.skipped == 1001 - 51
    assert min(taken) >= SECOND - BEHIND_NS


def test_a_schedule_ends_with_its_count_whether_sent_or_skipped() -> None:
    schedule = SendSchedule(0, 1000.0, count=70)
    assert len(drain(schedule, 10 * MS)) == 11
    drain(schedule, 10 * SECOND)
    assert schedule.skipped == 59
    assert schedule.next_at is None


@given(
    st.floats(0.5, 20_000),
    st.lists(st.integers(0, 3 * SECOND), max_size=40),
    st.one_of(st.none(), st.integers(0, 2000)),
)
def test_every_planned_attempt_is_either_sent_in_time_or_counted_as_skipped(
    rate: float, steps: list[int], count: int | None
) -> None:
    schedule = SendSchedule(0, rate, count)
    now = sent = 0
    before = -1
    for step in steps:
        now += step
        for planned in drain(schedule, now):
            assert now - planned <= BEHIND_NS
            assert planned > before
            before = planned
            sent += 1
    due = int(now * rate / SECOND) + 1 if steps else 0
    if count is not None:
        due = min(due, count)
    assert abs(sent + schedule.skipped - due) <= 1  # the last one may lie within a rounding of now


@given(st.dictionaries(st.sampled_from(["tcp", "udp", "icmp", "http"]), st.integers(0, 60)))
def test_a_cycle_has_each_kind_in_proportion_to_its_weight(weights: dict[str, int]) -> None:
    cycle = interleave(weights)
    counts = Counter(cycle)
    for one, weight in weights.items():
        for other, other_weight in weights.items():
            assert counts[one] * other_weight == counts[other] * weight


def test_a_cycle_is_spread_evenly() -> None:
    cycle = interleave({"tcp": 6, "udp": 3, "icmp": 1})
    assert len(cycle) == 10
    assert "tcp" in cycle[:2] and "udp" in cycle[:4]
    assert not any(cycle[index : index + 3] == ("udp",) * 3 for index in range(8))


@given(st.integers(0, 100), st.integers(1, 5), st.integers(0, 10**6))
def test_no_five_tuple_comes_twice_until_all_others_were_used(span: int, ports: int, start: int) -> None:
    tuples = Tuples(tuple(range(7801, 7801 + ports)), first=10240, last=10240 + span, start=start)
    taken = [tuples.take(0) for _ in range(tuples.capacity)]
    assert None not in taken
    assert len(set(taken)) == tuples.capacity == (span + 1) * ports


@given(st.integers(1, 3000), st.integers(1, 4), st.integers(0, 70_000), st.lists(st.integers(0, 50_000), max_size=6000))
def test_no_five_tuple_comes_again_before_conntrack_forgot_it(
    span: int, ports: int, start: int, steps: list[int]
) -> None:
    tuples = Tuples(tuple(range(ports)), first=1, last=span, start=start, reuse_ns=10_000_000)
    used: dict[tuple[int, int], int] = {}
    now = 0
    for step in steps:
        now += step
        pair = tuples.take(now)
        if pair is not None:
            assert now - used.get(pair, -(10**9)) >= 10_000_000
            used[pair] = now


def test_a_five_tuple_is_given_again_once_it_has_rested() -> None:
    tuples = Tuples((80,), first=10240, last=10240 + 4095)
    for _ in range(4096):
        assert tuples.take(SECOND) is not None
    assert tuples.take(REUSE_NS) is None
    assert tuples.take(SECOND + REUSE_NS) is not None


def test_the_default_mix_to_one_far_end_never_runs_out_of_five_tuples() -> None:
    assert fastest(4) > 1000 * 0.6
    assert fastest(1) > 400
