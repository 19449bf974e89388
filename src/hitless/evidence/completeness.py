"""Whether a record holds everything that its own tools counted.

Problem: a line that is missing from the middle of a log, or is in it twice, leaves no trace among the events. Promise:
each tool's last line (its summary) counts what it wrote, and is compared with the events of the same stream here. Tools
that were killed have no summary: these are found by their headers and heartbeats (``criteria``), and what they
left unwritten is estimated from their heartbeats. Next stages: ``figures``, ``criteria``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from hitless.evidence.records import CONTROL, Record
from hitless.model import events as e
from hitless.model.event_fields import TRANSPORTS

__all__ = ["counted_losses", "differences", "skipped", "unwritten"]

_SKIP = "skipped_"
"""Prefix of a prober's counters of attempts that it did not make."""


def _total(summary: e.Summary, what: str) -> int:
    """A prober's counter, summed over all kinds of traffic."""
    return sum(summary.totals.get(f"{kind}_{what}", 0) for kind in TRANSPORTS)


def _summaries(record: Record, tool: str) -> list[e.Summary]:
    return [one for one in record.summaries if one.tool == tool and not one.stream.startswith(CONTROL)]


def counted_losses(record: Record) -> int:
    """The losses of probers by their summaries."""
    return sum(_total(summary, "lost") for summary in _summaries(record, "probe"))


def skipped(record: Record) -> tuple[int, dict[str, int]]:
    """Planned attempts that were not made; and why, as far as there are summaries."""
    by_stream: dict[str, int] = defaultdict(int)
    for beat in record.heartbeats:
        if beat.tool == "probe" and not beat.stream.startswith(CONTROL):
            by_stream[beat.stream] = max(by_stream[beat.stream], beat.skipped)
    why: Counter[str] = Counter()
    for summary in _summaries(record, "probe"):
        own = {key.removeprefix(_SKIP): n for key, n in summary.totals.items() if key.startswith(_SKIP) and n}
        why.update(own)
        by_stream[summary.stream] = max(by_stream[summary.stream], sum(own.values()))
    return sum(by_stream.values()), dict(sorted(why.items()))


def unwritten(record: Record) -> int:
    """Attempts that killed probers had begun, and that are in no written interval: at least so many."""
    begun: dict[str, int] = defaultdict(int)
    for beat in record.heartbeats:
        if beat.tool == "probe" and not beat.stream.startswith(CONTROL):
            begun[beat.stream] = max(begun[beat.stream], beat.begun)
    sent = _sent(record)
    return sum(max(0, number - sent[stream]) for stream, number in begun.items())


def _sent(record: Record) -> Counter[str]:
    sent: Counter[str] = Counter()
    for one in record.attempts:
        sent[one.stream] += one.sent
    return sent


def differences(record: Record) -> Iterator[str]:
    """Where the log has fewer or more events than their tool counted."""
    sent = _sent(record)
    for summary in _summaries(record, "probe"):
        counted = _total(summary, "sent")
        if counted and sent[summary.stream] != counted:
            yield _differs(sent[summary.stream], counted, "attempt", "the prober")
        broken = sum(1 for one in record.breaks if one.stream == summary.stream)
        if broken != summary.totals.get("stream_breaks", broken):
            yield _differs(broken, summary.totals["stream_breaks"], "broken stream", "the prober")
    for summary in _summaries(record, "watch"):
        for key, what, events in (("gaps", "gap", record.gaps), ("lost_events", "loss", record.lost_events)):
            mine = sum(1 for event in events if event.stream == summary.stream)
            counted = summary.totals.get(key, mine)
            if mine != counted:
                several = "losses of rule events" if what == "loss" else ""
                yield _differs(mine, counted, what, "the watch", several)


def _differs(found: int, counted: int, what: str, tool: str, several: str = "") -> str:
    name = several or f"{what}{'' if counted == 1 else 's'}"
    how = "missing" if found < counted else "there twice"
    return f"the log has {found:,} of the {counted:,} {name} that {tool} counted: a part of its record is {how}"
