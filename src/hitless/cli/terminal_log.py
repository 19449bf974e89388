"""The guard's log on a terminal: one line for each event, with the time, what happened, and the facts."""

from __future__ import annotations

import json
from typing import Any

from hitless.daemon.logs import Stream

__all__ = ["TerminalLog"]

_FIRST = ("reason", "why", "text", "found")  # texts, printed in front of the other facts
_LEFT_OUT = ("time", "level", "event", "code", *_FIRST)


class TerminalLog:
    """A stream for ``Log`` that writes readable lines instead of JSON."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        for line in text.splitlines():
            self._stream.write(_line(line) + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def _line(text: str) -> str:
    try:
        facts = json.loads(text)
        level, event = str(facts["level"]), str(facts["event"])
    except (ValueError, KeyError, TypeError):
        return _shown(text)
    texts = [str(facts[name]) for name in _FIRST if facts.get(name)]
    rest = [
        f"{name} {_value(value)}" for name, value in facts.items() if name not in _LEFT_OUT and value not in ("", [])
    ]
    head = f"{str(facts.get('time', ''))[11:19]}Z {'' if level == 'info' else level + ': '}{event.replace('_', ' ')}"
    return _shown(f"{head}: {'; '.join(texts)}" if texts else head) + _shown(f" ({', '.join(rest)})" if rest else "")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("comm") or "unknown")  # a writer
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _shown(text: str) -> str:
    """Without control characters: any process may choose its name."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
