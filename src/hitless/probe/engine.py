"""An epoll loop that measures how long it was not scheduled.

Problem: a process that the kernel did not run (busy cores, SIGSTOP, a paused virtual machine) sees all deadlines pass
at once, and would report an outage that was its own. Promise: the loop measures how much later than planned each turn
began. A sleep longer than ``sleep_ns`` does not count towards any deadline (``awake`` time stands still), and is kept,
so that a loss in that time is called starved. Descriptors are served before deadlines, so that an answer in a socket
buffer is always read before its attempt is given up. Not asyncio, which costs 80 us a connection. No threads. Next
stages: ``prober`` and ``farend`` run on it.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from hitless.kernel.clock import Clock

__all__ = ["Delay", "Engine"]

_BATCH = 4096  # events a turn; epoll's default of 1,023 leaves some unread after a long sleep

Item = TypeVar("Item")


class Delay(Generic[Item]):
    """Items that are due a fixed time after they began: a queue, so that no heap is needed."""

    __slots__ = ("_fire", "_items", "delay_ns")

    def __init__(self, delay_ns: int, fire: Callable[[Item], None]) -> None:
        self.delay_ns = delay_ns
        self._fire = fire
        self._items: deque[tuple[int, Item]] = deque()

    def add(self, began: int, item: Item) -> None:
        """Add an item that began at ``began`` (awake time, not before the item before it)."""
        self._items.append((began + self.delay_ns, item))

    def next_due(self) -> int | None:
        """When the first item is due (awake time)."""
        return self._items[0][0] if self._items else None

    def expire(self, awake: int) -> None:
        """Handle the items that are due."""
        items = self._items
        while items and items[0][0] <= awake:
            self._fire(items.popleft()[1])


class Engine:
    """Descriptors, deadlines, and the loop's own lag. Times are the clock's Unix nanoseconds.

    Lags up to ``sleep_ns`` are normal on a busy machine and count towards the timeouts, which are longer.
    """

    def __init__(self, clock: Clock, sleep_ns: int = 250_000_000) -> None:
        self.clock = clock
        self._sleep = sleep_ns
        self.now = clock.now()
        self.asleep = 0
        self.max_lag = 0
        self._epoll = select.epoll()
        self._ready: dict[int, Callable[[int], None]] = {}
        self._delays: list[Delay[object]] = []
        self._turned = self.now
        self._full = False

    @property
    def awake(self) -> int:
        """The time that counts towards deadlines: the clock without the sleeps."""
        return self.now - self.asleep

    @property
    def watched(self) -> int:
        """How many descriptors are watched."""
        return len(self._ready)

    def watch(self, fd: int, mask: int, ready: Callable[[int], None]) -> None:
        """Call ``ready`` with the event mask when ``fd`` is ready; end it with ``forget`` before closing ``fd``."""
        self._epoll.register(fd, mask)
        self._ready[fd] = ready

    def rewatch(self, fd: int, mask: int, ready: Callable[[int], None] | None = None) -> None:
        """Change the event mask, and the handler if given."""
        self._epoll.modify(fd, mask)
        if ready is not None:
            self._ready[fd] = ready

    def forget(self, fd: int) -> None:
        """Stop watching; closing the descriptor removes it from epoll."""
        self._ready.pop(fd, None)

    def delay(self, delay_ns: int, fire: Callable[[Item], None]) -> Delay[Item]:
        """A new queue of deadlines."""
        queue = Delay(delay_ns, fire)
        self._delays.append(queue)  # type: ignore[arg-type]  # each queue only ever fires its own items
        return queue

    def turn(self, wake_at: int) -> None:
        """Wait until something is ready or due, at most until ``wake_at``, and handle it."""
        due = min((when for queue in self._delays if (when := queue.next_due()) is not None), default=None)
        if due is not None:
            wake_at = min(wake_at, due + self.asleep)
        wait = 0 if self._full else max(0, wake_at - self.clock.now())
        events = self._epoll.poll(wait / 1e9, _BATCH)
        self.now = self.clock.now()
        lag = self.now - self._turned - wait
        self._turned = self.now
        if lag > self.max_lag:
            self.max_lag = lag
        if lag > self._sleep:
            self.asleep += lag
        ready = self._ready
        for fd, mask in events:
            handler = ready.get(fd)
            if handler is not None:
                handler(mask)
        self._full = len(events) == _BATCH
        if self._full:  # there may be more answers waiting: read them before anything is given up
            return
        awake = self.now - self.asleep
        for queue in self._delays:
            queue.expire(awake)

    def lag(self) -> int:
        """The largest lag since the last call."""
        lag, self.max_lag = self.max_lag, 0
        return lag

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()
