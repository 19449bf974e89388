"""The objects of drills in a cluster, drill by drill: who drives it, whether it is alive, and their removal.

Problem: after a crash everything of a drill must be removed, and nothing of a running one. Promise: objects are found
by their label and grouped by drill; a drill is dead when its driver is known to be gone, when it gave no sign of life
for ``heartbeat.LOOK`` seconds, or when all its pods have ended; what is removed is exactly what was listed, by uid.
Looking changes nothing. Next stage: ``hitless.cli.drill_cleanup``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hitless.cleaning import clean
from hitless.cluster import heartbeat, manifests, registry
from hitless.cluster.heartbeat import Life
from hitless.errors import ApiError
from hitless.kube.api import Api
from hitless.kube.objects import CONFIG_MAPS, NAMESPACES, PODS, ConfigMap, NamespaceObject, Pod

__all__ = ["Drill", "judge", "list_drills", "remove"]

_LONGEST = 200
_GRACE = 1  # seconds; with 0 a pod leaves the API while its container still holds the host's port


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill's objects. ``life`` and ``why`` say whether it is at work; ``driver`` who runs it; ``entry``: in the
    register of the cluster's drills."""

    identity: str
    entry: registry.RegisteredDrill | None = None
    pods: tuple[Pod, ...] = ()
    owners: tuple[ConfigMap, ...] = ()
    namespaces: tuple[NamespaceObject, ...] = ()
    life: Life = "unknown"
    why: str = ""

    @property
    def driver(self) -> str:
        """Who drives it, as an annotation states, which others may write too: cleaned for a terminal."""
        known = next((data["driver"] for one in self.owners if (data := one.data or {}).get("driver")), "")
        return clean(known or (self.entry.driver if self.entry is not None else ""), _LONGEST)

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes that it measures."""
        drilled = (pod for pod in self.pods if pod.label("app.kubernetes.io/component") in ("watch", "probe"))
        entered = self.entry.nodes if self.entry is not None else ()
        return tuple(sorted({pod.spec.node_name for pod in drilled} or {clean(one, _LONGEST) for one in entered}))

    @property
    def objects(self) -> tuple[str, ...]:
        """The names of everything that it has in the cluster."""
        inside = [
            (kind.plural, one) for kind, found in ((PODS, self.pods), (CONFIG_MAPS, self.owners)) for one in found
        ]
        found = [f"{plural} {one.metadata.namespace}/{one.name}" for plural, one in inside]
        found += [f"namespace {one.name}" for one in self.namespaces]
        return (*found, *([f"its entry in {registry.WHERE}"] if self.entry is not None else []))

    @property
    def running(self) -> bool:
        """Whether a pod of it has not ended."""
        return any(pod.status.phase not in ("Succeeded", "Failed") for pod in self.pods)


async def list_drills(api: Api, places: Iterable[str]) -> list[Drill]:
    """Every drill that has something in these namespaces."""
    found: dict[str, Drill] = {}

    def of(identity: str) -> Drill:
        return found.get(identity, Drill(identity))

    labels = manifests.selector()
    places = tuple(dict.fromkeys(places))
    for place in places:
        try:
            made = await api.get(NAMESPACES, place)
        except ApiError as error:
            if error.status == 404:
                continue
            raise
        for pod in await api.all(PODS, place, labels=labels):
            drill = of(pod.label(manifests.DRILL_LABEL))
            found[drill.identity] = replace(drill, pods=(*drill.pods, pod))
        for owner in await api.all(CONFIG_MAPS, place, labels=labels):
            drill = of(owner.label(manifests.DRILL_LABEL))
            found[drill.identity] = replace(drill, owners=(*drill.owners, owner))
        if made.label(manifests.CREATED_LABEL) == "true":
            drill = of(made.label(manifests.DRILL_LABEL))
            found[drill.identity] = replace(drill, namespaces=(*drill.namespaces, made))
    for identity, entry in (await _register(api)).items():
        if entry.namespace in places:
            found[identity] = replace(of(identity), entry=entry)
    return [_at_once(found[name]) for name in sorted(found)]


async def _register(api: Api) -> Mapping[str, registry.RegisteredDrill]:
    try:
        return await registry.entries(api)
    except ApiError as error:
        if error.status != 403:
            raise
        return {}


def _at_once(drill: Drill) -> Drill:
    """What is known without waiting."""
    local = {heartbeat.here(one) for one in drill.owners}
    if not local and drill.entry is not None:
        local = {heartbeat.of_process(drill.entry.process)}
    if "alive" in local:
        return replace(drill, life="alive", why="its process runs on this machine")
    if "dead" in local:
        return replace(drill, life="dead", why="its process on this machine has ended")
    if drill.pods and not drill.running:
        return replace(drill, life="dead", why="all its pods have ended")
    if not drill.pods and not drill.owners and drill.entry is None:
        return replace(drill, life="dead", why="it has no pods")
    return drill  # one without pods may be about to create them


async def judge(api: Api, drills: Sequence[Drill], within: float | None = None) -> list[Drill]:
    """The same drills; unknown ones are watched until they give a sign of life or should have given one.

    ``within``: watch for so many seconds at most; one that was silent for less than ``heartbeat.LOOK`` is not dead.
    """
    within = heartbeat.LOOK if within is None else within
    waiting = {one.identity: one for one in drills if one.life == "unknown"}
    done = {one.identity: one for one in drills if one.life != "unknown"}
    end = api.patience.now() + within
    for identity, one in list(waiting.items()):
        if one.entry is None and not any(heartbeat.number(owner) for owner in one.owners):
            why = "it gives no signs of life (an older hitless, or one without the right to patch ConfigMaps)"
            done[identity] = replace(waiting.pop(identity), why=why)
    while waiting and api.patience.now() < end:
        await api.patience.sleep(1.0)
        now = await _numbers(api, waiting.values())
        entries = await _register(api) if any(one.entry is not None for one in waiting.values()) else {}
        for identity, one in list(waiting.items()):
            before = {owner.metadata.uid: heartbeat.number(owner) for owner in one.owners}
            renewed = one.entry is not None and entries.get(identity, one.entry) != one.entry
            if renewed or any(now.get(uid, beat) != beat for uid, beat in before.items()):
                done[identity] = replace(waiting.pop(identity), life="alive", why="it gives signs of life")
    for identity, one in waiting.items():
        why = f"it gave no sign of life for {within:g} s"
        if within < heartbeat.LOOK:
            done[identity] = replace(one, why=f"{why}; it may be cut off from the server")
        else:
            done[identity] = replace(one, life="dead", why=why)
    return [done[one.identity] for one in drills]


async def _numbers(api: Api, drills: Iterable[Drill]) -> Mapping[str, str]:
    places = dict.fromkeys(owner.metadata.namespace for one in drills for owner in one.owners)
    found = [owner for place in places for owner in await api.all(CONFIG_MAPS, place, labels=manifests.selector())]
    return {owner.metadata.uid: heartbeat.number(owner) for owner in found}


async def remove(api: Api, drill: Drill) -> list[str]:
    """Remove what was listed of the drill; a namespace only when no other drill has anything in it."""
    removed: list[str] = []
    for pod in drill.pods:
        place = pod.metadata.namespace
        if await api.delete(PODS, pod.name, place, grace=_GRACE, uid=pod.metadata.uid):
            removed.append(f"{PODS.plural} {place}/{pod.name}")
    for owner in drill.owners:
        place = owner.metadata.namespace
        if await api.delete(CONFIG_MAPS, owner.name, place, uid=owner.metadata.uid):
            removed.append(f"{CONFIG_MAPS.plural} {place}/{owner.name}")
    for made in drill.namespaces:
        labels = manifests.selector()
        others = [one.metadata for one in await api.all(PODS, made.name, labels=labels)]
        others += [one.metadata for one in await api.all(CONFIG_MAPS, made.name, labels=labels)]
        if all(one.deletion_timestamp for one in others) and await api.delete(
            NAMESPACES, made.name, uid=made.metadata.uid
        ):
            removed.append(f"namespace {made.name}")
    if drill.entry is not None:
        await registry.leave(api, drill.identity)
        removed.append(f"the entry of drill {drill.identity} in {registry.WHERE}")
    return removed
