"""What was planned and not sent, and what had no answer yet, is said; neither counts as proof that nothing was lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from tests.unit.evidence.drill_logs import Drill, at, outage_drill

from hitless.evidence import RecordedDrill, Verdict, grouped, judge
from hitless.evidence.provenance import cite
from hitless.evidence.reports import render
from hitless.model import events as e

SENT = 9000


def told_of(drill: Drill, totals: dict[str, int], **beat: Any) -> tuple[RecordedDrill, Verdict]:
    """The drill's log with these totals in the prober's summary, and counters in its last heartbeat."""
    events: list[e.Event] = []
    for event in drill.log():
        if isinstance(event, e.Summary) and event.tool == "probe":
            events.append(e.Heartbeat(t=event.t - 1, tool="probe", interval_ns=1, **drill.where("probe"), **beat))
            event = replace(event, totals=totals)
        events.append(event)
    told = grouped(events)
    return told, judge(told, path="x")


def cut_off(drill: Drill, **beat: Any) -> tuple[RecordedDrill, Verdict]:
    """The drill without summaries, after a heartbeat with these counters."""
    events: list[e.Event] = [event for event in drill.log() if not isinstance(event, e.Summary)]
    events.append(e.Heartbeat(t=at(8), tool="probe", interval_ns=1, **drill.where("probe"), **beat))
    told = grouped(events)
    return told, judge(told, path="x")


def test_unsent_attempts_keep_a_drill_from_passing_and_are_in_the_headline() -> None:
    told, verdict = told_of(Drill(), {"skipped_late": 12000, "skipped_tuples": 100}, skipped=12100)
    (agent,) = verdict.agents
    assert (agent.attempted, agent.asked, agent.skipped) == (SENT, SENT + 12100, 12100)
    assert agent.skipped_why == {"late": 12000, "tuples": 100}
    assert agent.verdict == "inconclusive"
    assert agent.reasons[0].startswith("only 9,000 of 21,100 planned attempts were sent (42 %), 12,100 were skipped")
    assert "too busy" in agent.reasons[0]
    assert "12,100 of 21,100 planned ones were not sent" in render("terminal", told, verdict).splitlines()[1]


def test_the_citation_has_unsent_attempts_too() -> None:
    assert "lost, 678 undecided, 12,345 not sent (could not tell)" in cite(
        *told_of(Drill(), {"skipped_late": 12345}, begun=SENT + 678, skipped=12345)
    )


def test_a_failure_stays_a_failure_and_reports_unsent_attempts_too() -> None:
    told, verdict = told_of(outage_drill(), {"skipped_late": 12000}, skipped=12000)
    assert verdict.verdict == "fail"
    assert any("planned attempts were sent" in reason for reason in verdict.agents[0].reasons)
    assert "not sent" in render("terminal", told, verdict)


@pytest.mark.parametrize(("skipped", "word"), [(0, "pass"), (1000, "pass"), (1001, "inconclusive")])
def test_nine_of_ten_are_enough(skipped: int, word: str) -> None:
    assert told_of(Drill(), {"skipped_late": skipped})[1].verdict == word


def test_without_a_summary_the_heartbeats_have_the_unsent_attempts() -> None:
    _, verdict = cut_off(Drill(), begun=SENT, skipped=5000)
    assert (verdict.agents[0].skipped, verdict.agents[0].undecided) == (5000, 0)


def test_a_control_that_could_not_send_is_no_part_of_it() -> None:
    events = Drill().log()
    where: dict[str, Any] = {"agent": "flannel-0.28", "node": "node-1", "stream": "control_host"}
    events.insert(-1, e.Heartbeat(t=at(3), tool="probe", interval_ns=1, begun=50, skipped=5000, **where))
    events.insert(-1, e.Summary(t=at(3), tool="probe", totals={"skipped_late": 5000}, **where))
    (agent,) = judge(grouped(events)).agents
    assert (agent.skipped, agent.undecided, agent.verdict) == (0, 0, "pass")


def test_attempts_without_an_answer_at_the_end_are_undecided() -> None:
    told, verdict = cut_off(Drill(), begun=SENT + 1234)
    (agent,) = verdict.agents
    assert (agent.attempted, agent.lost, agent.undecided) == (SENT + 1234, 0, 1234)
    assert any(
        "1,234 attempts had no answer yet at the end of the record: undecided, not lost" in one for one in agent.reasons
    )
    assert "undecided" in render("terminal", told, verdict)


def test_a_prober_that_ended_at_once_reports_undecided_attempts_in_its_buckets() -> None:
    drill = Drill()
    late = e.Attempts(
        t=at(8.9), interval_ns=1, kind="tcp", family="ipv4", sent=10, ok=3, lost=1, undecided=6, **drill.where("probe")
    )
    drill.extra.append(late)
    (agent,) = judge(grouped(drill.log())).agents
    assert (agent.attempted, agent.undecided) == (SENT + 10, 6)


@pytest.mark.parametrize("form", ["terminal", "html", "json", "junit", "prometheus"])
def test_every_report_has_the_figures(form: str) -> None:
    told, verdict = told_of(Drill(), {"skipped_late": 12345}, begun=SENT + 678, skipped=12345)
    text = render(form, told, verdict)
    for figure in (12345, 678):
        assert f"{figure:,}" in text or str(figure) in text
    plain = render(form, *told_of(Drill(), {}))
    if form in ("terminal", "html"):  # columns of nothing are left out
        assert "not sent" not in plain and "undecided" not in plain
    if form == "json":
        found: dict[str, Any] = json.loads(plain)["agents"][0]
        assert (found["asked"], found["skipped"], found["undecided"]) == (SENT, 0, 0)
