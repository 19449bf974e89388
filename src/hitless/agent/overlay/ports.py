"""What the overlay's loop needs of a node: the few methods that the real kernel and the fake one share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from hitless.errors import HitlessError
from hitless.kernel.links.events import LinkEvent
from hitless.kernel.links.scope import Scope
from hitless.model.families import Address
from hitless.model.links import Key, LinkChange, LinkObject, LinkState

__all__ = ["LinksPort"]


class LinksPort(Protocol):
    """Links and routes of one node. Real: ``hitless.kernel.links.Links``; fake: ``hitless.testing.fake_links``."""

    def observe(self, scope: Scope, known: Mapping[Key, LinkObject] = MappingProxyType({})) -> LinkState:
        """What is there, whole; what equals something ``known`` is that object, so that it is in memory once."""

    def apply(self, changes: Sequence[LinkChange]) -> Mapping[int, HitlessError]:
        """Write in order; why some were refused, by place."""

    def direct(self, addresses: Iterable[Address]) -> Mapping[Address, str]:
        """Which are reached without a gateway, by which interface."""

    def events(self, scope: Scope) -> Iterator[LinkEvent]:
        """What has changed since the last call; raises ``EventsLostError``. The first call begins to listen."""
