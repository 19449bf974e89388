"""The timeline as a picture: restarts, rules, traffic and dead flows over one axis of time; and a gap close up.

Problem: a gap of 50 ms in a drill of 30 s is two pixels, and it is the whole story. Promise: nothing that happened is
too thin to be seen (gaps have a least width, in the overview; the close-up is to scale), and nothing is smoothed away.
Pictures are SVG text without any reference to the outside. Needs matplotlib (the extra ``report``), imported here only;
without it ``available`` is false and the report says how to get it.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hitless.evidence.losses import Explained, explain
from hitless.evidence.records import LONGEST_COMM, Outage, Record, program
from hitless.model import events as e

__all__ = ["CAUSES", "UNKNOWN_WRITER", "available", "closeup", "timeline"]

CARRIED, GAP, UNKNOWN, INK, FAINT, BLUE = "#2f9e44", "#e03131", "#adb5bd", "#343a40", "#e9ecef", "#1971c2"
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
_LEGEND: dict[str, Any] = {
    "loc": "center left",
    "bbox_to_anchor": (1.0, 0.5),
    "fontsize": 7.5,
    "frameon": False,
    "handlelength": 0.8,
}
UNKNOWN_WRITER = "unknown writer"
_MOST_FLOWS = 400
_MOST_NUMBERS = 12
"""Rounds whose numbers have room beside each other."""
_MOST_MARKS = 600
_LEAST_WIDTH = 0.0025
"""The share of the picture's width that a gap takes at least: about two pixels."""


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def plain(text: str) -> str:
    """A name from the log as the picture's font can draw it; the page beside it has the whole text."""
    drawn = "".join(one if one.isascii() and one.isprintable() else "?" for one in text[:24])
    return drawn.replace("$", r"\$")  # matplotlib reads dollars as mathematics


def _figure(heights: Sequence[float]) -> tuple[Any, list[Any]]:
    # That it builds its list of fonts (once in a home, for seconds), or has no home to keep it in, is nobody's concern.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # The object interface: pyplot would keep global state and look for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, sum(heights) + 0.55), layout="constrained")
    grid = figure.add_gridspec(len(heights), 1, height_ratios=list(heights), hspace=0.02)
    axes: list[Any] = []
    for index in range(len(heights)):
        axis = figure.add_subplot(grid[index], sharex=axes[0] if axes else None)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8, colors=INK, labelbottom=index == len(heights) - 1, length=2)
        axes.append(axis)
    return figure, axes


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    out = io.StringIO()
    nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "hitless", "font.family": "sans-serif", "text.parse_math": False}
    ):
        figure.savefig(out, format="svg", metadata=nothing, transparent=True)
    text = re.sub(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>", "", out.getvalue(), flags=re.DOTALL)
    # Without a size of its own the picture takes the width of the page.
    return re.sub(r'(?<=<svg )(?:width|height)="[^"]*"|(?<=" )(?:width|height)="[\d.]+pt"', "", text).strip()


def _band(axis: Any, label: str) -> None:
    axis.set_yticks([])
    axis.set_ylim(0, 1)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.tick_params(bottom=False)
    axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8.5, color=INK)


def _calendar(axis: Any, record: Record, begin: int, end: int) -> None:
    _band(axis, "restarts")
    phases = [phase for phase in record.phases if phase.phase != "end"]
    ends = [*(phase.t for phase in phases[1:]), end][: len(phases)]
    rounds = sum(phase.phase == "round" for phase in phases)
    every = next(
        step for step in (1, 2, 5, 10, 20, 50, 100, rounds + 1) if rounds <= step * _MOST_NUMBERS or step > 100
    )
    for phase, until in zip(phases, ends, strict=True):
        left, width = (phase.t - begin) / 1e9, (until - phase.t) / 1e9
        shade = "#d0ebff" if phase.phase == "round" and phase.round % 2 else FAINT
        axis.broken_barh([(left, width)], (0.05, 0.9), facecolors=shade)
        name = str(phase.round) if phase.phase == "round" else phase.phase
        if phase.phase != "round" or phase.round % every == 0:
            # numbers stand free of the marks of their own stop and start, and of the neighbours'
            axis.text(
                left + width / 2, 0.5, name, ha="center", va="center", fontsize=9.5, fontweight="bold", color=INK,
                clip_on=True, zorder=5, bbox={"facecolor": shade, "edgecolor": "none", "pad": 1.2},
            )  # fmt: skip
    for label, colour, steps in (("stopped", BLUE, ("stop", "killed")), ("ready", CARRIED, ("ready",))):
        mine = [step for step in record.restarts if step.step in steps and record.measured.holds(step.t)]
        times = [(step.t - begin) / 1e9 for step in mine]
        axis.vlines(times, 0.05, 0.95, color=colour, linewidth=1.6, label=label)
    if record.spans:
        axis.legend(**_LEGEND, ncols=2, columnspacing=0.8)


