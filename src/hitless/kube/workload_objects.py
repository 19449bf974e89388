"""DaemonSets, their revisions, and disruption budgets, as far as they are read here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hitless.kube.object_base import ApiStruct, LabelSelector, Object
from hitless.kube.pod_objects import PodTemplate

__all__ = ["ControllerRevision", "DaemonSet", "DisruptionBudget"]


class UpdateStrategy(ApiStruct, frozen=True):
    type: str = "RollingUpdate"
    rolling_update: dict[str, Any] | None = None


class DaemonSetSpec(ApiStruct, frozen=True):
    selector: LabelSelector = LabelSelector()
    update_strategy: UpdateStrategy = UpdateStrategy()
    template: PodTemplate = PodTemplate()


class DaemonSetStatus(ApiStruct, frozen=True):
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


class DisruptionBudgetSpec(ApiStruct, frozen=True):
    selector: LabelSelector | None = None


class DisruptionBudgetStatus(ApiStruct, frozen=True):
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0


class DisruptionBudget(Object, frozen=True):
    spec: DisruptionBudgetSpec = DisruptionBudgetSpec()
    status: DisruptionBudgetStatus = DisruptionBudgetStatus()

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Whether it is about a pod with these labels; without a selector it is about none (policy/v1)."""
        return self.spec.selector is not None and self.spec.selector.selects(labels)
