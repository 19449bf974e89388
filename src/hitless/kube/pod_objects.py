"""Pods and their templates, as far as they are read here."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from hitless.kube.object_base import ApiStruct, Condition, Meta, Object, OwnerReference, SelectorRequirement, is_true
from hitless.model.reading import number

__all__ = [
    "Container",
    "ContainerStatus",
    "NodeSelectorRequirement",
    "NodeSelectorTerm",
    "Pod",
    "PodSpec",
    "PodTemplate",
    "Toleration",
    "Volume",
]


class VolumeMount(ApiStruct, frozen=True):
    name: str = ""
    mount_path: str = ""


class Container(ApiStruct, frozen=True):
    name: str = ""
    image: str = ""
    command: list[str] | None = None
    args: list[str] | None = None
    volume_mounts: list[VolumeMount] | None = None


class ConfigMapSource(ApiStruct, frozen=True):
    name: str = ""


class HostPath(ApiStruct, frozen=True):
    path: str = ""


class Volume(ApiStruct, frozen=True):
    name: str = ""
    config_map: ConfigMapSource | None = None
    host_path: HostPath | None = None


class NodeSelectorRequirement(SelectorRequirement, frozen=True):
    def holds(self, labels: Mapping[str, str]) -> bool:
        """As of any selector, and ``Gt`` and ``Lt`` besides: what is not a number does not match."""
        if self.operator not in ("Gt", "Lt"):
            return super().holds(labels)
        found, bound = number(labels.get(self.key, "")), number(self.values[0]) if self.values else None
        if found is None or bound is None:
            return False
        return found > bound if self.operator == "Gt" else found < bound


class NodeSelectorTerm(ApiStruct, frozen=True):
    match_expressions: list[NodeSelectorRequirement] | None = None
    match_fields: list[NodeSelectorRequirement] | None = None


class NodeSelector(ApiStruct, frozen=True):
    node_selector_terms: list[NodeSelectorTerm] | None = None


class NodeAffinity(ApiStruct, frozen=True):
    required: NodeSelector | None = msgspec.field(name="requiredDuringSchedulingIgnoredDuringExecution", default=None)


class Affinity(ApiStruct, frozen=True):
    node_affinity: NodeAffinity | None = None


class Toleration(ApiStruct, frozen=True):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class PodSpec(ApiStruct, frozen=True):
    node_name: str = ""
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    termination_grace_period_seconds: int | None = None
    node_selector: dict[str, str] | None = None
    affinity: Affinity | None = None
    tolerations: list[Toleration] | None = None


class Terminated(ApiStruct, frozen=True):
    exit_code: int = 0
    reason: str = ""
    message: str = ""


class Waiting(ApiStruct, frozen=True):
    reason: str = ""
    message: str = ""


class ContainerState(ApiStruct, frozen=True):
    waiting: Waiting | None = None
    terminated: Terminated | None = None


class ContainerStatus(ApiStruct, frozen=True):
    name: str = ""
    ready: bool = False
    restart_count: int = 0
    container_id: str = msgspec.field(name="containerID", default="")
    state: ContainerState = ContainerState()


class PodStatus(ApiStruct, frozen=True):
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
        return self.metadata.deletion_timestamp is None and is_true(self.status.conditions, "Ready")

    @property
    def owner(self) -> OwnerReference | None:
        owners = self.metadata.owner_references or []
        return owners[0] if owners else None

    def container(self, name: str) -> ContainerStatus | None:
        return next((one for one in self.status.container_statuses or [] if one.name == name), None)

    @property
    def disruption(self) -> str:
        """Why the cluster itself ends it (preemption, taint, eviction); empty when it does not."""
        conditions = self.status.conditions or []
        condition = next((one for one in conditions if one.type == "DisruptionTarget" and one.status == "True"), None)
        return f"{condition.reason} {condition.message}".strip() if condition else ""


class PodTemplate(ApiStruct, frozen=True):
    metadata: Meta = Meta()
    spec: PodSpec = PodSpec()
