"""JUnit XML: a drill as a test suite, for CI systems.

Each agent is a test case. Inconclusive is an error, never a skip, and a log without agents is a suite with one error:
skipped tests and empty suites look green.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from hitless.cleaning import cleaned
from hitless.evidence import provenance
from hitless.evidence.records import RecordedDrill
from hitless.evidence.verdict import AgentVerdict, Verdict

__all__ = ["render"]

_PROPERTIES = (
    "attempted", "lost", "asked", "skipped", "undecided", "gaps", "longest_gap_ms", "gap_ms", "leaked",
    "lost_outside", "poisoned", "slowest_recovery_ms", "standby", "bridged_gaps", "bridged_flows",
)  # fmt: skip


def render(recorded: RecordedDrill, verdict: Verdict) -> str:
    """The suite's XML."""
    recorded, verdict = cleaned((recorded, verdict))  # XML 1.0 has no control characters
    values = [one.verdict for one in verdict.agents]
    spans = {agent: _seconds(recorded, agent) for agent in recorded.agents}
    suite = ET.Element(
        "testsuite",
        name="hitless drill",
        tests=str(len(values) or 1),
        failures=str(values.count("fail")),
        errors=str(values.count("inconclusive") if values else 1),
        skipped="0",
        time=f"{sum(spans.values()):.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    for key, value in (("headline", verdict.headline), ("verdict", verdict.verdict), ("judged", verdict.judge)):
        ET.SubElement(properties, "property", name=key, value=value)
    found = provenance.provenance(recorded)
    if found.started:
        suite.set("timestamp", found.started)
    suite.set("hostname", found.host or ("anonymous" if found.anonymous else "unknown"))
    record = ET.SubElement(suite, "properties")
    for name, text in (*provenance.facts(recorded), ("cite", provenance.cite(recorded, verdict))):
        ET.SubElement(record, "property", name=name.replace(" ", "_"), value=text)
    for agent in verdict.agents:
        suite.append(_case(agent, recorded.settings.restart, spans.get(agent.agent, 0.0)))
    if not verdict.agents:
        case = ET.SubElement(suite, "testcase", classname="hitless.drill", name="drill", time="0.000")
        ET.SubElement(case, "error", message=verdict.notes[-1], type=verdict.verdict).text = "\n".join(verdict.notes)
    ET.SubElement(suite, "system-out").text = "\n".join((verdict.headline, *verdict.notes))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _seconds(recorded: RecordedDrill, agent: str) -> float:
    mine = [record for record in recorded.records if record.agent == agent and record.last]
    return sum((record.last - record.first) / 1e9 for record in mine)


def _value(agent: AgentVerdict, key: str) -> str:
    return "unknown" if key == "leaked" and not agent.leaks_known else str(getattr(agent, key))


def _case(agent: AgentVerdict, restart: str, seconds: float) -> ET.Element:
    name = f"{agent.name} restart{f' by {restart}' if restart else ''}"
    case = ET.Element("testcase", classname="hitless.drill", name=name, time=f"{seconds:.3f}")
    properties = ET.SubElement(case, "properties")
    for key in _PROPERTIES:
        ET.SubElement(properties, "property", name=key, value=_value(agent, key))
    ET.SubElement(properties, "property", name="reason_codes", value=",".join(dict.fromkeys(agent.reason_codes)))
    if agent.pod_to_pod.attempted:
        for key in ("attempted", "lost"):
            ET.SubElement(properties, "property", name=f"pod_to_pod_{key}", value=str(getattr(agent.pod_to_pod, key)))
    if agent.stand_in:
        ET.SubElement(properties, "property", name="stand_in", value=f"replays {agent.replays}")
    text = "\n".join(agent.reasons)
    if agent.verdict != "pass":
        first = agent.reasons[0] if agent.reasons else agent.verdict
        kind = "failure" if agent.verdict == "fail" else "error"
        problem = ET.SubElement(case, kind, message=first, type=agent.verdict)
        problem.text = text
    else:
        ET.SubElement(case, "system-out").text = text
    return case
