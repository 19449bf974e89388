"""Real time, waiting in the event loop, and the two threads in which the kernel is asked.

Problem: /healthz must answer and events must be taken while a lock is waited for, our rules must be repaired while
everybody's are read, and netlink sockets belong to one thread. Promise: ``run`` does one thing after the other in the
kernel's thread, ``begin`` in the judging thread. The only place of the agent's loop that knows asyncio and the clocks.
Next stage: ``loop``.
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
_LAST = 0.5  # seconds for the judging thread's end
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
        self._running_since = self.monotonic()
        self._not_running.clear()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, action)
        finally:
            self._not_running.set()

    def give_way(self) -> None:
        """Wait while the kernel's thread does something, but not longer than a second: both need the interpreter and a
        core, and a repair needs them first. For the judging thread."""
        if not self._not_running.is_set():
            self._not_running.wait(max(0.0, self._running_since + _GIVES_WAY - self.monotonic()))

    def begin(self, action: Callable[[], _T]) -> Future[_T]:
        """Do this in the judging thread, for which nothing waits; ``wake`` when it is over."""
        turning, done = asyncio.get_running_loop(), Future[_T]()

        def act() -> None:
            try:
                done.set_result(action())
            except BaseException as error:  # noqa: BLE001 - whoever asked gets it
                done.set_exception(error)
            with contextlib.suppress(RuntimeError):  # the event loop has ended meanwhile
                turning.call_soon_threadsafe(self._over)

        if self._judge is None:  # a daemon: at the end of the process a long reading is not waited for
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
        """Do these as the last, each in its thread, and end both; what the judging thread is busy with is left: the
        kernel closes what it had opened."""
        if self._judge is not None:
            if not self._busy:
                self._judging.put(judging)
            self._judging.put(None)
        await self.run(action)
        self._thread.shutdown(wait=True)
        if self._judge is not None and not self._busy:
            self._judge.join(_LAST)
