"""The report for terminals: headline, one table of all agents, a timeline for each, and the reasons.

Problem: an operator has ten seconds. Promise: the headline first, then the agents in the order of the drill, failures
in red; narrow terminals get fewer columns, pipes get no colours.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hitless.cleaning import cleaned
from hitless.evidence import display_names, provenance
from hitless.evidence.records import Record, RecordedDrill
from hitless.evidence.reports import wording
from hitless.evidence.verdict import AgentVerdict, Verdict

__all__ = ["render", "text"]

_STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}
_BARS = "▁▂▃▄▅▆▇█"
_LEFT_OUT = ("streams", "restarts", "in all", "dead for", "poisoned", "leaked", "longest")
"""Columns that narrow terminals leave out, in this order: the reasons have the same figures."""
_IF_ANY = ("bridged", "lost outside", "not sent", "undecided")
"""Columns that are shown only if one of the agents has a figure in them."""
_GAP = 2
_NAME = 12
_LONGEST_NAME = 32
"""Width of an agent's name, at least and at most; the names of hitless's own agents fit into the former."""


def text(recorded: RecordedDrill, verdict: Verdict, *, width: int = 120) -> str:
    """The report as plain text."""
    console = Console(width=width, no_color=True, highlight=False, emoji=False, markup=False)
    with console.capture() as capture:
        console.print(render(recorded, verdict, width=width))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def render(recorded: RecordedDrill, verdict: Verdict, *, width: int) -> RenderableType:
    """The report for a rich console of this width."""
    recorded, verdict = cleaned((recorded, verdict))
    parts: list[RenderableType] = [_title(verdict), Text(wording.headline(verdict)), Text("")]
    table, hidden = _table(verdict.agents, width)
    parts.append(table)
    if hidden:
        parts.append(Text(f"no room for: {', '.join(hidden)} (a wider terminal, or --json)", style="dim"))
    if stand_ins := wording.stand_ins(verdict):
        parts.append(Text(stand_ins, style="dim"))
    parts += [Text(""), _strips(recorded, width), Text("")]
    for agent in verdict.agents:
        parts.append(_reasons(agent))
    for note in verdict.notes:
        parts.append(Text(f"note: {note}", style="yellow"))
    if not verdict.whole:
        parts.append(Text("The log is cut off: this report covers what it has.", style="yellow"))
    return Group(*parts, Text(""), _record(recorded, verdict))


def _record(recorded: RecordedDrill, verdict: Verdict) -> Table:
    """Where, when and with which versions; last the line to cite."""
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(no_wrap=True, style="dim")
    lines.add_column(overflow="fold")
    for name, text in provenance.facts(recorded):
        lines.add_row(name, Text(text))
    lines.add_row("cite", Text(provenance.cite(recorded, verdict)))
    return lines


def _title(verdict: Verdict) -> Text:
    value, _, rest = verdict.headline.partition(" ")
    line = Text(f"{wording.SIGNS[verdict.verdict]} {value}", style=_STYLES[verdict.verdict])
    return line.append(f" {rest}", style="default")


def _number(value: int, *, bad: bool = True) -> Text:
    return Text(f"{value:,}", style="red" if value and bad else "")


def _table(agents: Sequence[AgentVerdict], width: int) -> tuple[Table, list[str]]:
    """The table, and the columns that did not fit."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    rows = [_cells(one) for one in agents]
    if any(one.pod_to_pod.attempted for one in agents):
        rows = [_both_ways(row, one) for row, one in zip(rows, agents, strict=True)]
    for name in [name for name in _IF_ANY if all(row[name].plain in ("0", "–") for row in rows)]:
        for row in rows:
            del row[name]
    shown = _fitting(rows, width)
    # long names are folded, so that the figures have room for their digits
    room = min(_LONGEST_NAME, max(_NAME, width - sum(shown.values()) - _GAP))
    table.add_column("agent", overflow="fold", style="bold", min_width=_NAME, max_width=_LONGEST_NAME)
    for name in shown:
        table.add_column(name, justify="left" if name == "verdict" else "right", no_wrap=True)
    for one, cells in zip(agents, rows, strict=True):
        table.add_row(Text(fold(one.name, room)), *(cells[name] for name in shown))
    return table, [name for name in (rows[0] if rows else ()) if name not in shown]


def _both_ways(cells: dict[str, Text], one: AgentVerdict) -> dict[str, Text]:
    """The losses of egress and between pods, side by side, in place of the one column."""
    columns: dict[str, Text] = {}
    for name, cell in cells.items():
        if name == "lost":
            columns["egress lost"] = _lost(one.lost, one.attempted)
            columns["pod-to-pod lost"] = _lost(one.pod_to_pod.lost, one.pod_to_pod.attempted)
        elif name != "of":
            columns[name] = cell
    return columns


def _lost(lost: int, attempted: int) -> Text:
    return Text(wording.of(lost, attempted), style="red" if lost else "")


