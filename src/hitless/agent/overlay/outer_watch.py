"""This node's outer interface and own address, followed while they change.

Problem: flannel looks for them once; when a node gets another address, or its interface is made anew, pods of other
nodes are out of reach until somebody restarts it. Promise: the kernel's events are a reason to look again. An address
that is still there is kept, whatever else comes; another one is taken when two looks in a row find it, so that a lease
that is renewed by removing and adding the address moves nobody; one that is gone without a successor is named, and
stays. Next stage: ``running`` tells the source and the loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from hitless.agent.overlay.outer import OuterInterfaces
from hitless.errors import HitlessError
from hitless.kernel.links.outside import AddressEvents
from hitless.model.families import Family
from hitless.model.overlay import Outer

__all__ = ["OuterInterfaceWatch"]

_SOON = 0.2  # seconds after an event: what comes together is looked at once
_SURE = 1.0  # seconds between the two looks
_AGAIN = 5.0  # seconds, where looking failed


class OuterInterfaceWatch:
    """``look`` reads the node (in a thread) and is given the earlier choices; ``found`` is called with what changed,
    and when an interface of the last look changed and is as it was."""

    def __init__(
        self,
        events: AddressEvents,
        look: Callable[[Mapping[Family, tuple[Outer, ...]]], OuterInterfaces],
        found: Callable[[OuterInterfaces], None],
        *,
        soon: float = _SOON,
        sure: float = _SURE,
    ) -> None:
        self._events, self._look, self._found, self._soon, self._sure = events, look, found, soon, sure
        self._news = asyncio.Event()
        self._known: OuterInterfaces | None = None
        self._first: Mapping[Family, Outer] = {}
        self._touched = False  # an interface that was chosen

    def begin(self, known: OuterInterfaces) -> None:
        """From now on: this was chosen at the start, or anew because somebody asked for another address."""
        self._known, self._first = known, known.outer
        self._news.set()  # what happened meanwhile

    async def run(self) -> None:
        """Until cancelled."""
        turning = asyncio.get_running_loop()
        turning.add_reader(self._events.fileno(), self._heard)
        try:
            while True:
                await self._news.wait()
                await asyncio.sleep(self._soon)
                self._news.clear()
                try:
                    await self._one()
                except HitlessError:
                    turning.call_later(_AGAIN, self._news.set)
        finally:
            turning.remove_reader(self._events.fileno())

    def close(self) -> None:
        """Listen no more."""
        self._events.close()

    def _heard(self) -> None:
        about = self._events.drain()
        known = self._known
        if about is None or (known is not None and any(index in about for index, _ in known.marks)):
            self._touched = True
        self._news.set()

    async def _one(self) -> None:
        known = self._known
        if known is None:
            return
        before = {
            family: tuple(dict.fromkeys(one for one in (self._first.get(family), now) if one is not None))
            for family, now in known.outer.items()
        }
        touched, self._touched = self._touched, False
        seen = await asyncio.to_thread(self._look, before)
        if _places(seen) != _places(known):
            await asyncio.sleep(self._sure)
            again = await asyncio.to_thread(self._look, before)
            if _places(again) != _places(seen):
                self._touched = touched
                self._news.set()
                return
            seen = again
        if (touched or seen != known) and self._known is known:
            self._known = seen
            self._found(seen)


def _places(seen: OuterInterfaces) -> list[tuple[Family, str, str]]:
    return [(family, one.name, str(one.external)) for family, one in seen.outer.items()]
