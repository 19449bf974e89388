"""Reports are rendered from a log alone, and each can be read by the program that it is for."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from junitparser import Error, Failure, JUnitXml
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.evidence.drill_logs import Drill, at, outage_drill, table_of

from hitless.cli.exits import Exit
from hitless.cli.report import command
from hitless.evidence import LogWriter, RecordedDrill, Verdict, grouped, judge
from hitless.evidence.records import program
from hitless.evidence.reports import FORMATS, render
from hitless.model import events as e

COUNT = {
    "type": "object",
    "required": ["attempted", "lost"],
    "properties": {"attempted": {"type": "integer"}, "lost": {"type": "integer"}},
}
AGENT = {
    "type": "object",
    "required": [
        "agent", "rounds", "attempted", "lost", "gaps", "longest_gap_ms", "gap_ms", "leaked", "poisoned",
        "slowest_recovery_ms", "broken_streams", "verdict", "reasons",
    ],
    "properties": {
        "agent": {"type": "string"},
        "rounds": {"type": "integer"},
        "attempted": {"type": "integer"},
        "lost": {"type": "integer"},
        "gaps": {"type": "integer"},
        "longest_gap_ms": {"type": "number"},
        "gap_ms": {"type": "number"},
        "leaked": {"type": "integer"},
        "poisoned": {"type": "integer"},
        "slowest_recovery_ms": {"type": "number"},
        "broken_streams": {"type": "integer"},
        "verdict": {"enum": ["pass", "fail", "inconclusive"]},
        "reasons": {"type": "array", "items": {"type": "string"}, "minItems": 1},
        "families": {"type": "object", "additionalProperties": COUNT},
        "causes": {"type": "object", "additionalProperties": {"type": "integer"}},
    },
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "required": ["schema", "verdict", "agents", "events"],
    "properties": {
        "schema": {"const": 1},
        "verdict": {"enum": ["pass", "fail", "inconclusive"]},
        "agents": {"type": "array", "items": AGENT},
        "events": {"type": "string"},
    },
}
"""What the drill promises to scripts (docs/drill.md)."""


def judged(events: list[e.Event]) -> tuple[RecordedDrill, Verdict]:
    told = grouped(events)
    return told, judge(told, path="/tmp/events.jsonl")


def three() -> list[e.Event]:
    lame = Drill(agent="lame")
    lame.extra.append(e.Note(t=at(3), level="error", text="probe ended <by> itself & 'died'", **lame.where("drill")))
    return table_of(outage_drill(), lame, Drill(agent="hitless"))


def test_json_follows_the_promised_schema_and_holds_the_figures() -> None:
    found = json.loads(render("json", *judged(three())))
    jsonschema.validate(found, SCHEMA)
    assert found["verdict"] == "pass"
    assert found["events"] == "/tmp/events.jsonl"
    assert [(one["agent"], one["verdict"]) for one in found["agents"]] == [
        ("flannel-0.28", "fail"),
        ("lame", "inconclusive"),
        ("hitless", "pass"),
    ]
    assert found["agents"][0]["lost"] == 100


def test_junit_shows_a_fail_as_failure_and_an_inconclusive_as_error(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(render("junit", *judged(three())))
    (suite,) = list(JUnitXml.fromfile(str(path)))
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (3, 1, 1, 0)
    cases = {case.name.split()[0]: case.result for case in suite}
    (failure,) = cases["flannel-0.28"]
    assert isinstance(failure, Failure)
    assert failure.message.startswith("lost 100 of 9,100 attempts")
    (error,) = cases["lame"]
    assert isinstance(error, Error)
    assert error.message == "probe ended <by> itself & 'died'"
    assert cases["hitless"] == []


def test_prometheus_text_is_parsed_by_prometheus_own_parser() -> None:
    families = {one.name: one for one in text_string_to_metric_families(render("prometheus", *judged(three())))}
    lost = {sample.labels["agent"]: sample.value for sample in families["hitless_drill_lost"].samples}
    assert lost == {"flannel-0.28": 100, "lame": 0, "hitless": 0}
    seconds = {sample.labels["agent"]: sample.value for sample in families["hitless_drill_longest_gap_seconds"].samples}
    assert seconds["flannel-0.28"] == 0.055
    words = {
        (sample.labels["agent"], sample.labels["verdict"]): sample.value
        for sample in families["hitless_drill_verdict"].samples
    }
    assert words["flannel-0.28", "fail"] == 1
    assert sum(words.values()) == 3


class _Page(HTMLParser):
    """Collects what a browser would fetch, and the tags that must be closed."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if (
                name in ("src", "href", "xlink:href", "data", "action", "srcset")
                and value
                and not value.startswith("#")
            ):
                self.fetched.append(value)
            if name == "id" and value:
                self.ids.append(value)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page(text: str) -> _Page:
    found = _Page()
    found.feed(text)
    return found


