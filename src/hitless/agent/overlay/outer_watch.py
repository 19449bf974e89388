"""Follows changes of this node's outer interface and address.

Problem: flannel reads them once; when a node gets another address, or its interface is created again, pods of other
nodes are unreachable until flannel is restarted. Promise: the kernel's events cause another reading. An address that is
still there is kept, also when others are added. Another one is adopted when two readings in a row find it, so that a
DHCP client that removes and adds the address changes nothing. An address that is gone without a successor is reported
and kept. Next stage: ``service`` informs the source of leases and the loop.
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

_SOON = 0.2  # seconds after an event: several events cause one reading
_SURE = 1.0  # seconds between the two readings
_AGAIN = 5.0  # seconds after a failed reading


class OuterInterfaceWatch:
    """``read`` reads the node (in a thread), given the earlier choices. ``on_change`` is called with another result,
    and also with the same one if an interface of it has changed in between."""

    def __init__(
        self,
        events: AddressEvents,
        read: Callable[[Mapping[Family, tuple[Outer, ...]]], OuterInterfaces],
        on_change: Callable[[OuterInterfaces], None],
        *,
        soon: float = _SOON,
        sure: float = _SURE,
    ) -> None:
        self._events, self._read, self._on_change, self._soon, self._sure = events, read, on_change, soon, sure
        self._event = asyncio.Event()
        self._known: OuterInterfaces | None = None
        self._first: Mapping[Family, Outer] = {}
        self._touched = False  # an event concerned a chosen interface

    def begin(self, known: OuterInterfaces) -> None:
        """Follow this choice from now on: that of the start, or one that an annotation has changed."""
        self._known, self._first = known, known.outer
        self._event.set()  # there may have been changes since

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._events.fileno(), self._drain)
        try:
            while True:
                await self._event.wait()
                await asyncio.sleep(self._soon)
                self._event.clear()
                try:
                    await self._follow()
                except HitlessError:
                    loop.call_later(_AGAIN, self._event.set)
        finally:
            loop.remove_reader(self._events.fileno())

    def close(self) -> None:
        """Stop listening."""
        self._events.close()

    def _drain(self) -> None:
        about = self._events.drain()
        known = self._known
        if about is None or (known is not None and any(index in about for index, _ in known.marks)):
            self._touched = True
        self._event.set()

    async def _follow(self) -> None:
        known = self._known
        if known is None:
            return
        before = {
            family: tuple(dict.fromkeys(one for one in (self._first.get(family), now) if one is not None))
            for family, now in known.outer.items()
        }
        touched, self._touched = self._touched, False
        seen = await asyncio.to_thread(self._read, before)
        if _addresses(seen) != _addresses(known):
            await asyncio.sleep(self._sure)
            again = await asyncio.to_thread(self._read, before)
            if _addresses(again) != _addresses(seen):
                self._touched = touched
                self._event.set()
                return
            seen = again
        if (touched or seen != known) and self._known is known:
            self._known = seen
            self._on_change(seen)


def _addresses(seen: OuterInterfaces) -> list[tuple[Family, str, str]]:
    return [(family, one.name, str(one.external)) for family, one in seen.outer.items()]
