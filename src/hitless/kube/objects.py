"""What we read of Kubernetes objects: only the fields that are used, of stable API versions.

Problem: a server adds fields and drops kinds with every release, and a typed client of one release misreads another's.
Promise: each struct names the fields that this package uses (all of them in v1 APIs for more than three years) and
ignores the rest; what is missing has the default that Kubernetes documents. ``Kind`` says where a kind is served.
Objects that we write are plain JSON documents, made in ``manifests``. Next stage: ``api``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec

__all__ = [
    "CONFIG_MAPS",
    "CONTROLLER_REVISIONS",
    "DAEMON_SETS",
    "DISRUPTION_BUDGETS",
    "EVENTS",
    "NAMESPACES",
    "NODES",
    "PODS",
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
    "Object",
    "OwnerReference",
    "Pod",
]


class _Read(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A part of an object; absent and null are the default."""


class OwnerReference(_Read, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class ManagedFields(_Read, frozen=True):
    manager: str = ""
    time: str = ""
    subresource: str = ""


class Meta(_Read, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[OwnerReference] | None = None
    deletion_timestamp: str | None = None
    creation_timestamp: str | None = None
    generation: int = 0
    managed_fields: list[ManagedFields] | None = None


class Object(_Read, frozen=True):
    """Any object: what all kinds have."""

    metadata: Meta = Meta()

    @property
    def name(self) -> str:
        return self.metadata.name

    def label(self, key: str) -> str:
        return (self.metadata.labels or {}).get(key, "")


class Condition(_Read, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class Taint(_Read, frozen=True):
    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(_Read, frozen=True):
    pod_cidr: str = msgspec.field(name="podCIDR", default="")
    pod_cidrs: list[str] | None = msgspec.field(name="podCIDRs", default=None)
    unschedulable: bool = False
    taints: list[Taint] | None = None


class NodeInfo(_Read, frozen=True):
    kubelet_version: str = ""
    operating_system: str = ""
    architecture: str = ""


class NodeAddress(_Read, frozen=True):
    type: str = ""
    address: str = ""


class NodeStatus(_Read, frozen=True):
    conditions: list[Condition] | None = None
    node_info: NodeInfo = NodeInfo()
    addresses: list[NodeAddress] | None = None


class Node(Object, frozen=True):
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def ready(self) -> bool:
        return _is_true(self.status.conditions, "Ready")

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


class VolumeMount(_Read, frozen=True):
    name: str = ""
    mount_path: str = ""


class Container(_Read, frozen=True):
    name: str = ""
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    volume_mounts: list[VolumeMount] | None = None


class ConfigMapSource(_Read, frozen=True):
    name: str = ""


class HostPath(_Read, frozen=True):
    path: str = ""


class Volume(_Read, frozen=True):
    name: str = ""
    config_map: ConfigMapSource | None = None
    host_path: HostPath | None = None


class NodeSelectorRequirement(_Read, frozen=True):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class NodeSelectorTerm(_Read, frozen=True):
    match_expressions: list[NodeSelectorRequirement] | None = None
    match_fields: list[NodeSelectorRequirement] | None = None


class NodeSelector(_Read, frozen=True):
    node_selector_terms: list[NodeSelectorTerm] | None = None


class NodeAffinity(_Read, frozen=True):
    required: NodeSelector | None = msgspec.field(name="requiredDuringSchedulingIgnoredDuringExecution", default=None)


class Affinity(_Read, frozen=True):
    node_affinity: NodeAffinity | None = None


class Toleration(_Read, frozen=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class PodSpec(_Read, frozen=True):
    node_name: str = ""
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    termination_grace_period_seconds: int | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[Toleration] | None = None


class Terminated(_Read, frozen=True):
    exit_code: int = 0
    reason: str = ""
    message: str = ""


class Waiting(_Read, frozen=True):
    reason: str = ""
    message: str = ""


class ContainerState(_Read, frozen=True):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Read, frozen=True):
    name: str = ""
    ready: bool = False
    restart_count: int = 0
    container_id: str = msgspec.field(name="containerID", default="")
    state: ContainerState = ContainerState()


class PodStatus(_Read, frozen=True):
    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    conditions: list[Condition] | None = None
    container_statuses: list[ContainerStatus] | None = None


class Pod(Object, frozen=True):
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def ready(self) -> bool:
        return self.metadata.deletion_timestamp is None and _is_true(self.status.conditions, "Ready")

    @property
    def owner(self) -> OwnerReference | None:
        owners = self.metadata.owner_references or []
        return owners[0] if owners else None

    def container(self, name: str) -> ContainerStatus | None:
        return next((one for one in self.status.container_statuses or [] if one.name == name), None)

    @property
    def disruption(self) -> str:
        """Why the cluster itself ends it (preemption, taint, eviction), in its words; empty when it does not."""
        conditions = self.status.conditions or []
        told = next((one for one in conditions if one.type == "DisruptionTarget" and one.status == "True"), None)
        return f"{told.reason} {told.message}".strip() if told else ""


class PodTemplate(_Read, frozen=True):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()


class LabelSelector(_Read, frozen=True):
    match_labels: dict[str, str] | None = None
    match_expressions: list[dict[str, Any]] | None = None  # kept whole: only their presence matters to us


class UpdateStrategy(_Read, frozen=True):
    type: str = "RollingUpdate"
    rolling_update: dict[str, Any] | None = None


class DaemonSetSpec(_Read, frozen=True):
    selector: LabelSelector = LabelSelector()
    update_strategy: UpdateStrategy = UpdateStrategy()
    template: PodTemplate = PodTemplate()


class DaemonSetStatus(_Read, frozen=True):
    desired_number_scheduled: int = 0
    number_ready: int = 0
    updated_number_scheduled: int = 0
    observed_generation: int = 0
    number_unavailable: int = 0


class DaemonSet(Object, frozen=True):
    spec: DaemonSetSpec = DaemonSetSpec()
    status: DaemonSetStatus = DaemonSetStatus()

    @property
    def selector(self) -> str:
        """The label selector of its pods, as the API takes it."""
        return ",".join(f"{key}={value}" for key, value in sorted((self.spec.selector.match_labels or {}).items()))


class ControllerRevision(Object, frozen=True):
    """A DaemonSet's template as it was: ``data`` is a strategic merge patch that puts it back."""

    data: dict[str, Any] | None = None
    revision: int = 0


class ConfigMap(Object, frozen=True):
    data: dict[str, str] | None = None


class DisruptionBudgetSpec(_Read, frozen=True):
    selector: LabelSelector | None = None


class DisruptionBudgetStatus(_Read, frozen=True):
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0


class DisruptionBudget(Object, frozen=True):
    spec: DisruptionBudgetSpec = DisruptionBudgetSpec()
    status: DisruptionBudgetStatus = DisruptionBudgetStatus()


class NamespaceStatus(_Read, frozen=True):
    conditions: list[Condition] | None = None


class NamespaceObject(Object, frozen=True):
    status: NamespaceStatus = NamespaceStatus()

    @property
    def held(self) -> str:
        """Why it does not go although it is being deleted, in the server's words; empty when nothing is said."""
        return next((one.message for one in self.status.conditions or [] if one.status == "True"), "")


def _is_true(conditions: list[Condition] | None, kind: str) -> bool:
    return any(one.type == kind and one.status == "True" for one in conditions or [])


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
