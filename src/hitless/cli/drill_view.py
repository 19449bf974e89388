"""What a drill shows while it runs.

Promise: on a terminal a live table, otherwise a line for each step; on standard error, because standard output is for
the result. Made only from the events of the log, as they are written.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

import click

from hitless.cleaning import clean
from hitless.cli.drill_estimate import TimeLeft
from hitless.evidence import display_names
from hitless.evidence.phrases import plural
from hitless.evidence.settings import Settings
from hitless.model import events as e

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

__all__ = ["DrillView", "view"]

_GAP = 2
_COLUMNS = (
    ("agent", 12, 0), ("now", 14, 0), ("", 7, 3), ("rules", 11, 1), ("attempted", 9, 2), ("lost", 6, 0), ("gaps", 4, 0),
)  # fmt: skip
"""Name, width, and priority on a narrow terminal (1 first); 0: always shown."""


@dataclass
class _Row:
    """The results of an agent so far."""

    phase: str = "waits"
    restart: str = ""
    attempted: int = 0
    lost: int = 0
    gaps: int = 0
    states: dict[tuple[str, str, str], str] = field(default_factory=dict)

    @property
    def rules(self) -> str:
        states = set(self.states.values())
        if not states:
            return "–"
        return "not carried" if "not_carried" in states else "cannot tell" if "cannot_tell" in states else "carried"


class DrillView(Protocol):
    """Gets every event of the log as it is written."""

    def __call__(self, event: e.Event) -> None: ...

    def __enter__(self) -> DrillView: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...


class _Rows:
    """Counts the log's events by agent."""

    def __init__(self, agents: Sequence[str], rounds: int) -> None:
        # a single agent of a cluster waits for pods and their images
        self.rows = {agent: _Row("waits" if len(agents) > 1 else "set-up") for agent in agents}
        self.rounds = rounds
        self.names = {agent: agent for agent in agents}
        self.nodes: list[str] = []
        self.node = ""
        self.warning = ""
        self.left = TimeLeft(list(agents), rounds)
        self._open: dict[tuple[str, str, str], int] = {}

    @property
    def pending(self) -> int:
        """Attempts without an answer, at the last heartbeats of the probers."""
        return sum(self._open.values())

    @property
    def place(self) -> str:
        """In a cluster: the node that is drilled, and its number."""
        if self.node not in self.nodes:
            return ", ".join(self.nodes[:3])
        turn = f" ({self.nodes.index(self.node) + 1} of {len(self.nodes)})" if len(self.nodes) > 1 else ""
        return f"{self.node}{turn}"

    def take(self, event: e.Event) -> _Row | None:
        if isinstance(event, e.Header) and not event.agent:
            settings = Settings.of(event)
            self.names = {agent: display_names.display(settings, agent) for agent in self.rows}
            if settings.target == "cluster":
                self.nodes = [str(one) for one in event.config.get("nodes", ())]
                self.left.nodes = max(1, len(self.nodes))
        row = self.rows.get(event.agent)
        if row is None or event.stream.startswith("control"):
            return None
        self.left.take(event)
        match event:
            case e.Phase():
                self.node = event.node
                row.phase = f"round {event.round} of {self.rounds}" if event.phase == "round" else event.phase
                row.restart = ""
            case e.Restart():
                row.restart = event.step
                if row.phase in ("waits", "set-up"):
                    row.phase = "starts"
            case e.Attempts():
                row.attempted += event.sent
                row.lost += event.lost
            case e.Heartbeat(tool="probe"):
                self._open[event.agent, event.node, event.stream] = event.open
            case e.Summary(tool="probe"):  # the prober has ended
                self._open.pop((event.agent, event.node, event.stream), None)
            case e.Gap():
                row.gaps += 1
            case e.RuleState():
                row.states[event.node, event.family, event.network] = event.state
            case e.Note(level="warning" | "error"):
                self.warning = event.text
            case _:
                pass
        return row


