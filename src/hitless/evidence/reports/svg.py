"""One SVG file with the timelines of all agents, one below the other: for a README, a slide or an issue.

Promise: the same charts as on the HTML page, from the log alone, in one file without external references.
"""

from __future__ import annotations

import re
import textwrap
from html import escape

from hitless.cleaning import cleaned
from hitless.evidence import provenance
from hitless.evidence.records import RecordedDrill
from hitless.evidence.reports import timeline_chart, wording
from hitless.evidence.verdict import AgentVerdict, Verdict

__all__ = ["render"]

_WIDTH, _MARGIN, _TITLE = 1150, 16, 34
_COLOURS = {"pass": "#2b8a3e", "fail": "#c92a2a", "inconclusive": "#b26a00"}
_MOST = 12
_LETTERS = 180  # characters of the citation in a line


def render(recorded: RecordedDrill, verdict: Verdict) -> str:
    """The SVG file's text."""
    recorded, verdict = cleaned((recorded, verdict))
    agents = {one.agent: one for one in verdict.agents}
    records = [one for agent in recorded.agents for one in recorded.records if one.agent == agent and one.attempts][
        :_MOST
    ]
    parts: list[str] = []
    y = _MARGIN
    for record in records:
        agent = agents[record.agent]
        several = len(agent.nodes) > 1
        parts.append(_title(f"{agent.name} on {record.node}" if several else agent.name, agent, y))
        y += _TITLE
        drawn = timeline_chart.timeline(record)
        height = _height(drawn)
        parts.append(re.sub("<svg ", f'<svg x="0" y="{y}" width="{_WIDTH}" height="{height}" ', drawn, count=1))
        y += height + _MARGIN
    for line in textwrap.wrap(provenance.cite(recorded, verdict), _LETTERS, break_on_hyphens=False):
        parts.append(f'<text x="{_MARGIN}" y="{y + 10}" font-size="11" fill="#495057">{escape(line)}</text>')
        y += 16
    y += _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _title(name: str, agent: AgentVerdict, y: int) -> str:
    sign = f"{wording.SIGNS[agent.verdict]} {agent.verdict}"
    lost = (
        f"{wording.of(agent.lost, agent.attempted)} connections lost over {wording.plural(agent.restarts, 'restart')}"
    )
    return (
        f'<text x="{_MARGIN}" y="{y + 20}" font-size="18"><tspan font-weight="bold">{escape(name)}</tspan>'
        f'<tspan dx="12" font-weight="bold" fill="{_COLOURS[agent.verdict]}">{sign}</tspan>'
        f'<tspan dx="12" fill="#495057" font-size="15">{escape(lost)}</tspan></text>'
    )


def _height(svg: str) -> int:
    """The chart's height when it is as wide as the file."""
    found = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', svg)
    assert found is not None, "every chart has a viewBox"
    return round(_WIDTH * float(found[2]) / float(found[1]))
