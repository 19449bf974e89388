"""A record as the facts of a log line: the same for both daemons.

Promise: a record's type is the line's event; its ``code``, the reason for machines, is ``reason_code`` there, because
``code`` is the event's own; its time is the line's. Next stage: ``logs``.
"""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["line_of"]


def line_of(record: msgspec.Struct) -> tuple[str, dict[str, Any]]:
    """The event, and its facts."""
    facts: dict[str, Any] = msgspec.to_builtins(record)
    event = str(facts.pop("type"))
    facts.pop("t")
    if "code" in facts:
        facts["reason_code"] = facts.pop("code")
    return event, facts
