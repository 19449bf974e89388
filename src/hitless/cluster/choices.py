"""The options of a drill in a cluster, as one value.

Problem: preparing a drill should not depend on the command line. Promise: plain values, no click types; nothing of the
cluster is imported or read here. Next stages: ``validation``, ``preparation``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["DEFAULT_NAMESPACE", "Choices"]

DEFAULT_NAMESPACE = "hitless-drill"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The options of ``drill --cluster``. ``windows``: the ConfigMap (NAMESPACE/NAME) of its maintenance windows."""

    cluster: bool
    cleanup: bool
    dry_run: bool
    yes: bool
    force: bool
    kubeconfig: Path | None
    context: str | None
    nodes: tuple[str, ...]
    count: int | None
    node_selector: str
    agent: str
    at_once: int
    to: tuple[str, ...]
    abort_after: str | None
    namespaces: tuple[str, ...]
    probe_namespace: str
    image: str
    pull_policy: Literal["IfNotPresent", "Never", "Always"]
    pull_secrets: tuple[str, ...]
    watch_profile: str | None
    round_robin: bool
    post_events: bool
    push_metrics: str
    rate_given: bool = False
    family_given: bool = False
    windows: str = ""

    @property
    def namespace(self) -> str:
        """The drill's own namespace."""
        return self.namespaces[0] if self.namespaces else DEFAULT_NAMESPACE
