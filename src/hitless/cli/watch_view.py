"""The text output of a watch: a line for each event, below them the current states, at the end a summary.

Problem: JSON lines are for programs. Promise: made from the same events and nothing else. A line that does not fit the
terminal is wrapped; the line of states, which is overwritten all the time, is cut. If standard output is not a
terminal, or NO_COLOR is set, plain lines only.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType

import click

from hitless.cleaning import cleaned
from hitless.cli.event_output import hear
from hitless.cli.zones import zone
from hitless.model.events import (
    Bridged,
    Change,
    Event,
    Gap,
    Header,
    Heartbeat,
    LostEvents,
    Note,
    RuleState,
    Standby,
    Summary,
    Writer,
)

__all__ = ["WatchView"]

_COLORS = {"carried": "green", "not_carried": "red", "cannot_tell": "yellow"}
_INDENT = 17  # the clock and two spaces
_COMMAND = 60  # characters of a command line that are shown
_PLAIN_WIDTH = 10_000  # without a terminal nothing is wrapped: programs may read it line by line


def _clock(t: int) -> str:
    return datetime.fromtimestamp(t / 1e9).astimezone().strftime("%H:%M:%S.%f")


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.2f} ms" if ns < 1_000_000_000 else f"{ns / 1e9:.2f} s"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _who(writer: Writer | None) -> str:
    if writer is None:
        return "an unknown writer"
    program, space, rest = (writer.argv or writer.comm or "process").partition(" ")
    command = f"{program.rpartition('/')[2]}{space}{rest}"
    command = command if len(command) <= _COMMAND else f"{command[: _COMMAND - 1]}…"
    parent = f" of {writer.parent}" if writer.parent else ""
    return f"{command} [{writer.pid}]{parent}"


@dataclass(slots=True)
class _Network:
    """The state and gaps of a pod network."""

    state: str = ""
    partly: str = ""
    gaps: list[Gap] = field(default_factory=list)

    @property
    def now(self) -> str:
        """The current state, for the status line."""
        return f"{self.state.replace('_', ' ')}{f', {self.partly}' if self.partly else ''}"

    @property
    def style(self) -> str:
        return "cannot_tell" if self.state == "carried" and self.partly else self.state


def _partly(event: RuleState) -> str:
    """E.g. ``3 of 7 pods not``; empty if all pods are as the network is."""
    if not event.partly:
        return ""
    if event.pods_not_carried:
        return f"{event.pods_not_carried} of {event.pods} pods not"
    return "not all for certain" if event.pods_unknown else "not the next pod"


def _standby(event: Standby) -> str:
    if not event.present:
        return f"the guard's standby for {event.family} is gone"
    whose = "a guard is at work" if event.guard else "a guard that is gone left its standby"
    return f"{whose}: {event.family} flows carried by the standby so far: {event.flows:,}"


class WatchView:
    """The text output of ``hitless watch``; a context manager."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._networks: dict[str, _Network] = {}
        self._beat: Heartbeat | None = None
        self._began = 0

    def __enter__(self) -> WatchView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._erase()

    def emit(self, event: Event) -> None:
        """Show an event."""
        self._erase()
        event = cleaned(event)
        if isinstance(event, Header):
            config = event.config
            networks = ", ".join(config["networks"])
            known = (
                f"pod networks {networks} (from the {config['networks_from']})" if networks else "no pod network yet"
            )
            self._began = event.t
            self._wrapped(f"profile {config['profile']}, {known}; times are {zone(event.t)}", "", indent=2)
        elif isinstance(event, RuleState):
            self._network(event.network).state = event.state
            self._network(event.network).partly = _partly(event)
            self._line(event.t, f"{event.network} {event.state.replace('_', ' ')}: {event.reason}", event.state)
            if event.partly:
                self._line(event.t, f"{event.network} partly: {event.partly}", "cannot_tell")
        elif isinstance(event, Gap):
            self._network(event.network).gaps.append(event)
            end = "still open" if event.open else f"closed by {_who(event.closed_by)}"
            parts = f"GAP of {_ms(event.end - event.begin)} for {event.network}: {event.reason}"
            self._line(event.t, f"{parts}; opened by {_who(event.opened_by)}, {end}", "gap")
        elif isinstance(event, Bridged):
            end = "it goes on" if event.open else f"closed by {_who(event.closed_by)}"
            parts = (
                f"bridged by the guard's standby: {_ms(event.end - event.begin)} for {event.network}: {event.reason}"
            )
            self._line(event.t, f"{parts}; opened by {_who(event.opened_by)}, {end}", "cannot_tell")
        elif isinstance(event, Standby):
            self._line(event.t, _standby(event))
        elif isinstance(event, Change):
            mark = "" if event.relevant else " (matters to no pod)"
            self._line(event.t, f"{event.backend} {event.table} by {_who(event.writer)}: {event.summary}{mark}")
        elif isinstance(event, LostEvents):
            self._line(event.t, f"LOST EVENTS for {_ms(event.resynced - event.t)}: {event.detail}", "cannot_tell")
        elif isinstance(event, Note) and event.level == "info" and event.t == self._began:
            pass  # the networks in the rules: the first line has them
        elif isinstance(event, Note):
            self._line(event.t, f"{event.level}: {event.text}", "cannot_tell" if event.level != "info" else "")
        elif isinstance(event, Heartbeat):
            self._beat = event
            hear()
        elif isinstance(event, Summary):
            self._sum(event)
            return
        self._status()

    def _network(self, name: str) -> _Network:
        return self._networks.setdefault(name, _Network())

    def _line(self, t: int, text: str, style: str = "") -> None:
        self._wrapped(f"{_clock(t)}  {text}", style)

    def _wrapped(self, text: str, style: str, indent: int = _INDENT) -> None:
        width = shutil.get_terminal_size().columns if self._live else _PLAIN_WIDTH
        lines = textwrap.wrap(
            text, max(width, 2 * _INDENT), subsequent_indent=" " * indent, break_on_hyphens=False
        ) or [""]
        for line in lines:
            click.echo(self._painted(line, style))

    def _painted(self, text: str, style: str) -> str:
        if not self._live or not style:
            return text
        color = "red" if style == "gap" else _COLORS.get(style)
        return click.style(text, fg=color, bold=style == "gap")

    def _sum(self, event: Summary) -> None:
        """The summary: a line for each network, the totals, and lost events."""
        totals = event.totals
        rows = [("pod network", "now", "gaps", "longest", "in all")]
        for name, network in self._networks.items():
            lengths = [gap.end - gap.begin for gap in network.gaps]
            longest, whole = (_ms(max(lengths)), _ms(sum(lengths))) if lengths else ("–", "–")
            rows.append((name, network.now, str(len(lengths)), longest, whole))
        if len(rows) > 1:
            widths = [max(len(row[column]) for row in rows) for column in range(5)]
            click.echo()
            for number, row in enumerate(rows):
                left = "  ".join(cell.ljust(width) for cell, width in zip(row[:2], widths, strict=False))
                right = "  ".join(cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True))
                if number:  # the state now, and the gaps so far
                    left = self._painted(left, self._networks[row[0]].style)
                    right = self._painted(right, "gap" if row[2] != "0" else "carried")
                click.echo(f"{left}  {right}")
        lost = totals.get("lost_events", 0)
        self._wrapped(
            f"{_count(totals['gaps'], 'gap')}, {_ms(totals['gap_ns'])} in all; "
            f"{_count(totals['commits'], 'commit')}, {totals['relevant']} of them mattered to pods"
            + (f"; events were lost {_count(lost, 'time')}" if lost else ""),
            "",
            indent=2,
        )

    def _status(self) -> None:
        """The line of states below all others, on a terminal only; it is overwritten, so it must fit."""
        if not self._live:
            return
        parts = [f"{name} {network.now}" for name, network in self._networks.items()]
        parts.append(_count(sum(len(network.gaps) for network in self._networks.values()), "gap"))
        if self._beat is not None:
            parts.append(f"lag {_ms(self._beat.max_lag_ns)}")
        text = "  ".join(parts)
        width = shutil.get_terminal_size().columns - 1
        text = text if len(text) <= width else f"{text[: width - 1]}…"
        states = {network.style for network in self._networks.values()}
        worst = next((state for state in ("not_carried", "cannot_tell", "carried") if state in states), "")
        click.echo(self._painted(text, worst), nl=False)

    def _erase(self) -> None:
        if self._live:
            click.echo("\r\x1b[K", nl=False)
