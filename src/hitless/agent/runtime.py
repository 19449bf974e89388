"""Real time, waiting in the event loop, and one thread in which the kernel is asked.

Problem: /healthz must answer and events must be taken while a lock is waited for, and netlink sockets belong to one
thread. Promise: ``run`` does one thing after the other in a thread of its own. The only place of the agent's loop that
knows asyncio and the clocks. Next stage: ``loop``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["SYSTEM", "AsyncRuntime", "SystemClock"]

_T = TypeVar("_T")


class SystemClock:
    """This machine's clocks."""

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back."""
        return time.monotonic()

    def wall(self) -> float:
        """The time of day, in seconds since 1970."""
        return time.time()


SYSTEM = SystemClock()


class AsyncRuntime(SystemClock):
    """For one loop."""

    def __init__(self) -> None:
        self._awake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "kernel")

    async def wait(self, seconds: float) -> None:
        """Until so much time is over, or ``wake`` is called: it counts also when it was called before."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._awake.wait()
            except TimeoutError:
                pass
        self._awake.clear()

    def wake(self) -> None:
        """End ``wait``; for the event loop's thread."""
        self._awake.set()

    async def run(self, action: Callable[[], _T]) -> _T:
        """Do this in the kernel's thread: one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)

    async def end(self, action: Callable[[], None]) -> None:
        """Do this there as the last, and end the thread."""
        await self.run(action)
        self._thread.shutdown(wait=True)
