"""A node's pods and way out, as a test says them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from hitless.guard.standby_rules import WitnessPlace
from hitless.model.families import Family
from hitless.observe import Asking, LocalPod, NodeView, Witnesses, find


@lru_cache(1024)
def _witnesses(place: WitnessPlace, pods: tuple[LocalPod, ...], way: str) -> Witnesses:
    found = find(Asking(place.network, place.subnet, uplink=way), NodeView(), lambda *_: "")
    return replace(found, pods=pods)


@dataclass
class Node:
    """These pods are there, and packets leave by ``way``."""

    pods: tuple[LocalPod, ...] = ()
    way: str = "eth0"

    def witnesses(self, place: WitnessPlace) -> Witnesses:
        return _witnesses(place, self.pods, self.way)

    def uplink(self, family: Family) -> str:
        return self.way