def test_the_page_holds_everything_and_fetches_nothing() -> None:
    text = render("html", *judged(three()))
    found = page(text)
    assert found.fetched == []
    assert not found.tags & {"script", "link", "img", "iframe", "object", "embed", "base"}
    assert not re.search(r"@import|url\((?!#)", text)
    assert "svg" in found.tags
    assert len(found.ids) == len(set(found.ids)), "two pictures share an id"
    assert "probe ended <by> itself & 'died'" in "".join(found.words)
    assert text.count("<h3>Timeline</h3>") == 3


def test_the_page_begins_with_each_agents_losses() -> None:
    words = " ".join(page(render("html", *judged(three()))).words)
    assert "hitless lost 0 of 9,000 connections over 2 restarts; flannel-0.28 (stand-in) lost 100 of 9,100" in words


HEADLINE = "PASS for hitless; 1 of 3 agents failed, 1 of 3 inconclusive"


def test_every_report_begins_with_the_judged_agent_and_the_number_of_others_that_failed() -> None:
    told = judged(three())
    text = render("html", *told)
    assert f"<title>{HEADLINE}</title>" in text
    assert re.search(rf"<h1>. {HEADLINE}</h1>", text)
    assert json.loads(render("json", *told))["headline"] == HEADLINE
    assert json.loads(render("json", *told))["judged"] == ["hitless"]
    text = render("junit", *told)
    assert f'<property name="headline" value="{HEADLINE}" />' in text
    assert f"<system-out>{HEADLINE}</system-out>" in text
    families = {one.name: one for one in text_string_to_metric_families(render("prometheus", *told))}
    marked = {one.labels["agent"]: one.value for one in families["hitless_drill_judged"].samples}
    assert marked == {"flannel-0.28": 0, "lame": 0, "hitless": 1}


def test_what_a_standby_bridged_is_a_column_where_one_was_on_a_node() -> None:
    kept = Drill(agent="hitless")
    here = kept.where("watch")
    kept.extra += [
        e.Standby(t=at(-0.4), family="ipv4", guard=True, **here),
        e.Bridged(t=at(2.5), family="ipv4", network="10.42.0.0/16", begin=at(2.4), end=at(2.5), **here),
        e.Standby(t=at(8), family="ipv4", guard=True, flows=61, **here),
    ]
    told = judged(table_of(outage_drill(), kept))
    assert re.search(r"hitless .* 1 gap, 61 flows +0 +9,000", render("terminal", *told))
    assert "1 gap, 61 flows" in render("html", *told)
    found = json.loads(render("json", *told))["agents"]
    assert [(one["standby"], one["bridged_gaps"], one["bridged_flows"]) for one in found] == [
        ("", 0, 0),
        ("at work", 1, 61),
    ]
    assert "bridged" not in render("terminal", *judged(three()))


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_every_form_renders_a_log_that_was_cut_anywhere(form: str) -> None:
    events = outage_drill().log()
    for keep in (1, 2, 3, 10, 25, 40, 200, len(events) - 1):
        text = render(form, *judged(events[:keep]))
        assert text.strip()
        assert "✓ PASS" not in text


def test_a_drill_that_ended_before_its_baseline_is_drawn() -> None:
    lame = Drill(agent="lame")
    events = lame.without(lambda event: isinstance(event, e.Phase | e.Restart) or event.t > at(1))
    events.insert(-1, e.Phase(t=at(1), phase="end", **lame.where("drill")))
    assert "<svg" in render("html", *judged(events))


def test_the_terminal_report_has_all_results_and_a_note_if_the_log_is_cut_off() -> None:
    text = render("terminal", *judged(three()))
    assert text.startswith("✓ PASS for hitless; 1 of 3 agents failed, 1 of 3 inconclusive\n")
    assert re.search(r"flannel-0\.28 +2 +2 +55\.0 ms +110\.0 ms +100 +9,100 +180 +80 +> 3\.0 s +0 +✗ fail", text)
    assert "· lost 100 of 9,100 attempts (80 poisoned: dead after the rules were back, 20 in a gap)" in text
    assert "cut off" not in text
    assert "The log is cut off" in render("terminal", *judged(three()[:-1]))


