"""Notices that net-conf.json has changed since this agent was started.

Problem: the configuration is read once, as in flannel, and a cluster whose agents run with different ones is hard to
understand. Promise: a change is reported within minutes (log, ``/readyz``, a metric), but not applied: the operator
decides when each node restarts, and a typing error does not reach all nodes at once. A configuration that cannot be
read is ignored.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from hitless.errors import HitlessError

__all__ = ["ConfigurationWatch"]

_EVERY = 300.0  # seconds: with 5,000 nodes, etcd gets 17 requests a second for one small key


class ConfigurationWatch:
    """``read`` returns the text (in a thread), ``None`` where there is none. ``report`` is called when the text begins
    or ceases to differ from ``initial``, with whether it does."""

    def __init__(
        self, read: Callable[[], str | None], initial: str, report: Callable[[bool], None], *, every: float = _EVERY
    ) -> None:
        self._read, self._initial, self._report, self._every = read, _value(initial), report, every
        self._differs = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            try:
                text = await asyncio.to_thread(self._read)
            except (HitlessError, OSError):
                continue
            differs = text is not None and _value(text) != self._initial
            if differs != self._differs:
                self._differs = differs
                self._report(differs)


def _value(text: str) -> object:
    """The JSON value, so that blanks do not count; else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
