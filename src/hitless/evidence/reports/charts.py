"""Charts as SVG: panels over one time axis, with bars, marks, lines, steps, and a legend beside each panel.

Problem: a drill's charts need bands, ticks and dots over one time axis. A general chart library takes 137 MB and
seconds, and its files had to be patched afterwards. Promise: SVG text without external references or ids, the same for
the same input; nothing outside the axis is drawn, all text is escaped; a ``hint`` is a tooltip, and is read by screen
readers. Next stage: ``timeline_chart``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["FAINT", "INK", "ChartPanel", "draw", "rounded"]

INK, FAINT = "#343a40", "#e9ecef"
WIDTH, LEFT, RIGHT = 1150, 122, 190
_GAP, _AXIS = 7, 38  # between two panels; below the last one
_SMALL, _TEXT = 11, 12  # sizes of letters


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


@dataclass
class ChartPanel:
    """One panel of a chart, ``height`` pixels high; vertical positions go from ``low`` (bottom) to ``high`` (top).

    ``begin`` and ``end`` are the range of the time axis.
    """

    label: str
    height: int
    begin: float
    end: float
    low: float = 0.0
    high: float = 1.0
    band: bool = True
    columns: int = 1
    ticks: Sequence[tuple[float, str]] = ()
    _shapes: list[str] = field(default_factory=list)
    _legend: list[tuple[str, str, str]] = field(default_factory=list)

    def legend(self, label: str, colour: str, shape: str = "box") -> None:
        """Add a line to the legend; ``shape`` is box, line, bar, dot, cross or plus."""
        self._legend.append((label, colour, shape))

    def bars(
        self,
        spans: Iterable[tuple[float, float]],
        colour: str,
        low: float,
        high: float,
        hint: str = "",
        least: float = 0.0,
    ) -> None:
        """Bars from ``low`` to ``high``, one for each span of the axis, each at least ``least`` long."""
        rest = "".join(
            f"M{_number(left)} {_number(self._y(high))}h{_number(right - left)}"
            f"v{_number(self._y(low) - self._y(high))}h{_number(left - right)}z"
            for first, last in spans
            if max(first, last, first + least) > self.begin and first < self.end
            for left, right in [(self._x(first), self._x(max(last, first + least)))]
        )
        self._path(rest, f'fill="{colour}"', hint)

    def lines(
        self, places: Iterable[float], colour: str, low: float, high: float, width: float, dots: bool = False
    ) -> None:
        """Vertical lines from ``low`` to ``high``."""
        bottom, top = _number(self._y(low)), _number(self._y(high))
        inside = (place for place in places if self.begin <= place <= self.end)
        rest = "".join(f"M{_number(self._x(place))} {bottom}V{top}" for place in inside)
        dashed = ' stroke-dasharray="1.5 2"' if dots else ""
        self._path(rest, f'stroke="{colour}" stroke-width="{width:g}" fill="none"{dashed}')

    def rows(self, spans: Iterable[tuple[float, float, float]], colour: str) -> None:
        """Horizontal lines with a dot at their begin; each span is its begin, its end, and its vertical position."""
        lines, dots = "", ""
        for first, last, at in spans:
            if last < self.begin or first > self.end:
                continue
            y = _number(self._y(at))
            lines += f"M{_number(self._x(first))} {y}H{_number(self._x(last))}"
            dots += f"M{_number(self._x(first))} {y}h0" if first >= self.begin else ""
        self._path(lines, f'stroke="{colour}" stroke-width="1" fill="none"')
        self._path(dots, f'stroke="{colour}" stroke-width="2.6" stroke-linecap="round" fill="none"')

    def marks(self, places: Iterable[tuple[float, float]], colour: str, shape: str) -> None:
        """Dots, crosses or pluses at (position on the axis, vertical position)."""
        rest = "".join(
            _mark(shape, self._x(place), self._y(at)) for place, at in places if self.begin <= place <= self.end
        )
        self._path(rest, _stroke(shape, colour))

    def steps(self, values: Sequence[float], edges: Sequence[float], colour: str) -> None:
        """A filled step line: ``values`` between their ``edges``."""
        if not values:
            return
        base = _number(self._y(self.low))
        rest = f"M{_number(self._x(edges[0]))} {base}" + "".join(
            f"V{_number(self._y(value))}H{_number(self._x(edge))}"
            for value, edge in zip(values, edges[1:], strict=True)
        )
        self._path(f"{rest}V{base}z", f'fill="{colour}"')

    def text(self, place: float, label: str, background: str) -> None:
        """A label at the panel's middle height, at a position of the axis."""
        if not self.begin <= place <= self.end:
            return
        x, width = self._x(place), 7.4 * len(label) + 4
        y = self._y((self.low + self.high) / 2)
        left, top = _number(x - width / 2), _number(y - 8)
        self._shapes.append(
            f'<rect x="{left}" y="{top}" width="{_number(width)}" height="16" fill="{background}"/>'
            f'<text x="{_number(x)}" y="{_number(y + 4)}" text-anchor="middle" font-size="13" '
            f'style="font-weight: 700" fill="{INK}">{escape(label)}</text>'
        )

    def _x(self, place: float) -> float:
        share = (min(max(place, self.begin), self.end) - self.begin) / (self.end - self.begin)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def _y(self, place: float) -> float:
        return self.height * (1 - (place - self.low) / (self.high - self.low))

    def _path(self, shape: str, style: str, hint: str = "") -> None:
        if shape:
            inner = f"><title>{escape(hint)}</title></path>" if hint else "/>"
            self._shapes.append(f'<path d="{shape}" {style}{inner}')

    def render(self, y: float) -> str:
        """The panel as an SVG group at height ``y``."""
        shapes = list(self._shapes)
        if not self.band:
            shapes.insert(0, f'<path d="M{LEFT} 0V{self.height}" stroke="{INK}" stroke-width=".8"/>')
        for at, label in self.ticks:
            shapes.append(_text(LEFT - 6, self._y(at) + 4, label, _SMALL, "end"))
        lines = self.label.split("\n")
        indent = 10 + max((len(label) for _, label in self.ticks), default=-0.6) * 6.4
        for number, line in enumerate(lines):
            place = self.height / 2 + 4 + (number - (len(lines) - 1) / 2) * 13
            shapes.append(_text(LEFT - indent, place, line, _TEXT, "end"))
        return f'<g transform="translate(0 {_number(y)})">{"".join(shapes)}{self._legend_text()}</g>'

    def _legend_text(self) -> str:
        columns = max(1, self.columns)
        rows = -(-len(self._legend) // columns)
        found = []
        for number, (label, colour, shape) in enumerate(self._legend):
            column, row = number // rows, number % rows
            x = WIDTH - RIGHT + 12 + column * (RIGHT - 12) / columns
            y = self.height / 2 + (row - (rows - 1) / 2) * 14
            found.append(_sign(shape, colour, x + 5, y) + _text(x + 15, y + 4, label, _SMALL))
        return "".join(found)


def _text(x: float, y: float, text: str, size: int, anchor: str = "start") -> str:
    end = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{_number(x)}" y="{_number(y)}" font-size="{size}" fill="{INK}"{end}>{escape(text)}</text>'


def _sign(shape: str, colour: str, x: float, y: float) -> str:
    match shape:
        case "box":
            drawn, style = f"M{_number(x - 4)} {_number(y - 4)}h8v8h-8z", f'fill="{colour}"'
        case "line":
            drawn, style = f"M{_number(x - 5)} {_number(y)}h10", f'stroke="{colour}" stroke-width="2"'
        case "bar":
            drawn, style = f"M{_number(x)} {_number(y - 5)}v10", f'stroke="{colour}" stroke-width="2"'
        case _:
            drawn, style = _mark(shape, x, y), _stroke(shape, colour)
    return f'<path d="{drawn}" {style}/>'


def _mark(shape: str, x: float, y: float) -> str:
    match shape:
        case "cross":
            return f"M{_number(x - 2.2)} {_number(y - 2.2)}l4.4 4.4m0-4.4l-4.4 4.4"
        case "plus":
            return f"M{_number(x - 2.6)} {_number(y)}h5.2m-2.6-2.6v5.2"
        case _:
            return f"M{_number(x)} {_number(y)}h0"


def _stroke(shape: str, colour: str) -> str:
    if shape in ("cross", "plus"):
        return f'stroke="{colour}" stroke-width="1.1" fill="none"'
    return f'stroke="{colour}" stroke-width="4.6" stroke-linecap="round" fill="none"'


def rounded(begin: float, end: float, most: int = 10) -> list[float]:
    """At most ``most`` round numbers along an axis: multiples of 1, 2 or 5 times a power of ten."""
    raw = (end - begin) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= raw)
    return [number * step for number in range(math.ceil(begin / step - 1e-9), math.floor(end / step + 1e-9) + 1)]


def draw(panels: Sequence[ChartPanel], unit: str, shown: Callable[[float], str], title: str) -> str:
    """The panels below each other over one axis; ``shown`` formats its numbers, ``title`` is for screen readers."""
    y, parts = 4.0, []
    for panel in panels:
        parts.append(panel.render(y))
        y += panel.height + _GAP
    last = panels[-1]
    y -= _GAP - 1
    axis = f"M{LEFT} {_number(y)}H{WIDTH - RIGHT}"
    for place in rounded(last.begin, last.end):
        x = last._x(place)
        axis += f"M{_number(x)} {_number(y)}v4"
        parts.append(_text(x, y + 16, shown(place), _SMALL, "middle"))
    parts.append(f'<path d="{axis}" stroke="{INK}" stroke-width=".8" fill="none"/>')
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, y + 31, unit, _SMALL, "middle"))
    return (
        f'<svg viewBox="0 0 {WIDTH} {_number(y + _AXIS)}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="{escape(title)}" font-family="sans-serif">{"".join(parts)}</svg>'
    )
