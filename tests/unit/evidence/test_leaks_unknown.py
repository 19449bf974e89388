"""Where no far end of the drill's own looks, what leaked is not known, in every channel."""

from __future__ import annotations

import json

import msgspec
import pytest
from tests.unit.evidence.drill_logs import Drill

from hitless.evidence import grouped, judge
from hitless.evidence.reports import render
from hitless.model import events as e


def told(far_end: bool, target: str = "cluster") -> dict[str, str]:
    events = [
        msgspec.structs.replace(event, config={**event.config, "target": target, "far_end": far_end})
        if isinstance(event, e.Header) and not event.agent
        else event
        for event in Drill().log()
    ]
    found = grouped(events)
    verdict = judge(found)
    return {form: render(form, found, verdict) for form in ("terminal", "html", "json", "junit", "prometheus")}


@pytest.mark.parametrize(("target", "far_end"), [("cluster", False), ("node", False)])
def test_with_a_far_end_that_the_drill_did_not_start_the_figure_is_a_dash(target: str, far_end: bool) -> None:
    found = told(far_end, target)
    row = next(line for line in found["terminal"].splitlines() if "leaked" in line)
    lines = found["terminal"].splitlines()
    figures = lines[lines.index(row) + 2]
    end = row.index("leaked") + len("leaked")
    assert figures[:end].endswith("  –"), "a dash below the word"
    assert "not known: no far end" in found["html"]
    (agent,) = json.loads(found["json"])["agents"]
    assert (agent["leaked"], agent["leaks_known"]) == (0, False)
    assert 'name="leaked" value="unknown"' in found["junit"]
    assert "hitless_drill_leaked_packets{" not in found["prometheus"]


def test_with_a_far_end_of_the_drill_the_figure_is_zero() -> None:
    found = told(True)
    assert json.loads(found["json"])["agents"][0]["leaks_known"] is True
    assert 'name="leaked" value="0"' in found["junit"]
    assert "hitless_drill_leaked_packets{" in found["prometheus"]
