"""The terminal: one table that tells the story, a strip of time for each agent, and the reasons.

Problem: an operator looks for ten seconds. Promise: the headline first, then the agents side by side in the order of
the drill, what the pods felt in red; narrow terminals get fewer columns, pipes get no colours.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from hitless.evidence.records import Record, Story
from hitless.evidence.reports import words
from hitless.evidence.verdict import AgentVerdict, Verdict

__all__ = ["render", "text"]

_STYLES = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow"}
_BARS = "▁▂▃▄▅▆▇█"
_NARROW = 108
"""Below this width the table leaves out what the reasons say too."""


def text(told: Story, verdict: Verdict, *, width: int = 120) -> str:
    """The report as plain text."""
    console = Console(width=width, no_color=True, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(render(told, verdict, width=width))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def render(told: Story, verdict: Verdict, *, width: int) -> RenderableType:
    """The report for a rich console of this width."""
    parts: list[RenderableType] = [_title(verdict), Text(words.headline(verdict)), Text("")]
    parts.append(_table(verdict.agents, wide=width >= _NARROW))
    parts += [_strips(told, width), Text("")]
    for agent in verdict.agents:
        parts.append(_reasons(agent))
    for note in verdict.notes:
        parts.append(Text(f"note: {note}", style="yellow"))
    if not verdict.whole:
        parts.append(Text("The log is cut off: this is made from what is whole.", style="yellow"))
    return Group(*parts)


def _title(verdict: Verdict) -> Text:
    line = Text(f"{words.SIGNS[verdict.verdict]} {verdict.verdict.upper()}", style=_STYLES[verdict.verdict])
    return line.append(f"  judged: {verdict.judge or 'nobody'}", style="default")


def _number(value: int, *, bad: bool = True) -> Text:
    return Text(f"{value:,}", style="red" if value and bad else "")


def _table(agents: Sequence[AgentVerdict], *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("agent", no_wrap=True, style="bold")
    for name in ("restarts", "gaps", "longest", *(["in all"] if wide else []), "lost", "of", "leaked", "poisoned"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ["dead for", "streams"] if wide else []:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for one in agents:
        red = "red" if one.gaps else ""
        cells = [Text(one.agent), Text(f"{one.restarts:,}"), _number(one.gaps), Text(words.longest(one), style=red)]
        if wide:
            cells.append(Text(words.duration(one.gap_ms) if one.gaps else "–", style=red))
        cells += [_number(one.lost), Text(f"{one.attempted:,}"), _number(one.leaked), _number(one.poisoned)]
        if wide:
            cells.append(Text(words.recovery(one), style="red" if one.poisoned else ""))
            cells.append(Text(f"{one.broken_streams:,} broken" if one.broken_streams else "0", style=""))
        cells.append(Text(f"{words.SIGNS[one.verdict]} {one.verdict}", style=_STYLES[one.verdict]))
        table.add_row(*cells)
    return table


def _strips(told: Story, width: int) -> Table:
    """For each agent and node: when it was restarted, and which share of the attempts of that time was lost."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    order = {agent: place for place, agent in enumerate(told.agents)}
    records = sorted((one for one in told.records if one.attempts), key=lambda one: (order[one.agent], one.node))
    several = len({record.node for record in records if record.agent == records[0].agent}) > 1 if records else False
    room = max(20, min(80, width - 30))
    for record in records[:12]:
        name = f"{record.agent} {record.node}" if several else record.agent
        table.add_row(Text(name), _strip(record, room))
    if records:
        legend = Text("R", style="bold cyan").append(" restart  ", style="default")
        legend.append("▁▄█", style="red").append(" share lost  ", style="default")
        legend.append("┄", style="green").append(" nothing lost   each strip: the whole drill", style="default")
        table.add_row(Text(""), legend)
    return table


def _strip(record: Record, room: int) -> Text:
    begin = record.attempts[0].t
    end = max(one.t + one.interval_ns for one in record.attempts)
    # A cell holds whole intervals: else some cells would look empty.
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
    title = Text(f"{words.SIGNS[agent.verdict]} {agent.agent}", style=_STYLES[agent.verdict])
    lines: list[RenderableType] = [Padding(Text(f"· {reason}"), (0, 0, 0, 2)) for reason in agent.reasons[:8]]
    if len(agent.reasons) > 8:
        lines.append(Padding(Text(f"… and {len(agent.reasons) - 8} more (--json)"), (0, 0, 0, 2)))
    return Group(title, *lines)
