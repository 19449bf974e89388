"""Structured logs: one JSON object a line, one line a decision.

Problem: a failure that repeats every five seconds buries everything else. Promise: each decision is one line with
``time``, ``level``, ``event`` and its facts; the same warning or error again is counted, not printed, and its count
appears with the next different one or after a minute. What is written is flushed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Log", "Stream"]

Fact = str | int | float | bool | list[str] | dict[str, object] | None


class Stream(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...


_QUIET = 60.0  # seconds for which an identical warning is only counted


class Log:
    """Writes to a stream; ``verbosity`` 0 hides ``debug``."""

    def __init__(
        self, stream: Stream, *, verbosity: int = 0, node: str = "", monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._verbosity = verbosity
        self._node = node
        self._monotonic = monotonic
        self._last: tuple[str, str] | None = None
        self._since = 0.0
        self._repeated = 0

    def debug(self, event: str, **facts: Fact) -> None:
        """A decision to do nothing."""
        if self._verbosity > 0:
            self._write("debug", event, facts)

    def info(self, event: str, **facts: Fact) -> None:
        """Something was done or learned."""
        self._write("info", event, facts)

    def notice(self, event: str, **facts: Fact) -> None:
        """Something happened that counts each time."""
        self._write("warning", event, facts)

    def warning(self, event: str, **facts: Fact) -> None:
        """Something is wrong and is being dealt with."""
        self._loud("warning", event, facts)

    def error(self, event: str, **facts: Fact) -> None:
        """Something is wrong and is somebody's to mend."""
        self._loud("error", event, facts)

    def _loud(self, level: str, event: str, facts: dict[str, Fact]) -> None:
        key = (event, str(facts.get("reason", "")))
        now = self._monotonic()
        if key == self._last and now - self._since < _QUIET:
            self._repeated += 1
            return
        if self._repeated:
            facts = {**facts, "repeated_before": self._repeated}
        self._last, self._since, self._repeated = key, now, 0
        self._write(level, event, facts)

    def _write(self, level: str, event: str, facts: dict[str, Fact]) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event}
        if self._node:
            line["node"] = self._node
        kept = {name: value for name, value in facts.items() if value is not None and value != ""}
        try:
            self._stream.write(json.dumps({**line, **kept}, ensure_ascii=False) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            # nobody reads it any more, or its disk is full: the rules matter more than the log
            self._verbosity = 0
