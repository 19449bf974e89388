"""The text output of a prober or a far end: lines while it runs, and a table at the end.

Problem: JSON lines are for programs. Promise: made from the same events and nothing else. On a terminal the table is
live (rich, drawn once a second); elsewhere, and with ``NO_COLOR`` or ``TERM=dumb``, plain lines. Losses are shown as
they happen, a few each second, and all are counted.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, get_args

import click

from hitless.cleaning import cleaned
from hitless.cli.event_output import hear
from hitless.cli.zones import zone
from hitless.model import events as e
from hitless.probe.kinds import ports_text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.live import Live

__all__ = ["FarEndView", "LiveView", "ProbeView", "probe_view"]

_WIDE = 80  # columns for the whole live table
_SHOWN = 5  # incidents shown in a second; all are counted
_KINDS = get_args(e.Kind)
_COLUMNS = ("sent", "ok", "lost", "delayed", "leaked")

_Incident = e.Loss | e.Recovery | e.StreamBreak | e.Leak


def probe_view() -> ProbeView:
    """The view for standard output's type."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return ProbeView() if plain else LiveView()


def _clock(t: int) -> str:
    return datetime.fromtimestamp(t / 1e9).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _duration(ns: int) -> str:
    return f"{ns / 1e6:.1f} ms" if ns < 1_000_000_000 else f"{ns / 1e9:.2f} s"


def _where(endpoints: Sequence[str]) -> str:
    """Addresses, grouped by their kinds: 198.51.100.1, 198.51.100.2 (tcp, udp)."""
    kinds: dict[str, list[str]] = {}
    for kind, _, address in (text.partition(" ") for text in endpoints):
        kinds.setdefault(address, []).append(kind)
    addresses: dict[str, list[str]] = {}
    for address, found in kinds.items():
        listed = ", ".join(sorted(found, key=_KINDS.index))
        addresses.setdefault(listed, []).append(address)
    return "; ".join(f"{', '.join(found)} ({listed})" for listed, found in addresses.items())


def _incident(event: _Incident) -> str:
    """One line about a failure or a recovery."""
    src = f"{event.src or 'no source address'} port {event.sport}"
    what = f"{src} to {event.dst}" + (f" port {event.dport}" if event.dport else "")
    match event:
        case e.Loss():
            detail = f" ({event.detail})" if event.detail else ""
            return f"{_clock(event.t)}  LOST    {event.kind} {what}: {event.cause}{detail}"
        case e.Recovery():
            end = "worked again after" if event.recovered else "was still broken after"
            return f"{_clock(event.t)}  {'HEALED ' if event.recovered else 'BROKEN '} {event.kind} {what}: {end} " + (
                _duration(event.duration_ns)
            )
        case e.StreamBreak():
            return f"{_clock(event.t)}  BROKEN  stream {what}: {event.detail}"
        case e.Leak():
            return f"{_clock(event.t)}  LEAKED  {event.kind} {what}"


