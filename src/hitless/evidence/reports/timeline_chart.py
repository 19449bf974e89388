"""The timeline of a drill as a chart: restarts, rules, traffic and dead flows over one time axis; and a gap enlarged.

Problem: a gap of 50 ms in a drill of 30 s is two pixels wide, and is what readers look for. Promise: everything that
happened is visible (gaps have a minimum width in the timeline; the enlarged gap is to scale), and nothing is smoothed.
Charts are SVG text (``charts``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hitless.evidence.losses import ExplainedLoss, explain
from hitless.evidence.records import LONGEST_COMM, Outage, Record, program
from hitless.evidence.reports.charts import FAINT, INK, ChartPanel, draw, rounded
from hitless.evidence.reports.wording import duration
from hitless.model import events as e

__all__ = ["CAUSES", "UNKNOWN_WRITER", "closeup", "timeline"]

CARRIED, GAP, UNKNOWN, BLUE = "#2f9e44", "#e03131", "#adb5bd", "#1971c2"
CAUSES = {
    "gap": "#e03131",
    "poisoned": "#9c36b5",
    "timeout": "#f08c00",
    "refused": "#f76707",
    "unreachable": "#e8590c",
    "far_end_down": "#868e96",
    "far_end_full": "#868e96",
    "starved": "#868e96",
    "error": "#868e96",
}
_WRITERS = ("#1971c2", "#e8590c", "#5f3dc4", "#a61e4d", "#5c940d")
_STATES = {"carried": CARRIED, "not_carried": GAP, "cannot_tell": UNKNOWN}
UNKNOWN_WRITER = "unknown writer"
_MOST_FLOWS = 400
_MOST_NUMBERS = 12
"""How many round numbers fit beside each other."""
_MOST_MARKS = 600
_LEAST_WIDTH = 0.0025
"""A gap's minimum width as a share of the chart's width: about two pixels."""


def plain(text: str) -> str:
    """A name from the log, cut for a legend; the page has the whole text."""
    return "".join(one if one.isprintable() else "?" for one in text[:24])


def _phases(panel: ChartPanel, record: Record, begin: int, end: int) -> None:
    phases = [phase for phase in record.phases if phase.phase != "end"]
    ends = [*(phase.t for phase in phases[1:]), end][: len(phases)]
    rounds = sum(phase.phase == "round" for phase in phases)
    every = next(
        step for step in (1, 2, 5, 10, 20, 50, 100, rounds + 1) if rounds <= step * _MOST_NUMBERS or step > 100
    )
    texts: list[tuple[float, str, str]] = []
    for phase, until in zip(phases, ends, strict=True):
        left, right = (phase.t - begin) / 1e9, (until - begin) / 1e9
        shade = "#d0ebff" if phase.phase == "round" and phase.round % 2 else FAINT
        panel.bars([(left, right)], shade, 0.05, 0.95)
        if phase.phase != "round" or phase.round % every == 0:
            name = str(phase.round) if phase.phase == "round" else phase.phase
            texts.append(((left + right) / 2, name, shade))
    for label, colour, steps in (("stopped", BLUE, ("stop", "killed")), ("ready", CARRIED, ("ready",))):
        mine = [step for step in record.restarts if step.step in steps and record.measured.holds(step.t)]
        panel.lines([(step.t - begin) / 1e9 for step in mine], colour, 0.05, 0.95, 2)
        if record.spans:
            panel.legend(label, colour, "bar")
    for place, name, shade in texts:  # drawn last, so that no mark covers a number
        panel.text(place, name, shade)


def _rules(panel: ChartPanel, record: Record, family: str, begin: int, end: int, least: float) -> None:
    states = [one for one in record.states if one.family == family]
    bars = [(begin, end, UNKNOWN)] if not states else []
    for network in {one.network for one in states}:
        mine = [one for one in states if one.network == network]
        ends = [one.t for one in mine[1:]] + [end]
        bars += [(one.t, until, _STATES[one.state]) for one, until in zip(mine, ends, strict=True)]
    for colour in (UNKNOWN, CARRIED):
        spans = sorted(((first - begin) / 1e9, (last - begin) / 1e9) for first, last, its in bars if its == colour)
        panel.bars(spans, colour, 0.15, 0.85)
    gaps = [one for one in record.outages if one.family == family]
    for outage in gaps:
        span = ((outage.begin - begin) / 1e9, (outage.end - begin) / 1e9)
        panel.bars([span], GAP, 0, 1, f"gap of {duration(outage.length / 1e6)}", least)
    shown = {colour for *_, colour in bars} | ({GAP} if gaps else set())
    for label, colour in (("carried", CARRIED), ("gap", GAP), ("cannot tell", UNKNOWN)):
        if colour in shown:
            panel.legend(label, colour)


def _programs(changes: Sequence[e.Change]) -> dict[str, list[e.Change]]:
    """Changes by the program that made them.

    A name that the kernel cut stands for the only longer name in the record that begins with it: of programs that end
    at once, the command line could not be read.
    """
    named = [(program(by.comm, by.argv) if (by := one.writer) and by.comm else UNKNOWN_WRITER, one) for one in changes]
    whole = {name for name, _ in named if len(name) > LONGEST_COMM}
    found: dict[str, list[e.Change]] = {}
    for name, change in named:
        longer = [other for other in whole if len(name) == LONGEST_COMM and other.startswith(name)]
        found.setdefault(longer[0] if len(longer) == 1 else name, []).append(change)
    return dict(sorted(found.items()))


def _changes(panel: ChartPanel, changes: Sequence[e.Change], begin: int) -> None:
    """A mark for each change of the rules, in its program's colour; the legend has the counts."""
    for colour, (name, mine) in zip(_WRITERS, _programs(changes).items(), strict=False):
        panel.lines([(one.t - begin) / 1e9 for one in mine[:_MOST_MARKS]], colour, 0.25, 0.75, 1.2)
        panel.legend(f"{len(mine):,} × {plain(name)}", colour, "bar")


