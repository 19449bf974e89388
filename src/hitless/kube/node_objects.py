"""Nodes, as far as they are read here."""

from __future__ import annotations

import msgspec

from hitless.kube.object_base import ApiStruct, Condition, Object, is_true

__all__ = ["Node", "Taint"]


class Taint(ApiStruct, frozen=True):
    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(ApiStruct, frozen=True):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)
    unschedulable: bool = False
    taints: list[Taint] | None = None


class NodeInfo(ApiStruct, frozen=True):
    kubelet_version: str = ""
    operating_system: str = ""
    architecture: str = ""


class NodeAddress(ApiStruct, frozen=True):
    type: str = ""
    address: str = ""


class NodeStatus(ApiStruct, frozen=True):
    conditions: list[Condition] | None = None
    node_info: NodeInfo = NodeInfo()
    addresses: list[NodeAddress] | None = None


class Node(Object, frozen=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def ready(self) -> bool:
        return is_true(self.status.conditions, "Ready")

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        return tuple(self.spec.pod_cidrs or ([self.spec.pod_cidr] if self.spec.pod_cidr else []))

    @property
    def internal_ip(self) -> str:
        return next(iter(self.internal_ips.values()), "")

    @property
    def internal_ips(self) -> dict[str, str]:
        """The first internal address of each family, in the node's order."""
        found: dict[str, str] = {}
        for one in self.status.addresses or []:
            if one.type == "InternalIP":
                found.setdefault("ipv6" if ":" in one.address else "ipv4", one.address)
        return found
