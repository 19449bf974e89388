"""The namespaces of a lab by name, and the cluster that they form.

Promise: every process that can see the keeper gets the same cluster. Nothing is changed here. Next stage:
``hitless.lab.building`` fills them.
"""

from __future__ import annotations

from types import MappingProxyType

from hitless.kernel.namespaces import Namespace
from hitless.lab.clusters import LabCluster, LabFarEnd, LabNode, LabPod, Underlay
from hitless.lab.keeper_client import HeldNamespace, KeeperHandle
from hitless.lab.plans import LabPlan

__all__ = ["LabMembers", "view"]


class LabMembers:
    """The namespaces of a lab by name; with these another process can use the same cluster."""

    def __init__(self, plan: LabPlan, held: dict[str, HeldNamespace]) -> None:
        self.plan = plan
        self.held = held

    @property
    def inodes(self) -> frozenset[int]:
        """The inodes of the network namespaces."""
        return frozenset(each.inode for each in self.held.values())


def view(members: LabMembers, keep: KeeperHandle) -> LabCluster:
    """The cluster as values."""
    plan, held = members.plan, members.held

    def place(name: str) -> Namespace:
        return held[name].namespace(keep)

    nodes = []
    for i in range(plan.nodes):
        name = plan.node_name(i)
        pods = tuple(
            LabPod(
                plan.pod_name(i, p),
                name,
                place(plan.pod_name(i, p)),
                plan.pod_interface(i, p),
                MappingProxyType({family: plan.pod_address(family, i, p) for family in plan.families}),
            )
            for p in range(plan.pods_per_node)
        )
        nodes.append(
            LabNode(
                name,
                i,
                place(name),
                held[name].root_path(keep),
                pods,
                MappingProxyType({family: plan.node_address(family, i) for family in plan.families}),
                MappingProxyType({family: plan.subnet(family, i) for family in plan.families}),
            )
        )
    return LabCluster(
        plan,
        tuple(nodes),
        Underlay("underlay", place("underlay")),
        LabFarEnd("far-end", place("far-end"), MappingProxyType({f: plan.far(f) for f in plan.families})),
    )
