"""Converts a record to a log line: the same for both daemons.

Promise: a record's type becomes the line's event. The record's ``code`` becomes ``reason_code``, because a line's
``code`` is that of its event. The record's time is left out, as the line has its own. Next stage: ``logs``.
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
