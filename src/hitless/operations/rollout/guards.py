"""On which nodes a guard is ready. Reads only."""

from __future__ import annotations

from collections.abc import Iterable

from hitless.kube.api import Api
from hitless.kube.objects import DAEMON_SETS, PODS, DaemonSet

__all__ = ["Guards", "find", "guarded", "missing"]

_LABELS = "app.kubernetes.io/component=guard,app.kubernetes.io/name=hitless"

Guards = frozenset[str] | None
"""The nodes with a guard that is ready; None where the cluster has no guard at all."""


async def find(api: Api) -> list[DaemonSet]:
    """The guards' DaemonSets, as the chart makes them."""
    return await api.all(DAEMON_SETS, labels=_LABELS)


async def guarded(api: Api) -> Guards:
    """The nodes on which one is ready."""
    sets = await find(api)
    if not sets:
        return None
    ready: set[str] = set()
    for one in sets:
        pods = await api.all(PODS, one.metadata.namespace, labels=one.selector)
        ready |= {pod.spec.node_name for pod in pods if pod.ready}
    return frozenset(ready)


def missing(ready: Guards, nodes: Iterable[str]) -> str:
    """What keeps nodes that need a guard (``--require-guard``) from being restarted; empty when each has one."""
    if ready is None:
        return "no hitless guard is installed (--require-guard): see docs/guard.md"
    without = [node for node in nodes if node not in ready]
    return f"no guard is ready on {', '.join(without)} (--require-guard)" if without else ""
