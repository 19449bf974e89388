"""A cluster in network namespaces: nodes, pods, an underlay and a far end; and agents to restart in it.

with lab.up(lab.Plan(nodes=1, pods_per_node=1)) as cluster:
    processes.run(["ip", "route"], namespace=cluster.nodes[0].pods[0].namespace)
"""

from __future__ import annotations

from hitless.lab.building import Lab, restore, up, up_async
from hitless.lab.clusters import Cluster, FarEnd, Node, Pod, Underlay
from hitless.lab.plans import Plan, Stack

__all__ = ["Cluster", "FarEnd", "Lab", "Node", "Plan", "Pod", "Stack", "Underlay", "restore", "up", "up_async"]