def _rules(axis: Any, record: Record, family: str, begin: int, end: int, least: float) -> None:
    _band(axis, f"rules {family}")
    states = [one for one in record.states if one.family == family]
    bars = [(begin, end, UNKNOWN)] if not states else []
    for network in {one.network for one in states}:
        mine = [one for one in states if one.network == network]
        ends = [one.t for one in mine[1:]] + [end]
        bars += [(one.t, until, _STATES[one.state]) for one, until in zip(mine, ends, strict=True)]
    for first, last, colour in sorted(bars, key=lambda bar: bar[2] == GAP):
        if colour != GAP:
            axis.broken_barh([((first - begin) / 1e9, (last - first) / 1e9)], (0.15, 0.7), facecolors=colour)
    gaps = [one for one in record.outages if one.family == family]
    for outage in gaps:
        axis.broken_barh([((outage.begin - begin) / 1e9, max(outage.length / 1e9, least))], (0, 1), facecolors=GAP)
    shown = {colour for *_, colour in bars} | ({GAP} if gaps else set())
    for label, colour in (("carried", CARRIED), ("gap", GAP), ("cannot tell", UNKNOWN)):
        if colour in shown:
            axis.plot([], [], "s", color=colour, markersize=5, label=label)
    if shown:
        axis.legend(**_LEGEND, ncols=len(shown), columnspacing=0.8)


def _programs(changes: Sequence[e.Change]) -> dict[str, list[e.Change]]:
    """Changes by the program that made them.

    A name that the kernel cut is taken for the whole one, where only one in the record begins so: programs that end at
    once have no command line any more when they are asked for it.
    """
    named = [(program(by.comm, by.argv) if (by := one.writer) and by.comm else UNKNOWN_WRITER, one) for one in changes]
    whole = {name for name, _ in named if len(name) > LONGEST_COMM}
    found: dict[str, list[e.Change]] = {}
    for name, change in named:
        longer = [other for other in whole if len(name) == LONGEST_COMM and other.startswith(name)]
        found.setdefault(longer[0] if len(longer) == 1 else name, []).append(change)
    return dict(sorted(found.items()))


def _writing(axis: Any, changes: Sequence[e.Change], begin: int) -> None:
    """Marks for changes of the rules, a colour for each program; the rest is counted in the legend."""
    _band(axis, "rule changes")
    names = _programs(changes)
    for colour, (name, mine) in zip(_WRITERS, names.items(), strict=False):
        times = [(one.t - begin) / 1e9 for one in mine[:_MOST_MARKS]]
        label = f"{len(mine):,} × {plain(name)}"
        axis.plot(times, [0.5] * len(times), "|", color=colour, markersize=9, label=label)
    if names:
        axis.legend(**_LEGEND)


def _traffic(axis: Any, record: Record, begin: int, end: int) -> None:
    count = max(1, min(240, round((end - begin) / 1e8)))
    step = (end - begin) / count
    sent, lost = [0.0] * count, [0.0] * count
    for one in record.attempts:
        # an interval's attempts are spread over the cells that it covers: cells are no whole intervals
        first, last = (one.t - begin) / step, (one.t + max(1, one.interval_ns) - begin) / step
        for cell in range(max(0, int(first)), min(count, int(last) + 1)):
            share = (min(last, cell + 1) - max(first, cell)) / (last - first)
            sent[cell] += one.sent * share * 1e9 / step
            lost[cell] += one.lost * share * 1e9 / step
    edges = [cell * step / 1e9 for cell in range(count + 1)]
    axis.stairs(sent, edges, fill=True, color="#b2dfbb", label="attempts")
    axis.stairs(lost, edges, fill=True, color=GAP, label="lost")
    axis.set_ylabel("attempts\nper second", rotation=0, ha="right", va="center", fontsize=8.5, color=INK)
    axis.set_ylim(0, max(*sent, 1.0) * 1.12)
    axis.legend(**_LEGEND)


