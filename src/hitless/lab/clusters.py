"""A running lab as values: nodes, pods, the underlay and the far end, each with its network namespace.

Promise: the values can be used by any stage (watch, probe, agent) and sent to another process; they hold no open file.
The lab that keeps the namespaces alive is ``hitless.lab.building.Lab``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hitless.kernel.namespaces import Namespace
from hitless.lab.plans import LabPlan
from hitless.model.families import Address, Family, Network

__all__ = ["LabCluster", "LabFarEnd", "LabNode", "LabPod", "Underlay"]


@dataclass(frozen=True, slots=True)
class LabPod:
    """A workload's network namespace; ``interface`` is the host side of its link, ``eth0`` its own."""

    name: str
    node: str
    namespace: Namespace
    interface: str
    addresses: Mapping[Family, Address]

    @property
    def address(self) -> Address:
        """Its address in the lab's first family."""
        return next(iter(self.addresses.values()))


@dataclass(frozen=True, slots=True)
class LabNode:
    """A host: network and mount namespace. ``root`` is its file system seen from outside (with its own /run)."""

    name: str
    index: int
    namespace: Namespace
    root: Path
    pods: tuple[LabPod, ...]
    addresses: Mapping[Family, Address]
    subnets: Mapping[Family, Network]
    uplink: str = "eth0"

    @property
    def address(self) -> Address:
        """Its underlay address in the lab's first family."""
        return next(iter(self.addresses.values()))


@dataclass(frozen=True, slots=True)
class LabFarEnd:
    """The addresses outside the cluster; it has no route back to the pod network."""

    name: str
    namespace: Namespace
    addresses: Mapping[Family, tuple[Address, ...]]

    @property
    def address(self) -> Address:
        """Its first address in the lab's first family."""
        return next(iter(self.addresses.values()))[0]


@dataclass(frozen=True, slots=True)
class Underlay:
    """The switch that connects the nodes; it also routes between them and the far end."""

    name: str
    namespace: Namespace


@dataclass(frozen=True, slots=True)
class LabCluster:
    """The whole lab."""

    plan: LabPlan
    nodes: tuple[LabNode, ...]
    underlay: Underlay
    far_end: LabFarEnd

    @property
    def pods(self) -> tuple[LabPod, ...]:
        """Every pod of every node."""
        return tuple(pod for node in self.nodes for pod in node.pods)

    @property
    def places(self) -> Mapping[str, Namespace]:
        """All namespaces by name."""
        found: list[LabNode | LabPod | LabFarEnd | Underlay] = [*self.nodes, *self.pods, self.underlay, self.far_end]
        return {place.name: place.namespace for place in found}
