"""The estimate of the time left and of open attempts, from the drill's own phases."""

from __future__ import annotations

import pytest
from tests.unit.evidence.drill_logs import Drill

from hitless.cli.drill_estimate import TimeLeft
from hitless.cli.drill_view import _Lines, _Live, _Rows
from hitless.model import events as e

SECOND = 10**9


def test_there_is_no_estimate_before_a_whole_round_and_the_rest_is_counted_then() -> None:
    left = TimeLeft(["a", "b"], 3)
    assert left.seconds() is None
    for t, phase, number in ((0, "baseline", 0), (2, "round", 1), (4, "round", 2)):
        left.take(e.Phase(t=t * SECOND, agent="a", node="n", phase=phase, round=number))  # type: ignore[arg-type]
    # round 2 and 3 of a, its recovery; and all of b
    assert left.seconds() == pytest.approx((2 + 2 + 2) + (2 + 6 + 2))
    left.take(e.Phase(t=6 * SECOND, agent="a", node="n", phase="round", round=3))
    left.take(e.Phase(t=8 * SECOND, agent="a", node="n", phase="recovery"))
    left.take(e.Phase(t=11 * SECOND, agent="a", node="n", phase="end"))
    assert left.seconds() == pytest.approx(2 + 6 + 3)
    left.take(e.Phase(t=11 * SECOND, agent="b", node="n", phase="baseline"))
    left.take(e.Note(t=12 * SECOND, agent="b", node="n", level="info", text=""))
    assert left.seconds() == pytest.approx(2 + 6 + 3 - 1)


def test_nodes_of_a_lab_go_through_the_same_rounds_and_count_once() -> None:
    left = TimeLeft(["a"], 3)
    for t, phase, number in ((0, "baseline", 0), (2, "round", 1), (4, "round", 2)):
        for node in ("node0", "node1"):
            left.take(e.Phase(t=t * SECOND, agent="a", node=node, phase=phase, round=number))  # type: ignore[arg-type]
    assert left.seconds() == pytest.approx(2 + 2 + 2)


def test_attempts_that_are_open_and_what_ends_the_drill_stand_below() -> None:
    view = _Live(_Rows(["a"], 2))
    assert view._below().plain == "Ctrl-C ends it and prints what is known"
    view(e.Heartbeat(t=1, agent="a", node="n", stream="probe", tool="probe", interval_ns=1, open=1))
    assert view._below().plain == "1 attempt pending; Ctrl-C ends it and prints what is known"
    view(e.Summary(t=2, agent="a", node="n", stream="probe", tool="probe"))
    assert view._below().plain == "Ctrl-C ends it and prints what is known"


def test_one_gap_is_one_gap(capsys: pytest.CaptureFixture[str]) -> None:
    view = _Lines(_Rows(["flannel"], 1))
    gap = next(event for event in Drill(agent="flannel", rounds=1).gap(2.3, 0.05).log() if isinstance(event, e.Gap))
    for event in (e.Phase(t=1, agent="flannel", phase="baseline"), gap, e.Phase(t=2, agent="flannel", phase="end")):
        view(event)
    before, after = capsys.readouterr().err.splitlines()
    assert (before.split(", ")[-1], after.split(", ")[-1]) == ("0 gaps so far)", "1 gap so far)")
