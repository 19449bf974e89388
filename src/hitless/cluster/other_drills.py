"""Other drills in the same cluster, where they would meet this one.

Problem: two drills of one node restart the same agent, and each blames it for the other's gaps; two far ends of ours
on one node want the same ports of the host's network, and the second one's probes would be answered by the first,
until that one ends. Promise: what can be seen of other drills, in the namespaces of this one, is said before anything
is made, and so is where nobody may look; two drills that do not meet (other nodes, other far ends) may run side by
side. What cannot be seen (drills in other namespaces, a program that holds the ports) the far end itself finds out,
before anything is restarted (``pods``). Next stage: ``preparation``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hitless.cluster import manifests
from hitless.cluster.target import far_ends
from hitless.errors import ApiError
from hitless.kube.api import Api
from hitless.kube.objects import NAMESPACES, PODS, Node, Pod
from hitless.restarts.methods import ApiMethod, entry_of
from hitless.survey.cni import Survey

__all__ = ["met"]


async def met(
    api: Api,
    places: Iterable[str],
    survey: Survey,
    chosen: Sequence[Node],
    restart: ApiMethod,
    *,
    own_far_end: bool,
    tell: Callable[[str], None],
) -> list[str]:
    """Every reason not to begin now that other drills are; ``tell`` is told where they cannot be looked for."""
    drilled = {node.name for node in chosen}
    far = {node.name for node in far_ends(survey, chosen)} if own_far_end else set()
    found: dict[tuple[str, str], str] = {}
    for place in dict.fromkeys(places):
        for pod in await _pods(api, place, tell):
            role, drill = pod.label("app.kubernetes.io/component"), pod.label(manifests.DRILL_LABEL)
            node = pod.spec.node_name
            its = f"(pod {place}/{pod.name}; if it was killed: hitless drill --cleanup --namespace {place})"
            if role in ("watch", "probe") and (node in drilled or entry_of(restart).everywhere):
                found[drill, node] = f"another drill, {drill}, is at work on {node} {its}"
            elif role == "farend" and node in far:
                ports = f"{manifests.PEER_PORT + 1} to {manifests.PEER_PORT + 80}"
                found[drill, node] = f"another drill, {drill}, has its far end on {node}, ports {ports} {its}"
    return list(found.values())


async def _pods(api: Api, place: str, tell: Callable[[str], None]) -> list[Pod]:
    try:
        pods = await api.all(PODS, place, labels=manifests.selector())
    except ApiError as error:
        if error.status != 403:
            raise
        if await _there(api, place):
            tell(
                f"whether another drill is at work cannot be seen in the namespace {place} ({error}): ask whoever else "
                "drills this cluster; two drills of one node spoil each other's measurement"
            )
        return []
    return [
        pod
        for pod in pods
        if pod.metadata.deletion_timestamp is None and pod.status.phase not in ("Succeeded", "Failed")
    ]


async def _there(api: Api, place: str) -> bool:
    """False when the namespace is not there yet, and neither is a Role in it: then no drill is in it either."""
    try:
        await api.get(NAMESPACES, place)
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        return error.status == 403
    return True
