"""The kinds of Kubernetes objects that this package reads: where each is served, and the struct that reads it.

Problem: a server adds fields and drops kinds with every release, and a typed client of one release misreads another's.
Promise: all kinds and fields that are used have been in v1 APIs for more than three years. The structs are defined by
subject in ``node_objects``, ``pod_objects`` and ``workload_objects``, and imported from here. Objects that we write are
plain JSON documents (``hitless.cluster.manifests``). Next stage: ``api``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

from hitless.kube.node_objects import Node, NodeStatus, Taint
from hitless.kube.object_base import ApiStruct, Condition, Meta, Object, OwnerReference
from hitless.kube.pod_objects import (
    Container,
    ContainerStatus,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    Pod,
    PodSpec,
    Toleration,
)
from hitless.kube.workload_objects import ControllerRevision, DaemonSet, DisruptionBudget

__all__ = [
    "CONFIG_MAPS",
    "CONTROLLER_REVISIONS",
    "DAEMON_SETS",
    "DISRUPTION_BUDGETS",
    "EVENTS",
    "NAMESPACES",
    "NODES",
    "PODS",
    "Condition",
    "ConfigMap",
    "Container",
    "ContainerStatus",
    "ControllerRevision",
    "DaemonSet",
    "DisruptionBudget",
    "Kind",
    "Meta",
    "NamespaceObject",
    "Node",
    "NodeSelectorRequirement",
    "NodeSelectorTerm",
    "NodeStatus",
    "Object",
    "OwnerReference",
    "Pod",
    "PodSpec",
    "Taint",
    "Toleration",
]


class ConfigMap(Object, frozen=True):
    data: dict[str, str] | None = None


class NamespaceStatus(ApiStruct, frozen=True):
    conditions: list[Condition] | None = None


class NamespaceObject(Object, frozen=True):
    status: NamespaceStatus = NamespaceStatus()

    @property
    def held(self) -> str:
        """Why its deletion does not finish, by the server's message; empty when there is none."""
        return next((one.message for one in self.status.conditions or [] if one.status == "True"), "")


T = TypeVar("T", bound=Object)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """Where a kind is served: group (empty for the core), version, plural, and the struct that reads it."""

    group: str
    version: str
    plural: str
    read: type[T]
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", sub: str = "") -> str:
        """The path on the API server; no namespace: all of them."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        inside = f"/namespaces/{quote(namespace, safe='')}" if namespace and self.namespaced else ""
        whole = f"{base}{inside}/{self.plural}" + (f"/{quote(name, safe='')}" if name else "")
        return whole + (f"/{sub}" if sub else "")


NODES = Kind("", "v1", "nodes", Node, namespaced=False)
NAMESPACES = Kind("", "v1", "namespaces", NamespaceObject, namespaced=False)
PODS = Kind("", "v1", "pods", Pod)
CONFIG_MAPS = Kind("", "v1", "configmaps", ConfigMap)
EVENTS = Kind("", "v1", "events", Object)
DAEMON_SETS = Kind("apps", "v1", "daemonsets", DaemonSet)
CONTROLLER_REVISIONS = Kind("apps", "v1", "controllerrevisions", ControllerRevision)
DISRUPTION_BUDGETS = Kind("policy", "v1", "poddisruptionbudgets", DisruptionBudget)
