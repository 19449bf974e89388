"""A cluster in network namespaces: nodes, pods, an underlay and a far end; and agents to restart in it.

with lab.up(lab.LabPlan(nodes=1, pods_per_node=1)) as cluster:
    processes.run(["ip", "route"], namespace=cluster.nodes[0].pods[0].namespace)
"""

from __future__ import annotations

from hitless.lab.building import Lab, restore, up, up_async
from hitless.lab.clusters import LabCluster, LabFarEnd, LabNode, LabPod, Underlay
from hitless.lab.plans import LabPlan, Stack

__all__ = [
    "Lab",
    "LabCluster",
    "LabFarEnd",
    "LabNode",
    "LabPlan",
    "LabPod",
    "Stack",
    "Underlay",
    "restore",
    "up",
    "up_async",
]
