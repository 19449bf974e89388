"""SIGTERM and SIGINT end a daemon; no other signal does."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable

__all__ = ["ENDS", "set_on_end", "when_ended"]

ENDS = (signal.SIGTERM, signal.SIGINT)


def set_on_end(stop: threading.Event) -> None:
    """For a daemon with threads: ``stop`` is set. From the main thread."""
    for number in ENDS:
        signal.signal(number, lambda *_: stop.set())


def when_ended(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    """For a daemon with an event loop: ``stop`` is called in it."""
    for number in ENDS:
        loop.add_signal_handler(number, stop)
