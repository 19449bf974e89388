"""The overlay's port to the kernel, with a real and a fake implementation."""

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
        """All that is there; an object that equals one of ``known`` is that one, so that it is in memory once."""

    def apply(self, changes: Sequence[LinkChange]) -> Mapping[int, HitlessError]:
        """Write in order; returns the errors of refused changes, by index."""

    def direct(self, addresses: Iterable[Address]) -> Mapping[Address, str]:
        """The addresses that are reached without a gateway, and by which interface."""

    def events(self, scope: Scope) -> Iterator[LinkEvent]:
        """The changes since the last call; raises ``EventsLostError``. The first call begins to listen."""
