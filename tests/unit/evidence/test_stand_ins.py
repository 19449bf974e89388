"""A stand-in is marked as one in reports for users; its key does not change for scripts."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from tests.unit.evidence.drill_logs import Drill, outage_drill, table_of

from hitless.cli.drill_view import view
from hitless.drill import DrillPlan
from hitless.drill.labs import LabTarget
from hitless.evidence import RecordedDrill, Verdict, grouped, judge
from hitless.evidence.reports import render, terminal
from hitless.lab import LabPlan as Place
from hitless.lab import agents
from hitless.model import events as e

REPLAYS = "the commands of flannel 0.27 and later at start"


def told_of(*drills: Drill, **config: Any) -> tuple[RecordedDrill, Verdict]:
    header, *rest = table_of(*drills)
    assert isinstance(header, e.Header)
    config = {**header.config, "stand_ins": {"flannel-0.28": REPLAYS}, **config}
    told = grouped([e.Header(t=header.t, tool=header.tool, version=header.version, config=config), *rest])
    return told, judge(told, path="/tmp/events.jsonl")


def drills() -> list[Drill]:
    return [outage_drill(), Drill(agent="flannel-0.28+guard"), Drill(agent="hitless")]


def test_json_keeps_the_key_and_marks_the_stand_in() -> None:
    found = json.loads(render("json", *told_of(*drills())))
    assert [(one["agent"], one["stand_in"], one["display_name"]) for one in found["agents"]] == [
        ("flannel-0.28", True, "flannel-0.28 (stand-in)"),
        ("flannel-0.28+guard", True, "flannel-0.28 (stand-in) + guard"),
        ("hitless", False, "hitless"),
    ]
    assert found["agents"][0]["replays"] == REPLAYS


@pytest.mark.parametrize("form", ["terminal", "html", "junit", "svg"])
def test_no_report_for_users_calls_it_flannel(form: str) -> None:
    text = render(form, *told_of(*drills()))
    assert "flannel-0.28 (stand-in)" in text
    bare = text.replace("flannel-0.28 (stand-in)", "").replace("flannel-0.28 replays", "")
    assert "flannel-0.28" not in bare


@pytest.mark.parametrize("form", ["terminal", "html"])
def test_one_line_has_what_it_replays_and_how_to_test_the_real_one(form: str) -> None:
    text = " ".join(render(form, *told_of(*drills())).replace("&#x27;", "'").split())
    assert f"flannel-0.28 replays {REPLAYS}" in text
    assert "--agent-command '/PATH/flanneld" in text and "--ready-http" in text
    alone = render(form, *told_of(Drill(agent="hitless")))
    assert "stand-in" not in alone


def test_the_title_of_the_page_and_the_judge_are_named_so() -> None:
    told, verdict = told_of(outage_drill())
    assert "<title>FAIL for flannel-0.28 (stand-in)</title>" in render("html", told, verdict)
    assert "FAIL for flannel-0.28 (stand-in)" in terminal.text(told, verdict)
    assert verdict.judge == "flannel-0.28"


def test_junit_and_prometheus_tell_it() -> None:
    suite = ET.fromstring(render("junit", *told_of(*drills())).partition("\n")[2])
    cases = suite.findall(".//testcase")
    assert cases[0].attrib["name"] == "flannel-0.28 (stand-in) restart by sigterm"
    assert [bool(case.findall(".//property[@name='stand_in']")) for case in cases] == [True, True, False]
    text = render("prometheus", *told_of(*drills()))
    assert 'hitless_drill_stand_in{agent="flannel-0.28"} 1' in text
    assert 'hitless_drill_stand_in{agent="hitless"} 0' in text


def test_stand_ins_of_earlier_versions_are_recognised_by_their_names() -> None:
    told = grouped(table_of(outage_drill(), Drill(agent="hitless")))
    assert [one.stand_in for one in judge(told).agents] == [True, False]


def test_a_program_of_the_users_own_is_none_whatever_its_name() -> None:
    told, verdict = told_of(outage_drill(), stand_ins={})
    assert not verdict.agents[0].stand_in
    assert "stand-in" not in terminal.text(told, verdict)


def test_the_drills_header_names_the_stand_ins_of_the_lab() -> None:
    own = agents.of_command("/bin/true")
    chosen = [agents.named("flannel-0.26"), agents.named("hitless"), own]
    listed = LabTarget(chosen, DrillPlan(), Place(), guard=True).config["stand_ins"]
    assert list(listed) == ["flannel-0.26"] and "flannel 0.25 and 0.26" in listed["flannel-0.26"]


def test_the_lines_of_a_running_drill_name_it_so(capsys: pytest.CaptureFixture[str]) -> None:
    header, *rest = outage_drill().log()
    with view(["flannel-0.28"], 2, quiet=True) as observer:
        for event in (header, *rest):
            observer(event)
    said = capsys.readouterr().err
    assert "flannel-0.28 (stand-in) on node-1: round 1 of 2" in said


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("flannel-0.28 (stand-in)", 12, ["flannel-0.28", "(stand-in)"]),
        ("flannel-wrap.sh+guard", 20, ["flannel-wrap.sh+", "guard"]),
        ("flannel-wrap.sh+guard", 12, ["flannel-", "wrap.sh+", "guard"]),
        ("a" * 30, 12, ["a" * 12, "a" * 12, "a" * 6]),
        ("short", 12, ["short"]),
    ],
)
def test_names_are_broken_where_a_reader_would(name: str, width: int, lines: list[str]) -> None:
    assert terminal.fold(name, width).splitlines() == lines


def test_columns_without_room_are_named() -> None:
    told, verdict = told_of(outage_drill())
    assert "no room for: restarts, in all, streams" in terminal.text(told, verdict, width=80)
    assert "no room for" not in terminal.text(told, verdict, width=140)
