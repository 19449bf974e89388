"""A result can be cited: where, when, with what, and the log's checksum, in every form."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.evidence.drill_logs import Drill, outage_drill, table_of

from hitless.evidence import RecordedDrill, Verdict, grouped, judge
from hitless.evidence.provenance import cite, provenance
from hitless.evidence.reports import render
from hitless.model import events as e

SUM = "ab" * 32
MACHINE = e.Machine(
    host="build-box", kernel="6.1.0-18", arch="x86_64", cpus=4, cpu="A Processor", os="Debian 12",
    iptables="1.8.9 (nf_tables)", nft="1.0.6",
)  # fmt: skip


def told_of(*drills: Drill, tool_version: str = "0.1.0", **head: Any) -> tuple[RecordedDrill, Verdict]:
    header, *rest = table_of(*drills)
    assert isinstance(header, e.Header)
    said = {"machine": MACHINE, "command": "hitless drill --rounds 2", "drill": "a1b2c3d4", **head}
    there = e.Machine(kernel="5.15.0", arch="aarch64", cpus=8)
    events = [
        replace(event, version=tool_version, machine=there) if isinstance(event, e.Header) else event for event in rest
    ]
    told = grouped([replace(header, **said), *events], sha256=SUM)
    return told, judge(told, path="x")


def test_the_citation_has_place_time_versions_and_losses() -> None:
    line = cite(*told_of(outage_drill(), Drill(agent="hitless")))
    assert line == (
        "hitless drill a1b2c3d4, 2023-11-14T22:13:19Z, on build-box (kernel 6.1.0-18, x86_64, 4 CPUs, iptables 1.8.9 "
        "(nf_tables), nft 1.0.6): flannel-0.28 (stand-in), 2 restarts: 100 of 9,100 lost; hitless, 2 restarts: "
        f"0 of 9,000 lost; log sha256 {SUM}; hitless 0.1.0"
    )


def test_in_a_cluster_the_nodes_are_named_with_their_kernels_and_both_versions() -> None:
    told, verdict = told_of(Drill(agent="rke2-canal", node="w1", config={"target": "cluster"}), tool_version="0.0.9")
    line = cite(told, verdict)
    assert "on w1 (kernel 5.15.0, aarch64, 8 CPUs), driven from build-box (kernel 6.1.0-18" in line
    assert line.endswith("hitless 0.1.0 (its tools: 0.0.9)")
    assert provenance(told).tools == ("0.0.9",)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["terminal", "html", "json", "junit", "prometheus", "svg"])
def test_every_report_has_the_record(form: str) -> None:
    text = " ".join(render(form, *told_of(outage_drill())).split())
    for word in ("build-box", "6.1.0-18", "a1b2c3d4", SUM):
        assert word in text, word
    if form != "prometheus":
        assert "2023-11-14T22:13:19Z" in text and "1.8.9 (nf_tables)" in text
    if form not in ("prometheus", "svg"):
        assert "hitless drill --rounds 2" in text


def test_junit_says_when_and_where_with_the_zone() -> None:
    suite = ET.fromstring(render("junit", *told_of(outage_drill())).partition("\n")[2])[0]
    assert suite.attrib["hostname"] == "build-box"
    assert datetime.fromisoformat(suite.attrib["timestamp"]).tzinfo is not None


def test_json_has_the_record_and_the_line() -> None:
    found = json.loads(render("json", *told_of(outage_drill())))
    assert found["record"]["host"] == "build-box" and found["record"]["log_sha256"] == SUM
    assert found["cite"] == cite(*told_of(outage_drill()))


def test_prometheus_info_is_parsed() -> None:
    families = {one.name: one for one in text_string_to_metric_families(render("prometheus", *told_of(outage_drill())))}
    (sample,) = families["hitless_drill_info"].samples
    assert sample.labels["host"] == "build-box" and sample.value == 1


def test_what_an_older_log_does_not_say_is_not_made_up() -> None:
    told = grouped(outage_drill().log())
    line = cite(told, judge(told))
    assert "on a host that the log does not name:" in line and "sha256" not in line
    assert 'hostname="unknown"' in render("junit", told, judge(told))


def test_a_log_that_was_cut_off_is_cited_as_such() -> None:
    told = grouped(outage_drill().log()[:-1])
    assert "cut off before its end" in cite(told, judge(told))