def fold(name: str, width: int) -> str:
    """A name in lines of at most ``width``, broken at spaces where possible, else after punctuation."""
    lines, line = [], ""
    for piece in re.findall(r"[^ ]+ ?", name):
        if len((line + piece).rstrip()) > width and line:
            lines.append(line)
            line = ""
        while len(piece.rstrip()) > width:
            ends = [found.end() for found in re.finditer(r"[-+_./:@]", piece[:width])]
            at = max((end for end in ends if end > width // 3), default=width)
            lines.append(piece[:at])
            piece = piece[at:]
        line += piece
    return "\n".join(one.rstrip() for one in (*lines, line))


def _fitting(rows: Sequence[dict[str, Text]], width: int) -> dict[str, int]:
    """The columns that fit, with their widths."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) + _GAP for name in (rows[0] if rows else ())}
    for name in _LEFT_OUT:
        if _NAME + sum(widths.values()) <= width:
            break
        widths.pop(name, None)
    return widths


def _cells(one: AgentVerdict) -> dict[str, Text]:
    """An agent's figures by the names of their columns."""
    red = "red" if one.gaps else ""
    return {
        "restarts": Text(f"{one.restarts:,}"),
        "gaps": _number(one.gaps),
        "longest": Text(wording.longest(one), style=red),
        "in all": Text(wording.duration(one.gap_ms) if one.gaps else "–", style=red),
        "bridged": Text(wording.bridged(one)),
        "lost": _number(one.lost),
        "of": Text(f"{one.attempted:,}"),
        "lost outside": _number(one.lost_outside),
        "not sent": Text(f"{one.skipped:,}", style="yellow" if one.skipped else ""),
        "undecided": Text(f"{one.undecided:,}", style="yellow" if one.undecided else ""),
        "leaked": Text(wording.leaked(one), style="red" if one.leaked else ""),
        "poisoned": _number(one.poisoned),
        "dead for": Text(wording.recovery(one), style="red" if one.poisoned else ""),
        "streams": Text(f"{one.broken_streams:,} broken" if one.broken_streams else "0"),
        "verdict": Text(f"{wording.SIGNS[one.verdict]} {one.verdict}", style=_STYLES[one.verdict]),
    }


def _strips(recorded: RecordedDrill, width: int) -> Table:
    """A timeline for each agent and node: its restarts, and the share of attempts that was lost."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(overflow="fold", max_width=_LONGEST_NAME)
    table.add_column(no_wrap=True)
    order = {agent: place for place, agent in enumerate(recorded.agents)}
    records = sorted((one for one in recorded.records if one.attempts), key=lambda one: (order[one.agent], one.node))
    several = len({record.node for record in records if record.agent == records[0].agent}) > 1 if records else False
    several = several or recorded.settings.target == "cluster"  # there, the name of a single node matters too
    shown = {agent: display_names.display(recorded.settings, agent) for agent in recorded.agents}
    strips: list[tuple[str, Record]] = []
    for one in records[:12]:
        title = f"{shown[one.agent]} {one.node}" if several else shown[one.agent]
        strips.append((title, one))
        if one.pods is not None and one.pods.attempts:
            strips.append(("  pod to pod", one.pods))
    titles = [title for title, _ in strips]
    longest = min(_LONGEST_NAME, max(map(len, titles), default=0))
    room = max(20, min(80, width - longest - 3))
    for title, record in strips:
        table.add_row(Text(fold(title, _LONGEST_NAME)), _strip(record, room))
    if records:
        legend = Text("R", style="bold cyan").append(" restart  ", style="default")
        legend.append("▁▄█", style="red").append(" share lost  ", style="default")
        legend.append("┄", style="green").append(" nothing lost", style="default")
        legend.append("   each strip: the whole drill" if room >= 72 else "", style="default")
        table.add_row(Text(""), legend)
    return table


def _strip(record: Record, room: int) -> Text:
    begin = record.attempts[0].t
    end = max(one.t + one.interval_ns for one in record.attempts)
    # a cell has a whole number of intervals: otherwise some cells would look empty
    interval = max(one.interval_ns for one in record.attempts)
    step = interval * max(1, -(-(end - begin) // (room * interval)))
    room = -(-(end - begin) // step)
    sent, lost = [0] * room, [0] * room
    for one in record.attempts:
        cell = min(room - 1, (one.t - begin) // step)
        sent[cell] += one.sent
        lost[cell] += one.lost
    restarts = {(span.begin - begin) // step for span in record.spans}
    line = Text()
    for cell in range(room):
        if cell in restarts:
            line.append("R", style="bold red" if lost[cell] else "bold cyan")
        elif lost[cell]:
            share = lost[cell] / max(1, sent[cell])
            line.append(_BARS[min(len(_BARS) - 1, int(share * len(_BARS)))], style="bold red")
        elif sent[cell]:
            line.append("┄", style="green")
        else:
            line.append(" ")
    return line


def _reasons(agent: AgentVerdict) -> RenderableType:
    title = Text(f"{wording.SIGNS[agent.verdict]} {agent.name}", style=_STYLES[agent.verdict])
    lines = Table.grid(padding=(0, 1, 0, 0))
    lines.add_column(width=3, justify="right")
    lines.add_column()
    for reason in agent.reasons[:8]:
        lines.add_row("·", Text(reason))
    if len(agent.reasons) > 8:
        lines.add_row("…", Text(f"and {len(agent.reasons) - 8} more (--json)"))
    return Group(title, lines)
