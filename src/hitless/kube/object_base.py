"""What all Kubernetes objects have in common, as far as it is read here.

Promise: each struct names the fields that this package uses and ignores the rest; absent and null are the default that
Kubernetes documents. Next stages: ``node_objects``, ``pod_objects``, ``workload_objects``.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

__all__ = [
    "ApiStruct",
    "Condition",
    "LabelSelector",
    "Meta",
    "Object",
    "OwnerReference",
    "SelectorRequirement",
    "is_true",
]


class ApiStruct(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A part of an object; absent and null are the default."""


class OwnerReference(ApiStruct, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class ManagedFields(ApiStruct, frozen=True):
    manager: str = ""
    time: str = ""
    subresource: str = ""


class Meta(ApiStruct, frozen=True):
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


class Object(ApiStruct, frozen=True):
    """Any object: what all kinds have."""

    metadata: Meta = Meta()

    @property
    def name(self) -> str:
        return self.metadata.name

    def label(self, key: str) -> str:
        return (self.metadata.labels or {}).get(key, "")


class Condition(ApiStruct, frozen=True):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class SelectorRequirement(ApiStruct, frozen=True):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels fulfil it; an operator that is not known excludes nothing."""
        value, values = labels.get(self.key), self.values or []
        match self.operator:
            case "In":
                return value in values
            case "NotIn":
                return value not in values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case _:
                return True


class LabelSelector(ApiStruct, frozen=True):
    match_labels: dict[str, str] | None = None
    match_expressions: list[SelectorRequirement] | None = None

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether it takes an object with these labels; one without any requirement takes all."""
        wanted = self.match_labels or {}
        return wanted.items() <= labels.items() and all(one.holds(labels) for one in self.match_expressions or [])


def is_true(conditions: list[Condition] | None, kind: str) -> bool:
    return any(one.type == kind and one.status == "True" for one in conditions or [])