def test_two_renderings_of_one_log_are_the_same() -> None:
    for form in FORMATS:
        assert render(form, *judged(three())) == render(form, *judged(three()))


nasty = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def named(agent: str, comm: str, note: str) -> tuple[RecordedDrill, Verdict]:
    writer = e.Writer(pid=1, comm=comm, argv=note)
    drill = Drill(agent=agent or "x", rounds=1, rate=10).gap(2.3, 0.05, writer=writer).lose(2.31)
    drill.extra.append(e.Note(t=at(3), level="error", text=note, **drill.where("drill")))
    return judged(drill.log())


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(nasty, nasty, nasty)
def test_no_text_of_the_log_breaks_a_report(agent: str, comm: str, note: str) -> None:
    told, verdict = named(agent, comm, note)
    json.loads(render("json", told, verdict))
    JUnitXml.fromstring(render("junit", told, verdict).encode())
    list(text_string_to_metric_families(render("prometheus", told, verdict)))
    ET.fromstring(render("svg", told, verdict))
    assert page(render("html", told, verdict)).fetched == []


@pytest.mark.parametrize("comm", ["_hidden", "$x$", "\x1f\x00", "\u4e2d\u6587", "</svg><script>", "a" * 200])
def test_no_name_of_a_writer_breaks_a_picture(comm: str) -> None:
    found = page(render("html", *named("x", comm, "")))
    assert "svg" in found.tags
    assert "script" not in found.tags
    assert any("1 × " in word for word in found.words)


# --- hitless report --------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    with LogWriter(path) as writer:
        writer.write(*three())
    return path


def test_the_command_renders_a_log_or_its_folder_and_exits_with_the_verdict(log: Path) -> None:
    for where in (log, log.parent):
        done = CliRunner().invoke(command, [str(where), "--format", "json"], standalone_mode=False)
        assert done.return_value == Exit.PASS
        assert json.loads(done.stdout)["events"] == str(log)


def test_the_command_writes_to_a_file_and_keeps_stdout_empty(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    done = CliRunner().invoke(command, [str(log), "--format", "html", "--out", str(out)], standalone_mode=False)
    assert done.stdout == ""
    assert "<!doctype html>" in out.read_text()


def test_the_command_reports_a_torn_log(log: Path) -> None:
    log.write_bytes(log.read_bytes()[:-5])
    done = CliRunner().invoke(command, [str(log)], standalone_mode=False)
    assert done.return_value == Exit.INCONCLUSIVE
    assert "made from what is whole" in done.stderr


def test_a_log_that_failed_exits_with_one(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with LogWriter(path) as writer:
        writer.write(*outage_drill().log())
    assert CliRunner().invoke(command, [str(path)], standalone_mode=False).return_value == Exit.FAIL


def test_a_program_whose_name_the_kernel_cut_is_named_whole() -> None:
    writer = e.Writer(pid=1, comm="iptables-nft-re", argv="/usr/sbin/iptables-nft-restore --noflush")
    told = grouped(Drill().gap(2.2, 0.3, writer=writer).log())
    verdict = judge(told)
    assert any("made by iptables-nft-restore" in reason for reason in verdict.agents[0].reasons)
    assert ">iptables-nft-restore</td>" in render("html", told, verdict)
    assert program("iptables-nft-re", "python3 x") == "iptables-nft-re"
    assert program("flanneld", "flanneld-next") == "flanneld"


def test_a_program_that_was_gone_when_it_was_asked_is_counted_under_its_whole_name() -> None:
    drill = Drill()
    for number, argv in enumerate(["iptables-nft-restore --noflush", "", ""]):
        drill.gap(2.2 + number / 10, 0.05, writer=e.Writer(pid=1, comm="iptables-nft-re", argv=argv))
    text = render("svg", *judged(drill.log()))
    assert "3 × iptables-nft-restore" in text
    assert "iptables-nft-re<" not in text


def test_the_picture_is_one_svg_file_with_every_agent_and_nothing_from_outside() -> None:
    told, verdict = judged(three())
    root = ET.fromstring(render("svg", told, verdict))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = " ".join("".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text"))
    for agent in verdict.agents:
        assert agent.agent in words
        assert agent.verdict in words
    ids = [one.get("id") for one in root.iter() if one.get("id")]
    assert len(ids) == len(set(ids))
    links = [value for one in root.iter() for key, value in one.attrib.items() if key.endswith("href")]
    assert all(link.startswith("#") for link in links)
