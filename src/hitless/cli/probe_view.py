"""What people see of a prober or a far end: a line each second, and a table at the end.

Problem: JSON lines are for programs. Promise: made from the same events and nothing else; plain lines where standard
output is no terminal or NO_COLOR is set, a table by rich where it is. Losses are shown as they happen, at most a few a
second, and counted all. Next stage: people.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime

import click

from hitless.model.events import Attempts, Event, Header, Heartbeat, Leak, Loss, Note, Recovery, StreamBreak, Summary

__all__ = ["FarEndView", "ProbeView"]

_LOSSES_SHOWN = 5  # a second; the line counts them all


def _clock(t: int) -> str:
    return datetime.fromtimestamp(t / 1e9).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.1f} ms" if ns < 100_000_000 else f"{ns / 1e9:.2f} s"


class ProbeView:
    """The human side of ``hitless probe``."""

    def __init__(self) -> None:
        self._second: Counter[str] = Counter()
        self._shown = 0
        self._slowest = 0

    def emit(self, event: Event) -> None:
        """Show an event, or collect it for the next line."""
        if event.stream == "control":
            if isinstance(event, Attempts):
                self._second["control"] += event.lost
        elif isinstance(event, Attempts):
            self._second["sent"] += event.sent
            self._second["lost"] += event.lost
            self._second["delayed"] += event.delayed
            self._second["leaked"] += event.leaked
            self._slowest = max(self._slowest, event.latency_max_ns)
        elif isinstance(event, Heartbeat):
            self._line(event)
        elif isinstance(event, Loss | Recovery | StreamBreak | Leak):
            self._event(event)
        elif isinstance(event, Note):
            click.echo(f"{event.level}: {event.text}", err=True)
        elif isinstance(event, Summary):
            self._summary(event)

    def _line(self, beat: Heartbeat) -> None:
        counts = self._second
        click.echo(
            f"{_clock(beat.t)}  ended {counts['sent']:5d}  lost {counts['lost']:4d}  delayed {counts['delayed']:4d}  "
            f"leaked {counts['leaked']:3d}  slowest {_ms(self._slowest):>9}  lag {_ms(beat.max_lag_ns):>8}  "
            f"cpu {100 * beat.cpu_ns / max(1, beat.interval_ns):3.0f} %  {beat.detail}"
        )
        self._second.clear()
        self._slowest = self._shown = 0

    def _event(self, event: Loss | Recovery | StreamBreak | Leak) -> None:
        self._shown += 1
        if self._shown > _LOSSES_SHOWN:
            return
        what = f"{event.src or '?'} port {event.sport} to {event.dst} port {event.dport}"
        if isinstance(event, Loss):
            click.echo(f"{_clock(event.t)}  LOST {event.kind} {what}: {event.cause} {event.detail}".rstrip())
        elif isinstance(event, Recovery):
            end = "works again after" if event.recovered else "still broken after"
            click.echo(f"{_clock(event.begin)}  {event.kind} {what}: {end} {_ms(event.duration_ns)}")
        elif isinstance(event, StreamBreak):
            click.echo(f"{_clock(event.t)}  STREAM {what}: {event.detail}")
        else:
            click.echo(f"{_clock(event.t)}  LEAKED {event.kind} {what}")

    def _summary(self, event: Summary) -> None:
        totals = event.totals
        click.echo(f"{'':8}{'sent':>10}{'ok':>10}{'lost':>8}{'delayed':>9}{'leaked':>8}")
        for kind in ("tcp", "udp", "icmp", "http", "stream"):
            if totals.get(f"{kind}_sent"):
                numbers = [totals.get(f"{kind}_{name}", 0) for name in ("sent", "ok", "lost", "delayed", "leaked")]
                click.echo(f"{kind:8}{numbers[0]:>10}{numbers[1]:>10}{numbers[2]:>8}{numbers[3]:>9}{numbers[4]:>8}")


class FarEndView:
    """The human side of ``hitless farend``."""

    def __init__(self) -> None:
        self._before = ""

    def emit(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Header):
            where = event.config["ports"]
            flow = where["flow"]
            click.echo(
                f"listening at {', '.join(event.config['addresses'])}: TCP and UDP {flow[0]}-{flow[-1]}, "
                f"echo {where['echo']}, HTTP {where['http']}"
            )
        elif isinstance(event, Leak):
            click.echo(
                f"{_clock(event.t)}  LEAKED {event.kind} {event.src} port {event.sport} to {event.dst} {event.dport}"
            )
        elif isinstance(event, Heartbeat) and event.detail != self._before:
            self._before = event.detail
            click.echo(f"{_clock(event.t)}  lag {_ms(event.max_lag_ns)}  {event.detail}")
        elif isinstance(event, Note):
            click.echo(f"{event.level}: {event.text}", err=True)
