"""Real time, waiting in the event loop, and the two threads that call the kernel.

Problem: /healthz and events must not wait for a lock, a repair must not wait until the rules of all programs are read,
and a netlink socket belongs to one thread. Promise: ``run`` makes one call after the other in the kernel's thread,
``begin`` in the judging thread. No other part of the agent's loop uses asyncio or the clocks. Next stage: ``loop``.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["SYSTEM", "AsyncRuntime", "SystemClock"]

_T = TypeVar("_T")
_LAST = 0.5  # seconds to wait for the judging thread at the end
_GIVES_WAY = 1.0  # seconds that the judging thread waits for one call in the other thread, which may wait for a lock


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
        self._judging: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._judge: threading.Thread | None = None
        self._busy = False
        self._running_since = 0.0
        self._not_running = threading.Event()
        self._not_running.set()

    async def wait(self, seconds: float) -> None:
        """Return after so many seconds, or when ``wake`` is called; at once if it was called since the last
        ``wait``."""
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
        """Call this in the kernel's thread, one call after the other."""
        self._running_since = self.monotonic()
        self._not_running.clear()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, action)
        finally:
            self._not_running.set()

    def give_way(self) -> None:
        """Wait while a call runs in the kernel's thread, but at most a second for each. Called by the judging thread:
        both need the interpreter and a core, and a repair comes first."""
        if not self._not_running.is_set():
            self._not_running.wait(max(0.0, self._running_since + _GIVES_WAY - self.monotonic()))

    def begin(self, action: Callable[[], _T]) -> Future[_T]:
        """Call this in the judging thread, without waiting for it; ``wake`` is called when it has returned."""
        loop, done = asyncio.get_running_loop(), Future[_T]()

        def act() -> None:
            try:
                done.set_result(action())
            except BaseException as error:  # noqa: BLE001 - the caller gets it from the Future
                done.set_exception(error)
            with contextlib.suppress(RuntimeError):  # the event loop has ended meanwhile
                loop.call_soon_threadsafe(self._over)

        if self._judge is None:  # a daemon thread: the end of the process does not wait for a long read
            self._judge = threading.Thread(target=self._judge_on, name="judging", daemon=True)
            self._judge.start()
        self._busy = True
        self._judging.put(act)
        return done

    def _judge_on(self) -> None:
        while (act := self._judging.get()) is not None:
            act()

    def _over(self) -> None:
        self._busy = False
        self.wake()

    async def end(self, action: Callable[[], None], judging: Callable[[], None]) -> None:
        """Make the last call in each thread, and end both. A running call in the judging thread is not waited for: the
        kernel closes its sockets."""
        if self._judge is not None:
            if not self._busy:
                self._judging.put(judging)
            self._judging.put(None)
        await self.run(action)
        self._thread.shutdown(wait=True)
        if self._judge is not None and not self._busy:
            self._judge.join(_LAST)
