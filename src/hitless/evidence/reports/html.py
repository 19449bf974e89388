"""The report as one HTML file: no network, no script, no other file.

Problem: the report is read a month later, on another machine, from an attachment. Promise: rendered from the log alone;
charts are inline, all text from the log is escaped; the first screen shows each agent's verdict and losses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from hitless.cleaning import cleaned
from hitless.evidence import provenance
from hitless.evidence.figures import written_leaks
from hitless.evidence.losses import ExplainedLoss, explain
from hitless.evidence.records import Outage, Record, RecordedDrill, program
from hitless.evidence.reports import timeline_chart, wording
from hitless.evidence.reports.style import STYLE
from hitless.evidence.verdict import AgentVerdict, Verdict

__all__ = ["render"]

_MOST_LOSSES = 25
_MOST_NODES = 12
_MOST_REASONS = 20
_MOST_NOTES = 50
_IF_ANY = (("lost outside", "lost_outside"), ("not sent", "skipped"), ("undecided", "undecided"))
"""Columns, and their figures, that are shown only if one of the agents has a figure in them."""


_FOOTER = (
    "A <b>gap</b> is a time in which the rules, as the kernel committed them, did not carry the egress path. A "
    "<b>poisoned</b> flow was bound without NAT in a gap and stayed dead after the rules were back. A <b>leak</b> is a "
    "packet that left the node with a pod's address. Rendered from the event log alone (<code>hitless report</code>)."
)


def _badge(verdict: str) -> str:
    return f'<span class="badge {verdict}">{wording.SIGNS[verdict]} {verdict}</span>'


def _cell(text: str, *, bad: bool = False) -> str:
    return f'<td class="bad">{escape(text)}</td>' if bad else f"<td>{escape(text)}</td>"


_LEFT = {"sign of the restart": ' class="left"'}
"""Columns of sentences: left-aligned, and wrapped."""


def _table(head: Sequence[str], rows: Iterable[str]) -> str:
    cells = "".join(f"<th{_LEFT.get(name, '')}>{escape(name)}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _columns(one: AgentVerdict, agents: Sequence[AgentVerdict]) -> list[tuple[str, str, bool]]:
    """An agent's cells after name and verdict: the column's name, the text, and whether it is a failure."""
    gaps = bool(one.gaps)
    bridged = [("bridged by a guard", wording.bridged(one), False)] if any(other.standby for other in agents) else []
    if_any = [(name, key) for name, key in _IF_ANY if any(getattr(other, key) for other in agents)]
    return [
        ("restarts", f"{one.restarts:,}", False),
        ("gaps", f"{one.gaps:,}", gaps),
        ("longest", wording.longest(one), gaps),
        ("in all", wording.duration(one.gap_ms) if gaps else "–", gaps),
        *bridged,
        *_lost(one, between=any(other.pod_to_pod.attempted for other in agents)),
        *((name, f"{getattr(one, key):,}", bool(getattr(one, key))) for name, key in if_any),
        ("leaked", wording.leaked(one), bool(one.leaked)),
        ("poisoned", f"{one.poisoned:,}", bool(one.poisoned)),
        ("dead for", wording.recovery(one), bool(one.poisoned)),
        ("streams broken", f"{one.broken_streams:,}", bool(one.broken_streams)),
    ]


def _lost(one: AgentVerdict, *, between: bool) -> list[tuple[str, str, bool]]:
    if not between:
        return [("lost", f"{one.lost:,}", bool(one.lost)), ("of", f"{one.attempted:,}", False)]
    pods = one.pod_to_pod
    return [
        ("egress lost", wording.of(one.lost, one.attempted), bool(one.lost)),
        ("pod-to-pod lost", wording.of(pods.lost, pods.attempted), bool(pods.lost)),
    ]


def _comparison(agents: Sequence[AgentVerdict]) -> str:
    rows, head = [], ["agent", "verdict"]
    for one in agents:
        columns = _columns(one, agents)
        head = ["agent", "verdict", *(name for name, _, _ in columns)]
        cells = "".join(
            f'<td data-label="{escape(name)}" class="{"bad" if bad else "good"}">{escape(text)}</td>'
            for name, text, bad in columns
        )
        rows.append(
            f'<tr><td class="name">{_breakable(one.name)}</td><td class="wide">{_badge(one.verdict)}</td>{cells}</tr>'
        )
    return f'<div class="compare">{_table(head, rows)}</div>'


def _breakable(name: str) -> str:
    """A name as HTML that breaks after punctuation."""
    return "<wbr>".join(escape(part) for part in re.findall(r"[^-+_./:@]+[-+_./:@]*|[-+_./:@]+", name))


def _rounds(agent: AgentVerdict) -> str:
    several = len(agent.nodes) > 1
    between = bool(agent.pod_to_pod.attempted)
    head = (
        *(("node",) if several else ()),
        "round",
        "attempted",
        "lost",
        *(("pod-to-pod lost",) if between else ()),
        "gaps",
        "gap time",
        "ready again after",
        "sign of the restart",
    )
    rows = []
    for one in agent.per_round:
        ready = "never" if one.ready_ms is None else wording.duration(one.ready_ms)
        first = f'<td class="name">{escape(one.node)}</td>' if several else ""
        rows.append(
            f"<tr>{first}<td>{one.round}</td>"
            + _cell(f"{one.attempted:,}")
            + _cell(f"{one.lost:,}", bad=bool(one.lost))
            + (
                _cell(wording.of(one.pod_to_pod.lost, one.pod_to_pod.attempted), bad=bool(one.pod_to_pod.lost))
                * between
            )
            + _cell(f"{one.gaps:,}", bad=bool(one.gaps))
            + _cell(wording.duration(one.gap_ms) if one.gaps else "–", bad=bool(one.gaps))
            + _cell(ready, bad=one.ready_ms is None)
            + f'<td class="left sign">{escape(one.evidence or "–")}</td>'
            + "</tr>"
        )
    opened = " open" if len(rows) <= 6 else ""
    return f"<details{opened}><summary>Round by round</summary>{_table(head, rows)}</details>"


def _writers(agent: AgentVerdict) -> str:
    if not agent.writers:
        return ""
    rows = [
        f'<tr><td class="name">{escape(program(one.comm, one.argv) or timeline_chart.UNKNOWN_WRITER)}</td>'
        f'<td class="left"><code>{escape(one.argv[:160])}</code></td>'
        f"<td>{one.gaps:,}</td><td>{wording.duration(one.gap_ms)}</td></tr>"
        for one in agent.writers
    ]
    return "<h3>Who opened the gaps</h3>" + _table(("writer", "", "gaps", "in all"), rows)


def _losses(losses: Sequence[ExplainedLoss], begin: int) -> str:
    if not losses:
        return ""
    worst = sorted(losses, key=lambda one: -one.dead_for)[:_MOST_LOSSES]
    rows = []
    for one in worst:
        loss = one.loss
        fate = "–"
        if one.recovery is not None:
            fate = "answered after all" if one.recovery.recovered else "never answered"
        flow = f"{loss.kind} {loss.src}:{loss.sport} → {loss.dst}:{loss.dport}"
        rows.append(
            f'<tr><td class="left"><code>{escape(flow)}</code></td>'
            + _cell(wording.since(loss.t, begin))
            + f'<td class="left">{escape(one.cause.replace("_", " "))}</td>'
            + _cell(wording.duration(one.dead_for / 1e6))
            + _cell(fate)
            + f'<td class="left">{escape(loss.detail[:80])}</td></tr>'
        )
    head = ("flow", "sent at", "cause", "dead for", "in the end", "")
    title = f"The worst {len(rows)} of {wording.plural(len(losses), 'loss').replace('losss', 'losses')}"
    return f"<details><summary>{title}</summary>{_table(head, rows)}</details>"


def _facts(agent: AgentVerdict, leaks: str) -> str:
    pods = agent.pod_to_pod
    facts = [
        ("baseline", f"{wording.of(agent.baseline.lost, agent.baseline.attempted)} lost"),
        ("after the last restart", f"{wording.of(agent.recovery.lost, agent.recovery.attempted)} lost"),
        (
            "by family",
            ", ".join(f"{name} {wording.of(one.lost, one.attempted)}" for name, one in agent.families.items()),
        ),
        ("by kind", ", ".join(f"{name} {wording.of(one.lost, one.attempted)}" for name, one in agent.kinds.items())),
        ("pod to pod", f"{wording.of(pods.lost, pods.attempted)} lost" if pods.attempted else ""),
        ("leaked", leaks),
        ("answered after a retry", f"{agent.delayed:,}" if agent.delayed else ""),
        (
            "control",
            f"{wording.of(agent.control.lost, agent.control.attempted)} lost" if agent.control.attempted else "",
        ),
        ("ready again after at most", wording.duration(agent.time_to_ready_ms) if agent.rounds else ""),
        ("rule changes seen", f"{agent.rule_changes:,}"),
        ("prober at most late by", wording.duration(agent.prober_lag_ms)),
        ("slowest 1 % of answers", wording.duration(agent.latency_p99_ms)),
    ]
    return _line(facts)


def _leaks(agent: AgentVerdict, written: int) -> str:
    """Leaked packets and their flows; ``written``: how many have an event, of the others there is only the count."""
    if not agent.leaks_known:
        return "not known: no far end of the drill's own could see it"
    if not agent.leaked or not agent.leaked_flows:
        return ""
    retries = f", {written - agent.leaked_flows:,} of them retries" if written > agent.leaked_flows else ""
    if written == agent.leaked:
        return f"{written:,} packets of {wording.plural(agent.leaked_flows, 'flow')}{retries}"
    of_first = f"of the first {written:,}: {wording.plural(agent.leaked_flows, 'flow')}{retries}"
    return f"{agent.leaked:,} packets; {of_first}"


def _line(facts: Iterable[tuple[str, str]]) -> str:
    items = " · ".join(f"{escape(key)} <b>{escape(text)}</b>" for key, text in facts if text)
    return f'<p class="facts">{items}</p>'


def _pictures(record: Record, several: bool) -> str:
    if not record.attempts:
        return ""
    title = f"Timeline on {record.node}" if several else "Timeline"
    text = f"<h3>{escape(title)}</h3>{_picture(timeline_chart.timeline(record))}"
    if record.pods is not None and record.pods.attempts:
        drawn = timeline_chart.timeline(record.pods, rules=False)
        text += f"<h3>{escape(title)}, pod to pod</h3>{_picture(drawn)}"
    outages = record.outages
    if outages:
        longest: Outage = max(outages, key=lambda one: one.length)
        length = wording.duration(longest.length / 1e6)
        why = f": {escape(longest.reason)}" if longest.reason else ""
        text += f"<h3>The longest gap close up ({length}, {longest.family}{why})</h3>"
        text += _picture(timeline_chart.closeup(record, longest))
    return text


def _picture(svg: str) -> str:
    return f'<div class="scroll pic">{svg}</div>'


def _agent(recorded: RecordedDrill, agent: AgentVerdict) -> str:
    records = [record for record in recorded.records if record.agent == agent.agent]
    begin = min((record.first for record in records if record.first), default=0)
    several = len(records) > 1
    losses = [one for record in records for part in (record, record.pods) if part for one in explain(part)]
    notes = [note for record in records for note in record.notes if note.level != "info"]
    parts = [
        f"<section><h2>{escape(agent.name)}{_badge(agent.verdict)}</h2>",
        f"<ul>{_items(agent.reasons, _MOST_REASONS)}</ul>",
        _facts(agent, _leaks(agent, sum(written_leaks(record) for record in records))),
        *(_pictures(record, several) for record in records[:_MOST_NODES]),
        f'<p class="facts">Pictures of the first {_MOST_NODES} nodes.</p>' if len(records) > _MOST_NODES else "",
        _writers(agent),
        _rounds(agent) if agent.per_round else "",
        _losses(losses, begin),
    ]
    if notes:
        items = _items([f"{wording.since(note.t, begin)}: {note.text}" for note in notes], _MOST_NOTES)
        parts.append(f"<details><summary>Notes ({len(notes)})</summary><ul>{items}</ul></details>")
    return "".join(parts) + "</section>"


def _items(texts: Sequence[str], most: int) -> str:
    """List items; the last one says how many are left out."""
    left = len(texts) - most
    more = f"<li>and {left:,} more (hitless report --format json)</li>" if left > 0 else ""
    return "".join(f"<li>{escape(text)}</li>" for text in texts[:most]) + more


def _record(recorded: RecordedDrill, verdict: Verdict) -> str:
    rows = [
        f'<tr><td class="name">{escape(name)}</td><td class="left"><code>{escape(text)}</code></td></tr>'
        for name, text in (*provenance.facts(recorded), ("cite", provenance.cite(recorded, verdict)))
    ]
    return f'<section><h2>Record</h2><div class="record"><table>{"".join(rows)}</table></div></section>'


def render(recorded: RecordedDrill, verdict: Verdict) -> str:
    """The page's HTML."""
    recorded, verdict = cleaned((recorded, verdict))
    begin = min((record.first for record in recorded.records if record.first), default=0)
    end = max((record.last for record in recorded.records), default=0)
    facts = wording.shown_settings(recorded.settings.texts)
    facts += [("from", wording.moment(begin)), ("for", wording.duration((end - begin) / 1e6))] if begin else []
    warnings = [] if verdict.whole else ["The log is cut off: this page covers what it has."]
    warnings += verdict.notes
    body = [
        f'<header class="{verdict.verdict}"><h1>{wording.SIGNS[verdict.verdict]} {escape(verdict.headline)}</h1>',
        f"<p>{escape(wording.headline(verdict))}</p></header>",
        *(f'<p class="warn">{escape(text)}</p>' for text in warnings),
        f"<section><h2>Side by side</h2>{_comparison(verdict.agents)}",
        *(f'<p class="facts">{escape(text)}</p>' for text in [wording.stand_ins(verdict)] if text),
        f"{_line(facts)}</section>",
        *(_agent(recorded, agent) for agent in verdict.agents),
        _record(recorded, verdict),
        f"<footer>{_FOOTER} Recorded by hitless {escape(recorded.settings.version)}.</footer>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(verdict.headline)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