class _Lines:
    """For pipes and logs: one line for each step."""

    def __init__(self, rows: _Rows) -> None:
        self._rows = rows
        self._begin = time.monotonic()

    def __call__(self, event: e.Event) -> None:
        row = self._rows.take(event)
        if row is None:
            return
        name = self._rows.names[event.agent]
        where = f"{name} on {event.node}" if event.node else name
        match event:
            case e.Phase():
                so_far = f"{row.lost:,} of {row.attempted:,} lost, {plural(row.gaps, 'gap')} so far"
                self._say(f"{where}: {row.phase} ({so_far})")
            case e.Restart(step="failed"):
                self._say(f"{where}: {event.detail}")
            case e.Note(level="warning" | "error"):
                self._say(f"{where}: {event.text}")
            case _:
                pass

    def _say(self, text: str) -> None:
        click.echo(f"{time.monotonic() - self._begin:6.1f} s  {clean(text)}", err=True)

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


class _Live:
    """For terminals: a table that is redrawn in place, and removed before the result is shown."""

    def __init__(self, rows: _Rows) -> None:
        from rich.console import Console
        from rich.live import Live

        self._rows = rows
        self._begin = time.monotonic()
        # made when it is drawn, a few times a second, not for each event
        self._console = Console(stderr=True, markup=False, emoji=False)
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=5, transient=True)

    def __call__(self, event: e.Event) -> None:
        self._rows.take(event)

    def _table(self) -> Table:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        place = self._rows.place
        table = Table(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            padding=(0, 1, 0, 0),
            title=Text(f"{time.monotonic() - self._begin:.0f} s{f'  {clean(place)}' if place else ''}"),
            title_justify="left",
            caption=self._below(),
            caption_justify="left",
        )
        # fixed widths; columns that do not fit into the terminal are left out
        room = self._console.width - 1 - sum(width + _GAP for _, width, rank in _COLUMNS if not rank)
        shown = set()
        for rank, name, width in sorted((rank, name, width) for name, width, rank in _COLUMNS if rank):
            room -= width + _GAP
            if room >= 0:
                shown.add((rank, name))
        columns = [(name, width) for name, width, rank in _COLUMNS if not rank or (rank, name) in shown]
        for name, width in columns:
            right = name in ("attempted", "lost", "gaps")
            if name == "agent":
                table.add_column(name, min_width=width, overflow="fold")
            else:
                table.add_column(name, no_wrap=True, min_width=width, justify="right" if right else "left")
        for agent, row in self._rows.rows.items():
            cells = self._cells(self._rows.names[agent], row)
            table.add_row(*(cells[name] for name, _ in columns))
        return table

    def _below(self) -> Text:
        """Time left, pending attempts, how to end it; then the last warning."""
        from rich.text import Text

        left, pending = self._rows.left.seconds(), self._rows.pending
        parts = [f"about {left:.0f} s left"] if left is not None else []
        parts += [f"{plural(pending, 'attempt')} pending"] if pending else []
        line = Text("; ".join([*parts, "Ctrl-C ends it and prints what is known"]), style="dim")
        return line.append(f"\n{clean(self._rows.warning)}", style="not dim yellow") if self._rows.warning else line

    def _cells(self, agent: str, row: _Row) -> dict[str, Text]:
        from rich.text import Text

        colours = {"carried": "green", "not carried": "bold red", "cannot tell": "yellow"}
        return {
            "agent": Text(clean(agent), style="bold"),
            "now": Text(row.phase, style="dim" if row.phase in ("waits", "set-up", "end") else "cyan"),
            "": Text(row.restart, style="dim"),
            "rules": Text(row.rules, style=colours.get(row.rules, "dim")),
            "attempted": Text(f"{row.attempted:,}"),
            "lost": Text(f"{row.lost:,}", style="red" if row.lost else ""),
            "gaps": Text(f"{row.gaps:,}", style="red" if row.gaps else ""),
        }

    def __enter__(self) -> _Live:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.__exit__(kind, error, at)


class _Nothing:
    """No progress at all."""

    def __call__(self, event: e.Event) -> None:
        pass

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass


def view(agents: Sequence[str], rounds: int, *, quiet: bool = False, progress: str | None = None) -> DrillView:
    """The view of ``--progress`` (``live``, ``lines``, ``none``); by default the one for standard error's type."""
    kind = progress or ("live" if sys.stderr.isatty() and not quiet else "lines")
    if kind == "none":
        return _Nothing()
    rows = _Rows(agents, rounds)
    return _Live(rows) if kind == "live" else _Lines(rows)
