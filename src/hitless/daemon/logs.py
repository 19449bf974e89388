"""Structured logs: one JSON object a line, one line for each decision, record and failure.

Problem: a failure that repeats every five seconds buries everything else, and one that repeats ten times a second fills
the node's disk; but two gaps must be two lines, even if their texts are equal. Promise:

- Each line has ``time``, ``level``, ``event``, the event's stable ``code``, and its facts; no fact replaces one of
  these.
- A failure (``warning``, ``error``) that repeats within a minute is counted, not printed.
- Records (``notice``, ``info``) are all printed, up to sixty a minute of one kind, and counted from there.
- Lines are of one kind if event and facts agree. Numbers and times do not count, except in facts that identify the
  subject (``_IDENTITY``: the family, the networks, the file, …).
- The count appears as ``repeated_before`` in the next line of its kind, or as an event ``repeated`` after a minute.

Every line is flushed.
"""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from hitless.cleaning import in_json
from hitless.daemon.log_codes import FORMER, code_of

__all__ = ["Log", "Stream"]

Fact = str | int | float | bool | list[str] | dict[str, object] | None


class Stream(Protocol):
    """The target of log lines."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


_NUMBERS = re.compile(r"[0-9]+")
_IDENTITY = frozenset(
    {"backend", "family", "fields", "flags", "kind", "network", "networks", "path", "place", "subnets", "where"}
)
"""Facts that identify a line's subject: two lines that differ in one of them are never of one kind."""
_OWN = frozenset({"time", "level", "event", "former_event", "code", "node"})
"""Reserved names; a fact of such a name is written with ``fact_`` in front."""
_WINDOW = 60.0  # seconds within which an equal line is a repetition
_OFTEN = 60  # records of one kind in that time
_MOST_LINES = 1000  # of all kinds in that time
_MOST_KINDS = 256  # that are remembered: a kind contains names from outside


@dataclass(slots=True)
class _Kind:
    """Equal lines: since when, how many were printed, and how many were only counted."""

    event: str
    reason: str
    since: float
    printed: int = 0
    counted: int = 0


class Log:
    """Writes to a stream; ``verbosity`` 0 hides ``debug``. From any thread."""

    def __init__(
        self, stream: Stream, *, verbosity: int = 0, node: str = "", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._verbosity = verbosity
        self._node = node
        self._monotonic = monotonic
        self._kinds: dict[str, _Kind] = {}
        self._since, self._lines, self._unprinted = -math.inf, 0, 0  # of all kinds, in this minute
        self._lock = threading.Lock()

    def debug(self, event: str, **facts: Fact) -> None:
        """A decision to do nothing."""
        if self._verbosity > 0:
            self._bounded("debug", event, facts, _OFTEN)

    def info(self, event: str, **facts: Fact) -> None:
        """Something was done or learned."""
        self._bounded("info", event, facts, _OFTEN)

    def notice(self, event: str, **facts: Fact) -> None:
        """A record: each occurrence counts."""
        self._bounded("warning", event, facts, _OFTEN)

    def warning(self, event: str, **facts: Fact) -> None:
        """A problem that the daemon handles itself."""
        self._bounded("warning", event, facts, 1)

    def error(self, event: str, **facts: Fact) -> None:
        """A problem that an operator has to fix."""
        self._bounded("error", event, facts, 1)

    def close(self) -> None:
        """Write the counts that are not written yet."""
        with self._lock:
            self._sweep(math.inf)

    def _bounded(self, level: str, event: str, facts: dict[str, Fact], most: int) -> None:
        reason = str(facts.get("reason", ""))
        key = _key(level, event, facts)
        with self._lock:
            now = self._monotonic()
            kind = self._kinds.get(key)
            before = 0
            if kind is not None and now - kind.since >= _WINDOW:
                before, kind = self._kinds.pop(key).counted, None
            self._sweep(now)
            if kind is None:
                if len(self._kinds) >= _MOST_KINDS:
                    self._forget(next(iter(self._kinds)), now)
                kind = self._kinds[key] = _Kind(event, reason, now)
            if kind.printed >= most:
                kind.counted += 1 + before
                return
            if not self._room(now):
                self._unprinted += 1 + before
                return
            kind.printed += 1
            for one in self._kinds.values():
                if one.event == event:
                    before, one.counted = before + one.counted, 0
            self._write(level, event, {**facts, "repeated_before": before} if before else facts)

    def _room(self, now: float) -> bool:
        """Whether another line of any kind may be written in this minute: names from outside could make each a new
        kind."""
        if now - self._since >= _WINDOW:
            unprinted, self._unprinted = self._unprinted, 0
            self._since, self._lines = now, 0
            if unprinted:
                self._write("warning", "repeated", {"of": "lines of any kind", "times": unprinted})
        self._lines += 1
        return self._lines <= _MOST_LINES

    def _sweep(self, now: float) -> None:
        """Forget kinds whose minute is over; they are ordered by their first line."""
        while self._kinds and now - next(iter(self._kinds.values())).since >= _WINDOW:
            self._forget(next(iter(self._kinds)), now)

    def _forget(self, key: str, now: float) -> None:
        kind = self._kinds.pop(key)
        if kind.counted and not self._room(now):
            self._unprinted += kind.counted
        elif kind.counted:
            self._write("warning", "repeated", {"of": kind.event, "reason": kind.reason, "times": kind.counted})

    def _write(self, level: str, event: str, facts: dict[str, Fact]) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event}
        line["code"] = code_of(event)
        if event in FORMER:
            line["former_event"] = FORMER[event]
        if self._node:
            line["node"] = self._node
        kept = {
            f"fact_{name}" if name in _OWN else name: value
            for name, value in facts.items()
            if value is not None and value != ""
        }
        try:
            self._stream.write(in_json(json.dumps({**line, **kept}, ensure_ascii=False)) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # no reader any more, or a full disk: the rules matter more than the log
            self._verbosity = 0


def _key(level: str, event: str, facts: dict[str, Fact]) -> str:
    """Equal for lines of one kind: numbers and times may differ, but not the family, the file and so on."""
    about = sorted((name, str(value)) for name, value in facts.items() if name in _IDENTITY)
    rest = sorted((name, str(value)) for name, value in facts.items() if name not in _IDENTITY)
    return f"{level} {event} {about} {_NUMBERS.sub('#', str(rest))}"
