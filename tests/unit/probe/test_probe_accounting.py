"""Every attempt is counted once, where it began; what a run says by itself."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.model.events import Attempts
from hitless.model.families import Family
from hitless.probe.accounting import INTERVAL_NS, Bucket, Ledger
from hitless.probe.causes import cause_of_errno, cause_of_silence, verdict
from hitless.probe.targets import Kind

SECOND = 1_000_000_000

# (kind, family, time between begins, time until its end or None: still open, its end)
story = st.lists(
    st.tuples(
        st.sampled_from(["tcp", "udp", "icmp"]),
        st.sampled_from(list(Family)),
        st.integers(0, 80_000_000),
        st.integers(0, 3 * SECOND),
        st.sampled_from(["ok", "delayed", "leaked", "lost"]),
    ),
    max_size=60,
)


@given(story)
def test_ok_and_lost_are_sent_in_every_bucket_and_in_all(steps: list[tuple[Kind, Family, int, int, str]]) -> None:
    ledger = Ledger()
    ends: list[tuple[int, int, str, Bucket]] = []
    events: list[Attempts] = []
    now = 0
    for number, (kind, family, pause, life, end) in enumerate(steps):
        now += pause
        for due in sorted(one for one in ends if one[0] <= now):
            finish(due)
            ends.remove(due)
        events += ledger.harvest(now)
        ends.append((now + life, number, end, ledger.begin(kind, family, now)))
    for due in ends:
        finish(due)
    events += ledger.harvest(now + INTERVAL_NS)

    assert ledger.open == 0
    assert ledger.begun() == len(steps)
    assert all(event.ok + event.lost == event.sent > 0 for event in events)
    assert all(event.t % INTERVAL_NS == 0 for event in events)
    assert len({(event.t, event.kind, event.family) for event in events}) == len(events)
    sent = Counter[str]()
    for event in events:
        sent[event.kind] += event.sent
    assert sent == Counter(kind for kind, *_ in steps)
    for kind in ("tcp", "udp", "icmp"):
        ended = ledger.totals[f"{kind}_ok"] + ledger.totals[f"{kind}_lost"]
        assert ledger.totals[f"{kind}_sent"] == sent[kind] == ended
    for word in ("lost", "delayed", "leaked"):
        assert sum(getattr(event, word) for event in events) == sum(1 for *_, end in steps if end == word)


def test_what_is_open_when_the_prober_must_end_at_once_is_undecided() -> None:
    ledger = Ledger()
    buckets = [ledger.begin("tcp", Family.IPV4, 5) for _ in range(5)]
    buckets[0].answered(7)
    buckets[1].failed("timeout")
    assert list(ledger.harvest(INTERVAL_NS)) == []
    (event,) = ledger.harvest(INTERVAL_NS, whole=False)
    assert (event.sent, event.ok, event.lost, event.undecided) == (5, 1, 1, 3)


def finish(due: tuple[int, int, str, Bucket]) -> None:
    _, _, end, bucket = due
    if end == "lost":
        bucket.failed("timeout")
    else:
        bucket.answered(1, delayed=end == "delayed", leaked=end == "leaked")


def test_a_bucket_is_written_only_when_it_is_over_and_all_of_it_has_ended() -> None:
    ledger = Ledger()
    first = ledger.begin("tcp", Family.IPV4, 5)
    second = ledger.begin("tcp", Family.IPV4, INTERVAL_NS - 1, lag=7)
    assert first is second
    first.answered(10)
    assert list(ledger.harvest(10 * INTERVAL_NS)) == []
    second.answered(20)
    assert list(ledger.harvest(INTERVAL_NS - 1)) == []
    (event,) = ledger.harvest(INTERVAL_NS)
    assert (event.sent, event.ok, event.max_lag_ns, event.t) == (2, 2, 7, 0)
    assert list(ledger.harvest(INTERVAL_NS)) == []


def test_percentiles_are_by_nearest_rank() -> None:
    ledger = Ledger()
    for latency in range(1, 101):
        ledger.begin("udp", Family.IPV6, 0).answered(latency)
    (event,) = ledger.harvest(INTERVAL_NS)
    assert (event.latency_p50_ns, event.latency_p99_ns, event.latency_max_ns) == (50, 99, 100)


def test_a_bucket_of_losses_has_no_latencies() -> None:
    ledger = Ledger()
    ledger.begin("udp", Family.IPV6, 0).failed("refused")
    (event,) = ledger.harvest(INTERVAL_NS)
    assert (event.lost, event.latency_max_ns) == (1, 0)
    assert ledger.totals["cause_refused"] == 1


@pytest.mark.parametrize(
    ("number", "cause"), [(111, "refused"), (104, "refused"), (113, "unreachable"), (101, "unreachable"), (1, "error")]
)
def test_an_errno_tells_its_cause(number: int, cause: str) -> None:
    assert cause_of_errno(number) == cause


def test_silence_while_the_prober_slept_is_starvation() -> None:
    assert cause_of_silence(1_300_000_000, 2_500_000_000) == "starved"
    assert cause_of_silence(100_000_000, 2_500_000_000) == "timeout"


def test_silence_of_everything_and_of_the_control_is_the_far_end() -> None:
    assert cause_of_silence(0, SECOND, control_ok=0, control_lost=3, ok=0) == "far_end_down"
    assert cause_of_silence(0, SECOND, control_ok=1, control_lost=3, ok=0) == "timeout"
    assert cause_of_silence(0, SECOND, control_ok=0, control_lost=3, ok=1) == "timeout"
    assert cause_of_silence(0, SECOND) == "timeout"


@pytest.mark.parametrize(
    ("totals", "expected"),
    [
        ({"tcp_sent": 5, "tcp_ok": 5}, "pass"),
        ({"tcp_sent": 5, "tcp_lost": 1, "cause_timeout": 1}, "fail"),
        ({"tcp_sent": 5, "tcp_lost": 2, "cause_timeout": 1, "cause_starved": 1}, "fail"),
        ({"tcp_sent": 5, "tcp_lost": 1, "cause_starved": 1}, "inconclusive"),
        ({"tcp_sent": 5, "tcp_ok": 5, "tcp_leaked": 1}, "fail"),
        ({"tcp_sent": 5, "tcp_ok": 5, "stream_breaks": 1}, "fail"),
        ({"tcp_sent": 5, "tcp_ok": 5, "skipped_late": 6}, "inconclusive"),
        ({"tcp_sent": 5, "tcp_ok": 5, "skipped_late": 4}, "pass"),
        ({"tcp_sent": 5, "tcp_ok": 4, "abandoned": 1}, "inconclusive"),
        ({}, "inconclusive"),
    ],
)
def test_a_run_is_worth_what_it_saw(totals: dict[str, int], expected: str) -> None:
    assert verdict(totals) == expected