class ProbeView:
    """Plain lines: one each second, and the incidents."""

    def __init__(self) -> None:
        self._second: Counter[str] = Counter()
        self._details: dict[str, Counter[str]] = {}
        self._incidents = 0
        self._slowest = 0

    def emit(self, event: e.Event) -> None:
        """Show an event, or count it for the next line."""
        event = cleaned(event)
        match event:
            case e.Header():
                self._begin(event)
            case e.Attempts():
                self._count(event)
            case e.Heartbeat():
                self._beat(event)
            case e.Loss() | e.Recovery() | e.StreamBreak() | e.Leak() if not event.stream:
                self._incidents += 1
                if isinstance(event, e.Loss) and event.detail:
                    self._details.setdefault(event.cause, Counter())[event.detail] += 1
                if self._incidents <= _SHOWN:
                    self._say(_incident(event))
            case e.Note():
                self._say(f"{event.level}: {event.text}")
            case e.Summary():
                self._end(event)
            case _:
                pass  # of a control: only counted

    def _begin(self, header: e.Header) -> None:
        config = header.config
        what = f"probing {_where(config['endpoints'])} at {config['rate']:,g} new flows a second"
        self._say(f"{what}; Ctrl-C ends; times are {zone(header.t)}")

    def _say(self, text: str) -> None:
        click.echo(text)

    def close(self) -> None:
        """Restore the terminal."""

    def _count(self, event: e.Attempts) -> None:
        if event.stream:
            self._second["control"] += event.lost
            return
        for name in _COLUMNS:
            self._second[name] += getattr(event, name)
        self._slowest = max(self._slowest, event.latency_max_ns)

    def _line(self, beat: e.Heartbeat) -> str:
        counts = self._second
        parts = [f"{counts['sent']:5d} ended", f"{counts['lost']} lost", f"{counts['delayed']} delayed"]
        parts += [
            f"{counts[name]} {text}"
            for name, text in (("leaked", "leaked"), ("control", "lost by control"))
            if counts[name]
        ]
        if self._incidents > _SHOWN:
            parts.append(f"{self._incidents - _SHOWN} more not shown")
        cpu = 100 * beat.cpu_ns / max(1, beat.interval_ns)
        parts += [
            f"slowest {_duration(self._slowest)}",
            f"prober late by {_duration(beat.max_lag_ns)}, {cpu:.0f} % CPU",
        ]
        return f"{_clock(beat.t)}  {', '.join(parts)}; {beat.detail}"

    def _beat(self, beat: e.Heartbeat) -> None:
        self._say(self._line(beat))
        self._second.clear()
        self._slowest = self._incidents = 0

    def _end(self, summary: e.Summary) -> None:
        totals = summary.totals
        click.echo("")
        click.echo(f"{'':8}" + "".join(f"{name:>10}" for name in _COLUMNS))
        for kind in _KINDS:
            if totals.get(f"{kind}_sent"):
                click.echo(f"{kind:8}" + "".join(f"{totals.get(f'{kind}_{name}', 0):>10,}" for name in _COLUMNS))
        mostly = {cause: details.most_common(1)[0][0] for cause, details in self._details.items()}
        for line in _remarks(totals, mostly):
            click.echo(line)


def _remarks(totals: dict[str, int], mostly: Mapping[str, str]) -> list[str]:
    """Lines after the table; ``mostly``: the most frequent detail of each cause."""
    causes = {name[6:]: count for name, count in sorted(totals.items()) if name.startswith("cause_")}
    lines = []
    if causes:
        why = {cause: f" ({mostly[cause]})" if cause in mostly else "" for cause in causes}
        lines.append("lost because: " + ", ".join(f"{cause} {count:,}{why[cause]}" for cause, count in causes.items()))
    if causes.get("refused"):
        lines.append(
            "refused is an answer: the packets came through, and no program listens at that port (hitless farend?)"
        )
    if totals.get("recovered") or totals.get("not_recovered"):
        lines.append(
            f"of the lost flows that were watched on, {totals.get('recovered', 0)} worked again, "
            f"{totals.get('not_recovered', 0)} were still broken when the watch ended"
        )
    if totals.get("stream_sent"):
        stall = _duration(totals.get("stream_longest_stall_ns", 0))
        lines.append(f"streams: {totals.get('stream_breaks', 0)} broken, longest wait for an echo {stall}")
    if totals.get("control_sent"):
        lines.append(f"control: {totals['control_lost']:,} of {totals['control_sent']:,} lost")
    skipped = {name[8:]: count for name, count in sorted(totals.items()) if name.startswith("skipped_") and count}
    if skipped:
        why = {
            "late": "the prober was late",
            "tuples": "no fresh 5-tuple",
            "ports": "port taken",
            "descriptors": "too many open",
        }
        lines.append(
            "not attempted: " + ", ".join(f"{count:,} ({why.get(name, name)})" for name, count in skipped.items())
        )
    lines.append(f"the prober was late by {_duration(totals.get('max_lag_ns', 0))} at most")
    return lines