def _traffic(record: Record, begin: int, end: int) -> ChartPanel:
    count = max(1, min(240, round((end - begin) / 1e8)))
    step = (end - begin) / count
    sent, lost = [0.0] * count, [0.0] * count
    for one in record.attempts:
        # a cell is not a whole number of intervals: an interval's attempts are spread over the cells it overlaps
        first, last = (one.t - begin) / step, (one.t + max(1, one.interval_ns) - begin) / step
        for cell in range(max(0, int(first)), min(count, int(last) + 1)):
            share = (min(last, cell + 1) - max(first, cell)) / (last - first)
            sent[cell] += one.sent * share * 1e9 / step
            lost[cell] += one.lost * share * 1e9 / step
    most = max(*sent, 1.0)
    panel = ChartPanel("attempts\nper second", 150, 0.0, (end - begin) / 1e9, high=most * 1.12, band=False)
    panel.ticks = [(place, f"{place:g}") for place in rounded(0, most, 5)]
    edges = [cell * step / 1e9 for cell in range(count + 1)]
    panel.steps(sent, edges, "#b2dfbb")
    panel.steps(lost, edges, GAP)
    panel.legend("attempts", "#b2dfbb")
    panel.legend("lost", GAP)
    return panel


def _flows(losses: Sequence[ExplainedLoss], begin: int, end: int) -> ChartPanel:
    every = -(-len(losses) // _MOST_FLOWS)
    shown = losses[::every]
    some = "" if every == 1 else f"\n(1 of {every})"
    label = f"lost flows,\nfirst packet\nto end{some}"
    panel = ChartPanel(label, 130, 0.0, (end - begin) / 1e9, low=float(len(shown)), high=-1.0, band=False)
    for cause in dict.fromkeys(one.cause for one in shown):
        rows = [(row, one.loss.t - begin, one.dead_for) for row, one in enumerate(shown) if one.cause == cause]
        panel.rows([(first / 1e9, (first + dead) / 1e9, row) for row, first, dead in rows], CAUSES[cause])
        number = sum(1 for one in losses if one.cause == cause)
        panel.legend(f"{cause.replace('_', ' ')} ({number:,})", CAUSES[cause], "line")
    return panel


def timeline(record: Record, *, rules: bool = True) -> str:
    """The whole drill of one agent on one node, as SVG; without ``rules``, only restarts and traffic."""
    begin = min([phase.t for phase in record.phases[:1]] + [one.t for one in record.attempts[:1]] or [record.first])
    end = max(begin + 1, max((phase.t for phase in record.phases), default=record.last))
    if not any(phase.phase == "end" for phase in record.phases):
        end = max(end, record.last)
    families = sorted({one.family for one in record.states} | {one.family for one in record.gaps}) or ["ipv4"]
    losses = explain(record)
    length = (end - begin) / 1e9
    panels = [ChartPanel("restarts", 30, 0.0, length, columns=2)]
    _phases(panels[0], record, begin, end)
    if rules:
        for family in families:
            panels.append(ChartPanel(f"rules {family}", 26, 0.0, length, columns=3))
            _rules(panels[-1], record, family, begin, end, length * _LEAST_WIDTH)
        programs = min(len(_WRITERS), len(_programs(record.changes)))
        panels.append(ChartPanel("rule changes", max(30, 14 * programs), 0.0, length))
        _changes(panels[-1], record.changes, begin)
    panels.append(_traffic(record, begin, end))
    if losses:
        panels.append(_flows(losses, begin, end))
    what = "restarts, rules, attempts and lost flows" if rules else "restarts, attempts and lost flows"
    title = f"timeline on {record.node}: {what} over {duration(length * 1e3)}"
    return draw(panels, "seconds", lambda value: f"{value:g}", title)


def closeup(record: Record, outage: Outage) -> str:
    """One gap to scale, with the rule changes and all lost attempts around it, as SVG."""
    margin = min(max(outage.length // 2, 5_000_000), 2_000_000_000)
    first, last = outage.begin - margin, outage.end + margin
    losses = [one for one in explain(record) if first <= one.loss.t <= last and one.loss.family == outage.family]
    changes = [one for one in record.changes if first <= one.t <= last and one.family == outage.family]
    leaks = [one for one in record.leaks if first <= one.t <= last and one.family == outage.family]
    # time 0 is the gap's begin
    left, right = -margin / 1e9, (outage.length + margin) / 1e9
    panels = [
        ChartPanel(f"rules {outage.family}", 30, left, right, columns=3),
        ChartPanel("rule changes", max(40, 14 * min(len(_WRITERS), len(_programs(changes)))), left, right),
    ]
    _rules(panels[0], record, outage.family, outage.begin, last, 0.0)
    _changes(panels[1], changes, outage.begin)
    if losses or leaks:
        seen = {_flow(leak): leak.t for leak in reversed(record.leaks)}  # sorted by time: the first one stays
        panels.append(_lost_in_gap(outage, losses, leaks, seen, left, right))
    for one in panels:
        one.lines([0, outage.length / 1e9], INK, one.low, one.high, 0.8, dots=True)
    title = (
        f"a gap of {duration(outage.length / 1e6)} in {outage.family} close up: rules, rule changes and lost attempts"
    )
    return draw(panels, "milliseconds after the gap began", lambda value: f"{value * 1000:g}", title)


def _flow(leak: e.Leak) -> tuple[str, str, int, str, int]:
    return (leak.kind, leak.src, leak.sport, leak.dst, leak.dport)


def _lost_in_gap(
    outage: Outage,
    losses: Sequence[ExplainedLoss],
    leaks: Sequence[e.Leak],
    seen: Mapping[tuple[str, str, int, str, int], int],
    left: float,
    right: float,
) -> ChartPanel:
    """The attempts lost in a gap, one mark each at their first packet; ``seen``: the first leak of each flow."""
    kinds = sorted({one.loss.kind for one in losses} | {one.kind for one in leaks})
    rows = {kind: place for place, kind in enumerate(kinds)}
    panel = ChartPanel("", 90, left, right, low=-0.6, high=max(1, len(rows)) - 0.3, band=False)
    panel.ticks = [(place, kind) for kind, place in rows.items()]
    for cause in dict.fromkeys(one.cause for one in losses):
        mine = [one for one in losses if one.cause == cause]
        panel.marks([((one.loss.t - outage.begin) / 1e9, rows[one.loss.kind]) for one in mine], CAUSES[cause], "dot")
        panel.legend(f"lost: {cause.replace('_', ' ')} ({len(mine):,})", CAUSES[cause], "dot")
    again = [leak for leak in leaks if leak.t > seen[_flow(leak)]]
    first = [leak for leak in leaks if leak.t <= seen[_flow(leak)]]
    for label, packets, mark, colour in (("first packet", first, "cross", INK), ("its retries", again, "plus", BLUE)):
        if packets:
            above = 0.28 if mark == "cross" else 0.42
            panel.marks([((leak.t - outage.begin) / 1e9, rows[leak.kind] + above) for leak in packets], colour, mark)
            panel.legend(f"leaked: {label} ({len(packets):,})", colour, mark)
    return panel
