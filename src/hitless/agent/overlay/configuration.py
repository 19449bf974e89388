"""Whether net-conf.json is still what this agent was started with.

Problem: the configuration is read once, as flannel does, and a cluster whose agents were started with different ones is
hard to understand. Promise: a change is noticed within minutes and named (log, ``/readyz``, a metric); it is not
followed by itself: whoever changed it decides when each node restarts, and one typing error does not reach all nodes at
once. A configuration that cannot be read says nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from hitless.errors import HitlessError

__all__ = ["ConfigurationWatch"]

_EVERY = 300.0  # seconds: of 5,000 nodes etcd is asked 17 times a second for one small key


class ConfigurationWatch:
    """``read`` gives the text (in a thread), ``None`` where there is none; ``tell`` is called with whether it differs
    from ``began``, when that changes."""

    def __init__(
        self, read: Callable[[], str | None], began: str, tell: Callable[[bool], None], *, every: float = _EVERY
    ) -> None:
        self._read, self._began, self._tell, self._every = read, _value(began), tell, every
        self._differs = False

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            try:
                text = await asyncio.to_thread(self._read)
            except (HitlessError, OSError):
                continue
            differs = text is not None and _value(text) != self._began
            if differs != self._differs:
                self._differs = differs
                self._tell(differs)


def _value(text: str) -> object:
    """What it says, whatever the blanks are; else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
