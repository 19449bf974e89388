"""The codes of a verdict's reasons: documented, and the same in every report that programs read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

from prometheus_client.parser import text_string_to_metric_families
from tests.unit.evidence.drill_logs import Drill
from tests.unit.evidence.test_pod_to_pod import Two

from hitless.evidence import decide, grouped
from hitless.evidence.reason_codes import ReasonCode
from hitless.evidence.reports import render
from hitless.evidence.verdict import AgentVerdict

PAGE = Path(__file__).parents[3] / "docs" / "drill.md"


def of(drill: Drill | Two) -> AgentVerdict:
    (agent,) = decide(drill.log()).agents
    assert len(agent.reasons) == len(agent.reason_codes)
    return agent


def test_the_documentation_lists_every_code_once() -> None:
    section = PAGE.read_text().partition("### Codes of the reasons")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (?:pass|fail|inconclusive|any) \| .+ \|$", section, re.MULTILINE)
    assert rows == [code.value for code in ReasonCode]


def test_a_reason_has_the_code_of_what_was_found() -> None:
    assert of(Drill(agent="hitless")).reason_codes == ("nothing_lost",)
    assert "no_traffic" in of(Drill(rate=0)).reason_codes
    cut = Drill(agent="hitless")
    (agent,) = decide(cut.log()[:-1]).agents
    assert (agent.verdict, agent.reason_codes) == ("inconclusive", ("log_cut_off",))


def test_reasons_of_connections_between_pods_have_codes_of_their_own() -> None:
    agent = of(Two().lose(2.5))
    assert "pod_to_pod_lost" in agent.reason_codes
    for code, text in zip(agent.reason_codes, agent.reasons, strict=True):
        assert code.startswith("pod_to_pod_") == ("pod to pod: " in text)


def test_every_report_for_programs_has_the_codes() -> None:
    recorded = grouped(Two().lose(2.5).log())
    verdict = decide(Two().lose(2.5).log())
    (agent,) = verdict.agents
    assert json.loads(render("json", recorded, verdict))["agents"][0]["reason_codes"] == list(agent.reason_codes)
    tree = ET.fromstring(render("junit", recorded, verdict))
    (listed,) = [one.get("value", "") for one in tree.iter("property") if one.get("name") == "reason_codes"]
    assert listed.split(",") == list(dict.fromkeys(agent.reason_codes))
    families = {one.name: one for one in text_string_to_metric_families(render("prometheus", recorded, verdict))}
    counted = {one.labels["reason"]: one.value for one in families["hitless_drill_reasons"].samples}
    assert counted == {code: agent.reason_codes.count(code) for code in agent.reason_codes}
