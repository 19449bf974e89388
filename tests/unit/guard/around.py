"""A node's pods and way out, as a test says them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hitless.guard.learning import Place
from hitless.model.families import Family
from hitless.observe import Asking, NodeView, Pod, Whom, find


@dataclass
class Node:
    """These pods are there, and packets leave by ``way``."""

    pods: tuple[Pod, ...] = ()
    way: str = "eth0"

    def whom(self, place: Place) -> Whom:
        found = find(Asking(place.network, place.subnet, uplink=self.way), NodeView(), lambda *_: 0)
        return replace(found, pods=self.pods)

    def uplink(self, family: Family) -> str:
        return self.way
