"""The node's facts, kept up to date: which pods there are, and by which interface packets leave.

Problem: pods come and go, and reading the node costs some milliseconds. Promise: ``look`` reads it again when it is
due: every 5 s, every second while something is missing, and never for more than a third of a per cent of a core. An
uplink that was known stays known while its interface exists, also while its route is missing for a moment. Next stages:
``watch``, ``guard``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from hitless.kernel.namespaces import HERE, Namespace
from hitless.model.families import Family, family_of
from hitless.observe.nodes import NodeView, Viewer
from hitless.observe.uplinks import uplink
from hitless.observe.witnesses import Asking, Witnesses, find, looking_up
from hitless.semantics import far_ends

__all__ = ["LiveNode"]

_EVERY = 5.0
_SOON = 1.0
_SHARE = 300  # and at least so many times what the last reading took


class LiveNode:
    """One node. For one thread at a time."""

    def __init__(
        self, namespace: Namespace = HERE, families: Iterable[Family] = tuple(Family), *, uplink: str = ""
    ) -> None:
        """``uplink``: the interface that the user named."""
        self._viewer = Viewer(namespace, families)
        self._named = uplink
        self._uplinks: dict[Family, str] = {}
        self._missing = False
        self._looked = self._cost = 0.0
        try:
            self.view = self._look()
        except BaseException:
            self._viewer.close()
            raise

    def close(self) -> None:
        """Close the socket."""
        self._viewer.close()

    def look(self, now: float) -> bool:
        """Read the node again when it is due; whether that was done. ``now``: of the monotonic clock."""
        wait = max(_SOON if self._missing else _EVERY, _SHARE * self._cost)
        if now < self._looked + wait:
            return False
        self.view = self._look()
        return True

    def _look(self) -> NodeView:
        begun = time.thread_time()
        view = self._viewer.look()
        self._cost = time.thread_time() - begun
        self._looked = time.monotonic()
        self._missing = False
        return view

    def uplink(self, family: Family) -> str:
        """The uplink of a family, where no network is known yet; empty: it is not known."""
        look_up = looking_up(self._viewer, self.view)
        found = uplink(self.view, family, far_ends(family), look_up, named=self._named).name
        self._missing = self._missing or not found
        return found

    def witnesses(self, asking: Asking) -> Witnesses:
        """The witnesses of a network, from the last reading."""
        family = family_of(asking.network)
        asking = replace(asking, uplink=asking.uplink or self._named)
        look_up = looking_up(self._viewer, self.view)
        found = find(asking, self.view, look_up)
        before = self._uplinks.get(family, "")
        if found.uplink.name:
            self._uplinks[family] = found.uplink.name
        elif before in self.view.links:
            found = find(replace(asking, uplink=before), self.view, look_up)
        self._missing = self._missing or not found.known
        return found
