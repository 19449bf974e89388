"""Cleans everything that goes to standard output and standard error: no text can control a terminal.

Problem: text is cleaned where it is put into messages, and a new command may forget that.
Promise: all text (from click, rich, argparse, a traceback) passes ``cleaning.for_terminal``; otherwise the stream
behaves as before. Event lines are JSON and are written to the descriptor directly.
"""

from __future__ import annotations

from io import TextIOWrapper
from typing import Any

from hitless.cleaning import for_terminal

__all__ = ["Door"]


class Door:
    """Replaces a stream."""

    def __init__(self, stream: TextIOWrapper) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it, with control characters made visible."""
        self._stream.write(for_terminal(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
