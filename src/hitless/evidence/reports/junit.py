"""JUnit XML: a drill as a test suite, for CI systems. An agent is a test case; inconclusive is an error, never a skip,
because a skipped test looks green."""

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


def render(told: RecordedDrill, verdict: Verdict) -> str:
    """The suite as text."""
    told, verdict = cleaned((told, verdict))  # XML 1.0 has no control characters
    words = [one.verdict for one in verdict.agents]
    spans = {agent: _seconds(told, agent) for agent in told.agents}
    suite = ET.Element(
        "testsuite",
        name="hitless drill",
        tests=str(len(words)),
        failures=str(words.count("fail")),
        errors=str(words.count("inconclusive")),
        skipped="0",
        time=f"{sum(spans.values()):.3f}",
    )
    properties = ET.SubElement(suite, "properties")
    for key, value in (("headline", verdict.headline), ("verdict", verdict.verdict), ("judged", verdict.judge)):
        ET.SubElement(properties, "property", name=key, value=value)
    found = provenance.provenance(told)
    if found.started:
        suite.set("timestamp", found.started)
    suite.set("hostname", found.host or ("anonymous" if found.anonymous else "unknown"))
    record = ET.SubElement(suite, "properties")
    for name, text in (*provenance.facts(told), ("cite", provenance.cite(told, verdict))):
        ET.SubElement(record, "property", name=name.replace(" ", "_"), value=text)
    for agent in verdict.agents:
        suite.append(_case(agent, told.settings.restart, spans.get(agent.agent, 0.0)))
    ET.SubElement(suite, "system-out").text = "\n".join((verdict.headline, *verdict.notes))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _seconds(told: RecordedDrill, agent: str) -> float:
    mine = [record for record in told.records if record.agent == agent and record.last]
    return sum((record.last - record.first) / 1e9 for record in mine)


def _value(agent: AgentVerdict, key: str) -> str:
    return "unknown" if key == "leaked" and not agent.leaks_known else str(getattr(agent, key))


def _case(agent: AgentVerdict, restart: str, seconds: float) -> ET.Element:
    name = f"{agent.name} restart{f' by {restart}' if restart else ''}"
    case = ET.Element("testcase", classname="hitless.drill", name=name, time=f"{seconds:.3f}")
    properties = ET.SubElement(case, "properties")
    for key in _PROPERTIES:
        ET.SubElement(properties, "property", name=key, value=_value(agent, key))
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
