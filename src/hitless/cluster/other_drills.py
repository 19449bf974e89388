"""Other drills in the same cluster that this one must not meet.

Problem: two drills of one node restart the same agent, and each blames it for the other's gaps; two far ends of ours
on one node want the same ports of the host's network, and the second one's probes would be answered by the first,
until that one ends. Promise: other drills are found in the register of the cluster's drills (``registry``) and by
their pods in this drill's namespaces, before anything is made; where that is not permitted, it is reported. Two drills
that do not meet (other nodes, other far ends) may run side by side. Another program that holds the ports is noticed by
the far end itself, before anything is restarted (``pods``). Next stage: ``preparation``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from hitless.cleaning import clean
from hitless.cluster import heartbeat, manifests, registry
from hitless.cluster.target import far_ends
from hitless.errors import ApiError
from hitless.kube.api import Api
from hitless.kube.objects import NAMESPACES, PODS, Node, Pod
from hitless.restarts.methods import ApiMethod, entry_of
from hitless.survey.cni import Survey

__all__ = ["blocking", "by_pods", "registered", "registration"]

_LONGEST = 200
_PORTS = f"{manifests.PEER_PORT + 1} to {manifests.PEER_PORT + 80}"


def registration(
    namespace: str,
    survey: Survey,
    chosen: Sequence[Node],
    restart: ApiMethod,
    *,
    own_far_end: bool,
    at_once: int = 1,
) -> registry.RegisteredDrill:
    """What a drill of these nodes enters in the register."""
    driver = heartbeat.driver()
    return registry.RegisteredDrill(
        namespace=namespace,
        nodes=tuple(node.name for node in chosen),
        everywhere=entry_of(restart).everywhere,
        far_ends=tuple(node.name for node in far_ends(survey, chosen, at_once)) if own_far_end else (),
        driver=driver["driver"],
        process=driver.get("process", ""),
    )


def registered(others: Mapping[str, registry.RegisteredDrill], mine: registry.RegisteredDrill) -> dict[str, str]:
    """Of the drills in the register those that this one would meet, by identity, with the reason."""
    found: dict[str, str] = {}
    for identity, one in others.items():
        nodes = [name for name in one.nodes if name in mine.nodes]
        ports = [name for name in one.far_ends if name in mine.far_ends]
        name = f"another drill, {clean(identity, _LONGEST)},"
        its = (
            f"(driven by {one.who}, namespace {clean(one.namespace, _LONGEST)}; if it was killed: "
            f"hitless drill --cleanup --namespace {clean(one.namespace, _LONGEST)})"
        )
        if nodes or one.everywhere or (mine.everywhere and one.nodes):
            on = ", ".join(clean(node, _LONGEST) for node in nodes[:5]) or "the nodes of this cluster"
            found[identity] = f"{name} is at work on {on} {its}"
        elif ports:
            found[identity] = f"{name} has its far end on {', '.join(ports)}, ports {_PORTS} {its}"
    return found


async def blocking(
    api: Api,
    mine: registry.RegisteredDrill,
    *,
    tell: Callable[[str], None],
    others: Mapping[str, registry.RegisteredDrill] | None = None,
    ignored: Collection[str] = (),
    dead: Collection[str] = (),
) -> tuple[dict[str, str], set[str]]:
    """What ``registered`` finds of drills that are alive, and the identities of dead ones. ``others``: the register's
    entries, where they were read already; ``ignored``: drills that do not count; ``dead``: known to be dead."""
    try:
        found = await registry.entries(api) if others is None else others
    except ApiError as error:
        if error.status != 403:
            raise
        tell(
            f"whether drills of other namespaces are at work cannot be seen ({error}): ask whoever drills this cluster"
        )
        return {}, set()
    meets = {name: text for name, text in registered(found, mine).items() if name not in ignored}
    gone = await registry.dead_ones(api, {name: found[name] for name in meets}, tell=tell, known=dead)
    return {name: text for name, text in meets.items() if name not in gone}, gone


async def by_pods(
    api: Api,
    places: Iterable[str],
    survey: Survey,
    chosen: Sequence[Node],
    restart: ApiMethod,
    *,
    own_far_end: bool,
    tell: Callable[[str], None],
) -> dict[tuple[str, str], str]:
    """The drills whose pods in these namespaces this one would meet, by identity and node; ``tell`` is called where
    they cannot be listed."""
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
                found[drill, node] = f"another drill, {drill}, has its far end on {node}, ports {_PORTS} {its}"
    return found


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
