"""What people see of a watch: a line for each thing that happened, and below them how things stand.

Problem: JSON lines are for programs. Promise: made from the same events and nothing else; where standard output is no
terminal, or NO_COLOR is set, plain lines only. Next stage: people.
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from types import TracebackType

import click

from hitless.model.events import Change, Event, Gap, Header, Heartbeat, LostEvents, Note, RuleState, Summary, Writer

__all__ = ["View"]

_COLORS = {"carried": "green", "not_carried": "red", "cannot_tell": "yellow"}


def _clock(t: int) -> str:
    return datetime.fromtimestamp(t / 1e9).astimezone().strftime("%H:%M:%S.%f")


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.2f} ms" if ns < 1_000_000_000 else f"{ns / 1e9:.2f} s"


def _who(writer: Writer | None) -> str:
    if writer is None:
        return "somebody"
    parent = f" of {writer.parent}" if writer.parent else ""
    return f"{writer.argv or writer.comm}[{writer.pid}]{parent}"


class View:
    """The human side of ``hitless watch``; a context manager."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        self._states: dict[str, RuleState] = {}
        self._gaps = 0
        self._beat: Heartbeat | None = None

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._erase()

    def emit(self, event: Event) -> None:
        """Show an event."""
        self._erase()
        if isinstance(event, Header):
            config = event.config
            networks = ", ".join(config["networks"]) or "not known yet"
            click.echo(f"profile {config['profile']}, pod networks {networks} (from the {config['networks_from']})")
        elif isinstance(event, RuleState):
            self._states[event.network] = event
            self._line(event.t, f"{event.network} {self._paint(event.state)}: {event.reason}")
        elif isinstance(event, Gap):
            self._gaps += 1
            end = "and is still open" if event.open else f"until {_who(event.closed_by)}"
            words = f"GAP of {_ms(event.end - event.begin)} for {event.network}: {_who(event.opened_by)} {end}"
            self._line(event.t, click.style(words, fg="red", bold=True) if self._live else words)
        elif isinstance(event, Change):
            mark = "" if event.relevant else " (matters to no pod)"
            self._line(event.t, f"{event.backend} {event.table} by {_who(event.writer)}: {event.summary}{mark}")
        elif isinstance(event, LostEvents):
            self._line(event.t, f"LOST EVENTS for {_ms(event.resynced - event.t)}: {event.detail}")
        elif isinstance(event, Note):
            self._line(event.t, f"{event.level}: {event.text}")
        elif isinstance(event, Heartbeat):
            self._beat = event
        elif isinstance(event, Summary):
            totals = event.totals
            click.echo(
                f"{totals['gaps']} gaps, {_ms(totals['gap_ns'])} in all, longest {_ms(totals['longest_gap_ns'])}; "
                f"{totals['commits']} commits, {totals['relevant']} of them mattered to pods"
            )
            return
        self._status()

    def _paint(self, state: str) -> str:
        words = state.replace("_", " ")
        return click.style(words, fg=_COLORS.get(state)) if self._live else words

    def _line(self, t: int, text: str) -> None:
        click.echo(f"{_clock(t)}  {text}")

    def _status(self) -> None:
        """The line below all others, on a terminal only."""
        if not self._live:
            return
        states = "  ".join(f"{network} {self._paint(state.state)}" for network, state in self._states.items())
        lag = f"  lag {_ms(self._beat.max_lag_ns)}" if self._beat is not None else ""
        click.echo(f"{states}  gaps {self._gaps}{lag}", nl=False)

    def _erase(self) -> None:
        if self._live:
            click.echo("\r\x1b[K", nl=False)