class LiveView(ProbeView):
    """A table that is redrawn each second, with the incidents scrolling above it."""

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[tuple[str, str], Counter[str]] = {}
        self._live: Live | None = None
        self._lines: list[str] = []

    def _begin(self, header: e.Header) -> None:
        import rich.table  # noqa: F401 - now, before the first attempt, and not in the middle of the run
        from rich.console import Console
        from rich.live import Live

        super()._begin(header)
        # no thread: the prober's loop draws it, once a second
        self._live = Live(console=Console(markup=False, emoji=False), auto_refresh=False, transient=True)
        self._live.start()

    def _say(self, text: str) -> None:
        if self._live is None:
            for line in textwrap.wrap(text, shutil.get_terminal_size().columns, subsequent_indent="  "):
                click.echo(line)
        else:
            self._lines.append(text)  # printed with the next table: drawing for each line would make the prober late

    def _count(self, event: e.Attempts) -> None:
        super()._count(event)
        sums = self._sums.setdefault((event.stream or event.kind, event.family), Counter())
        for name in _COLUMNS:
            sums[name] += getattr(event, name)
        sums["p50"] = event.latency_p50_ns or sums["p50"]
        sums["p99"] = max(sums["p99"], event.latency_p99_ns)

    def _beat(self, beat: e.Heartbeat) -> None:
        if self._live is not None:
            self._live.update(self._table(self._line(beat)))
            self._print()
        self._second.clear()
        self._slowest = self._incidents = 0

    def _print(self) -> None:
        if self._live is None:
            return
        if self._lines:
            self._live.console.print("\n".join(self._lines), highlight=False, markup=False)  # also draws the table
            self._lines.clear()
        else:
            self._live.refresh()

    def _table(self, caption: str) -> Group:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        narrow = self._live is not None and self._live.console.width < _WIDE
        numbers = (*(_COLUMNS[:3] if narrow else _COLUMNS), *(() if narrow else ("p50",)), "worst p99")
        for name in ("kind", "family"):
            table.add_column(name, no_wrap=True)
        for name in numbers:
            table.add_column(name, justify="right", no_wrap=True)
        for (kind, family), sums in sorted(self._sums.items()):
            cells = {name: f"{sums[name]:,}" for name in _COLUMNS}
            cells |= {"p50": _duration(sums["p50"]), "worst p99": _duration(sums["p99"])}
            style = "red" if sums["lost"] or sums["leaked"] else None
            table.add_row(kind, family, *(cells[name] for name in numbers), style=style)
        return Group(table, Text(caption))

    def _end(self, summary: e.Summary) -> None:
        self.close()
        super()._end(summary)

    def close(self) -> None:
        """Restore the terminal."""
        if self._live is not None:
            self._print()
            self._live.stop()
            self._live = None


class FarEndView:
    """The text output of ``hitless farend``: where it listens, leaks, and its counters when they change."""

    def __init__(self) -> None:
        self._before = ""
        self._leaks = 0

    def emit(self, event: e.Event) -> None:
        """Show an event."""
        event = cleaned(event)
        match event:
            case e.Header():
                click.echo(f"listening at {', '.join(event.config['addresses'])}; Ctrl-C ends")
                click.echo(ports_text(event.config["ports"]))
            case e.Leak():
                self._leaks += 1
                if self._leaks <= _SHOWN:
                    click.echo(_incident(event))
            case e.Heartbeat():
                self._leaks = 0
                hear()
                if event.detail != self._before:
                    self._before = event.detail
                    click.echo(f"{_clock(event.t)}  {event.detail}; late by {_duration(event.max_lag_ns)}")
            case e.Note():
                click.echo(f"{event.level}: {event.text}")
            case _:
                pass
