"""One HTML file that holds everything: no network, no script, no other file.

Problem: the report is read a month later, on another machine, from an attachment. Promise: rendered from the log alone;
every picture is inlined, every text from the log is escaped; the first screen says who lost what. Without matplotlib
the pictures are left out and the page says how to get them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from hitless.cleaning import cleaned
from hitless.evidence import citing
from hitless.evidence.losses import Explained, explain
from hitless.evidence.records import Outage, Record, Story, program
from hitless.evidence.reports import picture, words
from hitless.evidence.verdict import AgentVerdict, Verdict

__all__ = ["render", "scoped"]

_MOST_LOSSES = 25
_MOST_NODES = 12
_IF_ANY = (("lost outside", "lost_outside"), ("not sent", "skipped"), ("undecided", "undecided"))
"""Columns, and their figures, that are there only when one of the agents has something in them."""

_STYLE = """
:root { --pass: #2b8a3e; --fail: #c92a2a; --inconclusive: #b26a00; --ink: #212529; --faint: #868e96; --line: #dee2e6; }
* { box-sizing: border-box; }
body { margin: 0; background: #f1f3f5; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px; }
header { border-radius: 10px; color: #fff; padding: 22px 28px; }
header.pass { background: var(--pass); } header.fail { background: var(--fail); }
header.inconclusive { background: var(--inconclusive); }
header h1 { margin: 0; font-size: 30px; letter-spacing: .02em; }
header p { margin: 6px 0 0; font-size: 17px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 18px 24px; margin-top: 18px; }
h2 { margin: 0 0 6px; font-size: 21px; } h3 { margin: 20px 0 6px; font-size: 15px; color: #495057; }
.badge { border-radius: 99px; color: #fff; padding: 2px 12px; font-size: 13px; font-weight: 600; vertical-align: 3px;
  margin-left: 8px; white-space: nowrap; }
.badge.pass { background: var(--pass); } .badge.fail { background: var(--fail); }
.badge.inconclusive { background: var(--inconclusive); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { white-space: nowrap; } td.left { white-space: normal; }
th { text-align: right; font-weight: 600; color: var(--faint); font-size: 13px; padding: 4px 10px; }
td { text-align: right; border-top: 1px solid var(--line); padding: 7px 10px; }
th:first-child, td:first-child, .left { text-align: left; }
td.bad { color: var(--fail); font-weight: 700; } td.name { font-weight: 600; }
.scroll { overflow-x: auto; }
ul { margin: 6px 0; padding-left: 20px; }
.facts { color: var(--faint); font-size: 13.5px; margin: 8px 0 0; }
.facts b { color: var(--ink); font-weight: 600; }
.warn { background: #fff3bf; border: 1px solid #ffe066; border-radius: 8px; padding: 10px 16px; margin-top: 18px; }
svg { width: 100%; height: auto; display: block; margin: 4px 0; }
details { margin-top: 10px; } summary { cursor: pointer; color: #1971c2; }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
footer { color: var(--faint); font-size: 13px; margin: 18px 6px; }
"""


_FOOTER = (
    "A <b>gap</b> is a time in which the rules, as the kernel committed them, did not carry the egress path. A "
    "<b>poisoned</b> flow was bound without NAT in a gap and stayed dead after the rules were back. A <b>leak</b> is a "
    "packet that left the node with a pod's address. Rendered from the event log alone (<code>hitless report</code>)."
)


def _badge(word: str) -> str:
    return f'<span class="badge {word}">{words.SIGNS[word]} {word}</span>'


def _cell(text: str, *, bad: bool = False) -> str:
    return f'<td class="bad">{escape(text)}</td>' if bad else f"<td>{escape(text)}</td>"


def _table(head: Sequence[str], rows: Iterable[str]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<div class="scroll"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _comparison(agents: Sequence[AgentVerdict]) -> str:
    head = [
        "agent",
        "restarts",
        "gaps",
        "longest",
        "in all",
        *(["bridged by a guard"] if any(one.standby for one in agents) else []),
        "lost",
        "of",
        *(name for name, key in _IF_ANY if any(getattr(one, key) for one in agents)),
        "leaked",
        "poisoned",
        "dead for",
        "streams broken",
        "verdict",
    ]
    rows = []
    for one in agents:
        gaps = bool(one.gaps)
        rows.append(
            f'<tr><td class="name">{escape(one.name)}</td>'
            + _cell(f"{one.restarts:,}")
            + _cell(f"{one.gaps:,}", bad=gaps)
            + _cell(words.longest(one), bad=gaps)
            + _cell(words.duration(one.gap_ms) if gaps else "–", bad=gaps)
            + (_cell(words.bridged(one)) if any(other.standby for other in agents) else "")
            + _cell(f"{one.lost:,}", bad=bool(one.lost))
            + _cell(f"{one.attempted:,}")
            + "".join(
                _cell(f"{getattr(one, key):,}", bad=bool(getattr(one, key)))
                for _, key in _IF_ANY
                if any(getattr(other, key) for other in agents)
            )
            + _cell(f"{one.leaked:,}", bad=bool(one.leaked))
            + _cell(f"{one.poisoned:,}", bad=bool(one.poisoned))
            + _cell(words.recovery(one), bad=bool(one.poisoned))
            + _cell(f"{one.broken_streams:,}", bad=bool(one.broken_streams))
            + f"<td>{_badge(one.verdict)}</td></tr>"
        )
    return _table(head, rows)


def _rounds(agent: AgentVerdict) -> str:
    several = len(agent.nodes) > 1
    head = (
        *(("node",) if several else ()),
        "round",
        "attempted",
        "lost",
        "gaps",
        "gap time",
        "ready again after",
        "sign of the restart",
    )
    rows = []
    for one in agent.per_round:
        ready = "never" if one.ready_ms is None else words.duration(one.ready_ms)
        first = f'<td class="name">{escape(one.node)}</td>' if several else ""
        rows.append(
            f"<tr>{first}<td>{one.round}</td>"
            + _cell(f"{one.attempted:,}")
            + _cell(f"{one.lost:,}", bad=bool(one.lost))
            + _cell(f"{one.gaps:,}", bad=bool(one.gaps))
            + _cell(words.duration(one.gap_ms) if one.gaps else "–", bad=bool(one.gaps))
            + _cell(ready, bad=one.ready_ms is None)
            + f'<td class="left">{escape(one.evidence or "–")}</td>'
            + "</tr>"
        )
    opened = " open" if len(rows) <= 6 else ""
    return f"<details{opened}><summary>Round by round</summary>{_table(head, rows)}</details>"


def _writers(agent: AgentVerdict) -> str:
    if not agent.writers:
        return ""
    rows = [
        f'<tr><td class="name">{escape(program(one.comm, one.argv) or "unknown")}</td>'
        f'<td class="left"><code>{escape(one.argv[:160])}</code></td>'
        f"<td>{one.gaps:,}</td><td>{words.duration(one.gap_ms)}</td></tr>"
        for one in agent.writers
    ]
    return "<h3>Who opened the gaps</h3>" + _table(("writer", "", "gaps", "in all"), rows)


def _losses(losses: Sequence[Explained], begin: int) -> str:
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
            + _cell(words.since(loss.t, begin))
            + f'<td class="left">{escape(one.cause.replace("_", " "))}</td>'
            + _cell(words.duration(one.dead_for / 1e6))
            + _cell(fate)
            + f'<td class="left">{escape(loss.detail[:80])}</td></tr>'
        )
    head = ("flow", "sent at", "cause", "dead for", "in the end", "")
    title = f"The worst {len(rows)} of {words.plural(len(losses), 'loss').replace('losss', 'losses')}"
    return f"<details><summary>{title}</summary>{_table(head, rows)}</details>"


def _facts(agent: AgentVerdict) -> str:
    facts = [
        ("baseline", f"{words.of(agent.baseline.lost, agent.baseline.attempted)} lost"),
        ("after the last restart", f"{words.of(agent.recovery.lost, agent.recovery.attempted)} lost"),
        ("by family", ", ".join(f"{name} {words.of(one.lost, one.attempted)}" for name, one in agent.families.items())),
        ("by kind", ", ".join(f"{name} {words.of(one.lost, one.attempted)}" for name, one in agent.kinds.items())),
        ("answered after a retry", f"{agent.delayed:,}" if agent.delayed else ""),
        ("control", f"{words.of(agent.control.lost, agent.control.attempted)} lost" if agent.control.attempted else ""),
        ("ready again after at most", words.duration(agent.time_to_ready_ms) if agent.rounds else ""),
        ("rule changes seen", f"{agent.rule_changes:,}"),
        ("prober at most late by", words.duration(agent.prober_lag_ms)),
        ("slowest 1 % of answers", words.duration(agent.latency_p99_ms)),
    ]
    return _line(facts)


def _line(facts: Iterable[tuple[str, str]]) -> str:
    items = " · ".join(f"{escape(key)} <b>{escape(text)}</b>" for key, text in facts if text)
    return f'<p class="facts">{items}</p>'


def _pictures(record: Record, several: bool, scope: str) -> str:
    if not picture.available() or not record.attempts:
        return ""
    title = f"Timeline on {record.node}" if several else "Timeline"
    text = f"<h3>{escape(title)}</h3>{scoped(picture.timeline(record), scope)}"
    outages = record.outages
    if outages:
        longest: Outage = max(outages, key=lambda one: one.length)
        length = words.duration(longest.length / 1e6)
        why = f": {escape(longest.reason)}" if longest.reason else ""
        text += f"<h3>The longest gap close up ({length}, {longest.family}{why})</h3>"
        text += scoped(picture.closeup(record, longest), f"{scope}-gap")
    return text


def scoped(svg: str, scope: str) -> str:
    """Ids are made unique in the page, else two pictures would take each other's clip paths; and numbered in their
    order, because matplotlib makes them from addresses in memory."""
    names = {name: f"{scope}-{place}" for place, name in enumerate(re.findall(r'\bid="([^"]+)"', svg))}
    reference = re.compile(r'(\bid="|href="#|url\(#)([^")]+)')
    return reference.sub(lambda found: found[1] + names.get(found[2], found[2]), svg)


def _agent(told: Story, agent: AgentVerdict, place: int) -> str:
    records = [record for record in told.records if record.agent == agent.agent]
    begin = min((record.first for record in records if record.first), default=0)
    several = len(records) > 1
    losses = [one for record in records for one in explain(record)]
    notes = [note for record in records for note in record.notes if note.level != "info"]
    parts = [
        f"<section><h2>{escape(agent.name)}{_badge(agent.verdict)}</h2>",
        "<ul>" + "".join(f"<li>{escape(reason)}</li>" for reason in agent.reasons[:20]) + "</ul>",
        _facts(agent),
        *(_pictures(record, several, f"a{place}-{number}") for number, record in enumerate(records[:_MOST_NODES])),
        f'<p class="facts">Pictures of the first {_MOST_NODES} nodes.</p>' if len(records) > _MOST_NODES else "",
        _writers(agent),
        _rounds(agent) if agent.per_round else "",
        _losses(losses, begin),
    ]
    if notes:
        items = "".join(f"<li>{words.since(note.t, begin)}: {escape(note.text)}</li>" for note in notes[:50])
        parts.append(f"<details><summary>Notes ({len(notes)})</summary><ul>{items}</ul></details>")
    return "".join(parts) + "</section>"


def _record(told: Story, verdict: Verdict) -> str:
    rows = [
        f'<tr><td class="name">{escape(name)}</td><td class="left"><code>{escape(text)}</code></td></tr>'
        for name, text in (*citing.facts(told), ("cite", citing.cite(told, verdict)))
    ]
    return f'<section><h2>Record</h2><div class="scroll"><table>{"".join(rows)}</table></div></section>'


def render(told: Story, verdict: Verdict) -> str:
    """The page as text."""
    told, verdict = cleaned((told, verdict))
    begin = min((record.first for record in told.records if record.first), default=0)
    end = max((record.last for record in told.records), default=0)
    facts = [(key, text) for key, text in words.setting_words(told.settings.words)]
    facts += [("from", words.moment(begin)), ("for", words.duration((end - begin) / 1e6))] if begin else []
    warnings = [] if verdict.whole else ["The log is cut off: this page is made from what is whole."]
    warnings += verdict.notes
    if not picture.available():
        warnings.append("The pictures are missing: install the extra, pip install 'hitless[report]', and render again.")
    body = [
        f'<header class="{verdict.verdict}"><h1>{words.SIGNS[verdict.verdict]} {escape(verdict.headline)}</h1>',
        f"<p>{escape(words.headline(verdict))}</p></header>",
        *(f'<p class="warn">{escape(text)}</p>' for text in warnings),
        f"<section><h2>Side by side</h2>{_comparison(verdict.agents)}",
        *(f'<p class="facts">{escape(text)}</p>' for text in [words.stand_ins(verdict)] if text),
        f"{_line(facts)}</section>",
        *(_agent(told, agent, place) for place, agent in enumerate(verdict.agents)),
        _record(told, verdict),
        f"<footer>{_FOOTER} Recorded by hitless {escape(told.settings.version)}.</footer>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(verdict.headline)}</title><style>{_STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