def _flows(axis: Any, losses: Sequence[Explained], begin: int) -> None:
    shown = losses if len(losses) <= _MOST_FLOWS else losses[:: -(-len(losses) // _MOST_FLOWS)]
    for cause in dict.fromkeys(one.cause for one in shown):
        rows = [(row, one) for row, one in enumerate(shown) if one.cause == cause]
        lefts = [(one.loss.t - begin) / 1e9 for _, one in rows]
        rights = [(one.loss.t + one.dead_for - begin) / 1e9 for _, one in rows]
        number = sum(1 for one in losses if one.cause == cause)
        label = f"{cause.replace('_', ' ')} ({number:,})"
        axis.hlines([row for row, _ in rows], lefts, rights, color=CAUSES[cause], linewidth=0.9, label=label)
        axis.plot(lefts, [row for row, _ in rows], ".", color=CAUSES[cause], markersize=2.5)
    every = "" if len(shown) == len(losses) else f"\n(1 of {-(-len(losses) // _MOST_FLOWS)})"
    label = f"lost flows,\nfirst packet\nto end{every}"
    axis.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8.5, color=INK)
    axis.set_yticks([])
    axis.set_ylim(len(shown), -1)
    axis.legend(**_LEGEND)


def timeline(record: Record, *, rules: bool = True) -> str:
    """The whole drill of one agent on one node, as SVG; without ``rules``: restarts and traffic alone."""
    begin = min([phase.t for phase in record.phases[:1]] + [one.t for one in record.attempts[:1]] or [record.first])
    end = max(begin + 1, max((phase.t for phase in record.phases), default=record.last))
    if not any(phase.phase == "end" for phase in record.phases):
        end = max(end, record.last)
    families = sorted({one.family for one in record.states} | {one.family for one in record.gaps}) or ["ipv4"]
    losses = explain(record)
    heights = [0.3, *([*([0.26] * len(families)), 0.3] if rules else []), 1.5, *([1.3] if losses else [])]
    figure, axes = _figure(heights)
    _calendar(axes[0], record, begin, end)
    here = 1
    if rules:
        for axis, family in zip(axes[1:], families, strict=False):
            _rules(axis, record, family, begin, end, (end - begin) / 1e9 * _LEAST_WIDTH)
        here += len(families) + 1
        _writing(axes[here - 1], record.changes, begin)
    _traffic(axes[here], record, begin, end)
    if losses:
        _flows(axes[here + 1], losses, begin)
    axes[-1].set_xlim(0, (end - begin) / 1e9)
    axes[-1].set_xlabel("seconds", fontsize=8, color=INK)
    return _svg(figure)


def closeup(record: Record, outage: Outage) -> str:
    """One gap to scale, with what wrote the rules and every attempt that was lost around it, as SVG."""
    margin = min(max(outage.length // 2, 5_000_000), 2_000_000_000)
    first, last = outage.begin - margin, outage.end + margin
    losses = [one for one in explain(record) if first <= one.loss.t <= last and one.loss.family == outage.family]
    changes = [one for one in record.changes if first <= one.t <= last and one.family == outage.family]
    leaks = [one for one in record.leaks if first <= one.t <= last and one.family == outage.family]
    figure, axes = _figure([0.3, 0.4, *([0.9] if losses or leaks else [])])
    # Time zero is the gap's begin, and the unit is the millisecond.
    _rules(axes[0], record, outage.family, outage.begin, last, 0.0)
    _writing(axes[1], changes, outage.begin)
    if losses or leaks:
        seen = {_flow(leak): leak.t for leak in reversed(record.leaks)}  # sorted by time: the first one stays
        _fallen(axes[2], outage, losses, leaks, seen)
    for one in axes:
        one.axvline(0, color=INK, linewidth=0.6, linestyle=":")
        one.axvline(outage.length / 1e9, color=INK, linewidth=0.6, linestyle=":")
    axes[-1].set_xlim(-margin / 1e9, (outage.length + margin) / 1e9)
    axes[-1].tick_params(bottom=True)
    axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value * 1000:g}")
    axes[-1].set_xlabel("milliseconds after the gap began", fontsize=8, color=INK)
    return _svg(figure)


def _flow(leak: e.Leak) -> tuple[str, str, int, str, int]:
    return (leak.kind, leak.src, leak.sport, leak.dst, leak.dport)


def _fallen(
    axis: Any,
    outage: Outage,
    losses: Sequence[Explained],
    leaks: Sequence[e.Leak],
    seen: Mapping[tuple[str, str, int, str, int], int],
) -> None:
    """The attempts that a gap took, one mark each, by their first packet; ``seen``: when each flow leaked first."""
    kinds = sorted({one.loss.kind for one in losses} | {one.kind for one in leaks})
    rows = {kind: place for place, kind in enumerate(kinds)}
    for cause in dict.fromkeys(one.cause for one in losses):
        mine = [one for one in losses if one.cause == cause]
        times = [(one.loss.t - outage.begin) / 1e9 for one in mine]
        label = f"lost: {cause.replace('_', ' ')} ({len(mine):,})"
        axis.plot(times, [rows[one.loss.kind] for one in mine], "o", color=CAUSES[cause], markersize=3.2, label=label)
    again = [leak for leak in leaks if leak.t > seen[_flow(leak)]]
    first = [leak for leak in leaks if leak.t <= seen[_flow(leak)]]
    for label, packets, mark, colour in (("first packet", first, "x", INK), ("its retries", again, "+", BLUE)):
        if packets:
            times = [(leak.t - outage.begin) / 1e9 for leak in packets]
            places = [rows[leak.kind] + (0.28 if mark == "x" else 0.42) for leak in packets]
            label = f"leaked: {label} ({len(packets):,})"
            axis.plot(times, places, mark, color=colour, markersize=3.2, label=label)
    axis.set_yticks(list(rows.values()), list(rows))
    axis.set_ylim(-0.6, max(1, len(rows)) - 0.3)
    axis.legend(**_LEGEND)
