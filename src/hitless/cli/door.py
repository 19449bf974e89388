"""What is put before standard output and standard error: nothing that acts on a terminal gets past it.

Problem: texts are cleaned where they are put into sentences, and the next command that is written may forget it.
Promise: whatever is written as text (by click, rich, argparse, a traceback) passes ``cleaning.for_terminal``; all else
of the stream is as it was. Event lines are written to the descriptor and are JSON: they do not come by here.
"""

from __future__ import annotations

from io import TextIOWrapper
from typing import Any

from hitless.cleaning import for_terminal

__all__ = ["Door"]


class Door:
    """In a stream's place."""

    def __init__(self, stream: TextIOWrapper) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it, spelt out where it would act."""
        self._stream.write(for_terminal(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
