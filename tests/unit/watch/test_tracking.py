"""From answers to gaps."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.model.events import Gap, RuleState, State, Writer
from hitless.observe import Poll
from hitless.watch import Tracker

NETWORK = ip_network("10.42.0.0/16")


def said(state: State, reason: str = "", partly: str = "", whole: bool = True) -> Poll:
    return Poll(state, reason, frozenset(), partly=partly, whole=whole)


OPENER, CLOSER = Writer(11, "flanneld"), Writer(12, "iptables")


def test_a_gap_has_its_begin_its_end_and_an_author_for_each() -> None:
    tracker = Tracker(NETWORK)
    tracker.observe(100, said("carried", "fine"))
    tracker.observe(200, said("not_carried", "chain FLANNEL-POSTRTG is empty"), OPENER, 7)
    events = tracker.observe(350, said("carried", "fine"), CLOSER, 8)
    assert events == [
        RuleState(
            t=350, family="ipv4", network="10.42.0.0/16", state="carried", reason="fine", writer=CLOSER, generation=8
        ),
        Gap(
            t=350,
            family="ipv4",
            network="10.42.0.0/16",
            begin=200,
            end=350,
            reason="chain FLANNEL-POSTRTG is empty",
            opened_by=OPENER,
            closed_by=CLOSER,
        ),
    ]
    assert (tracker.gaps, tracker.gap_ns, tracker.longest_ns) == (1, 150, 150)


def test_the_same_answer_again_is_no_event() -> None:
    tracker = Tracker(NETWORK)
    assert len(tracker.observe(1, said("carried", "by rule 1"))) == 1
    assert tracker.observe(2, said("carried", "by rule 2")) == []


def test_a_gap_that_is_open_at_the_end_is_written_as_open_and_once() -> None:
    tracker = Tracker(NETWORK)
    tracker.observe(5, said("not_carried", "no rules"))
    [gap] = tracker.finish(9)
    assert isinstance(gap, Gap)
    assert (gap.begin, gap.end, gap.open, gap.opened_by, gap.closed_by) == (5, 9, True, None, None)
    assert tracker.finish(10) == []


def test_what_cannot_be_told_ends_a_gap_and_is_none_itself() -> None:
    tracker = Tracker(NETWORK)
    tracker.observe(1, said("not_carried"))
    events = tracker.observe(4, said("cannot_tell", "a match that nobody knows"), CLOSER)
    assert [type(event) for event in events] == [RuleState, Gap]
    assert tracker.observe(9, said("carried")) != []
    assert tracker.finish(10) == []
    assert tracker.gaps == 1


ANSWERS = st.lists(
    st.tuples(st.integers(1, 50), st.sampled_from(["carried", "not_carried", "cannot_tell"])), max_size=40
)


@pytest.mark.slow
@given(ANSWERS)
def test_gaps_are_exactly_the_times_in_which_the_answer_was_not_carried(answers: list[tuple[int, State]]) -> None:
    tracker = Tracker(NETWORK)
    now, events, wanted = 0, [], 0
    last: State | None = None
    for step, state in answers:
        wanted += step if last == "not_carried" else 0
        now += step
        last = state
        events += tracker.observe(now, said(state))
    events += tracker.finish(now + 5)
    wanted += 5 if last == "not_carried" else 0
    gaps = [event for event in events if isinstance(event, Gap)]
    states = [event for event in events if isinstance(event, RuleState)]
    assert sum(gap.end - gap.begin for gap in gaps) == wanted == tracker.gap_ns
    assert all(a.end < b.begin for a, b in pairwise(gaps))
    assert all(a.state != b.state for a, b in pairwise(states))
    assert [gap.open for gap in gaps].count(True) == (last == "not_carried")


def test_other_pods_that_are_not_carried_are_told_and_make_no_gap() -> None:
    tracker = Tracker(NETWORK)
    tracker.observe(1, said("carried", "rule 5"))
    [told] = tracker.observe(2, said("carried", "rule 5", "1 of 2 pods"))
    assert isinstance(told, RuleState) and (told.state, told.partly) == ("carried", "1 of 2 pods")
    assert tracker.observe(3, said("carried", "rule 5", "1 of 2 pods")) == []
    assert tracker.observe(4, said("carried", "rule 5", whole=False)) == []  # nobody asked the others
    assert len(tracker.observe(5, said("carried", "rule 5"))) == 1
    assert tracker.finish(6) == []
