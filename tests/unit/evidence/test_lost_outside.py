"""An answer that only a neighbour could give is no success: outside the cluster the connection would have been lost."""

from __future__ import annotations

import json

import pytest
from tests.unit.evidence.drill_logs import Drill, at

from hitless.evidence import RecordedDrill, Verdict, grouped, judge
from hitless.evidence.reports import render
from hitless.model import events as e


def told_of(target: str, answered: int = 306) -> tuple[RecordedDrill, Verdict]:
    drill = Drill(agent="rke2-canal", config={"target": target}).gap(2.3, 0.3)
    drill.extra.append(
        e.Attempts(
            t=at(2.3), interval_ns=1, kind="tcp", family="ipv4", sent=answered, ok=answered, leaked=answered,
            **drill.where("probe"),
        )
    )  # fmt: skip
    told = grouped(drill.log())
    return told, judge(told, path="x")


def test_connections_that_another_node_answered_count_as_lost_outside() -> None:
    told, verdict = told_of("cluster")
    (agent,) = verdict.agents
    assert (agent.verdict, agent.lost, agent.lost_outside) == ("fail", 0, 306)
    assert (
        "306 connections answered only because the far end is a node of the cluster and knows a way back to pods: "
        "lost to anything outside the cluster"
    ) in agent.reasons
    lines = render("terminal", told, verdict).splitlines()
    assert "306 more would have been lost to anything outside the cluster" in " ".join(lines[:3])
    assert any("lost outside" in line for line in lines)


def test_a_far_end_that_the_drill_did_not_start_is_not_called_a_node() -> None:
    reasons = " ".join(told_of("lab")[1].agents[0].reasons)
    assert "because this far end knows a way back to pods" in reasons


@pytest.mark.parametrize("form", ["html", "json", "junit", "prometheus"])
def test_every_report_counts_them(form: str) -> None:
    text = render(form, *told_of("cluster", 307))
    assert "307" in text
    if form == "json":
        assert json.loads(text)["agents"][0]["lost_outside"] == 307


def test_without_any_the_column_is_left_out() -> None:
    told = grouped(Drill(agent="rke2-canal").log())
    assert "lost outside" not in render("terminal", told, judge(told))
