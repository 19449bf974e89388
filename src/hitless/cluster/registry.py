"""The register of a cluster's drills: one ConfigMap, in which each drill enters its nodes before it makes anything.

Problem: two drills that begin at the same moment do not see each other's pods yet, and those in other namespaces they
may not see at all. Promise: an entry is one patch, and the answer to it holds all entries, so that of two drills that
enter at once the second one sees the first. A driver renews its entry every few seconds; one that is known to have
died, or was silent for ``heartbeat.LOOK``, blocks no drill, and the next drill removes its entry. Without the rights
for the ConfigMap a drill goes on, and reports that. The last drill that ends deletes the ConfigMap. A rollout only
reads it: drills read the rollout's own record after they entered. Next stages: ``other_drills``, ``preparation``,
``leftovers``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager

import msgspec

from hitless.cleaning import clean
from hitless.cluster import heartbeat
from hitless.cluster.manifests import DRILLS, MANAGED
from hitless.errors import ApiError, HitlessError
from hitless.kube.api import Api
from hitless.kube.objects import CONFIG_MAPS, ConfigMap
from hitless.model.documents import decoded

__all__ = ["WHERE", "RegisteredDrill", "dead_ones", "enter", "entered", "entries", "leave"]

_PLACE, _NAME = DRILLS
WHERE = f"ConfigMap {_PLACE}/{_NAME}"
_LONGEST = 200
_TRIES = 5
_LAST_BEAT = 5.0


class RegisteredDrill(msgspec.Struct, frozen=True, kw_only=True):
    """A drill that runs. ``nodes`` it restarts and measures, all of the cluster's with ``everywhere``; ``far_ends``:
    nodes whose ports its far ends have; ``driver`` and ``process`` as ``heartbeat.driver`` gives them; ``beat`` moves
    while its driver lives."""

    namespace: str = ""
    nodes: tuple[str, ...] = ()
    everywhere: bool = False
    far_ends: tuple[str, ...] = ()
    driver: str = ""
    process: str = ""
    beat: int = 0

    @property
    def who(self) -> str:
        """Its driver; anybody may have written that, and it goes to a terminal."""
        return clean(self.driver, _LONGEST) or "somebody"


async def entries(api: Api) -> dict[str, RegisteredDrill]:
    """The drills that are entered, by their identities; ``ApiError`` 403 where they may not be read."""
    try:
        return _read(await api.get(CONFIG_MAPS, _NAME, _PLACE))
    except ApiError as error:
        if error.status == 404:
            return {}
        raise


def _read(found: ConfigMap) -> dict[str, RegisteredDrill]:
    known: dict[str, RegisteredDrill] = {}
    for identity, text in (found.data or {}).items():
        try:
            known[identity] = decoded(lambda: msgspec.json.decode(text, type=RegisteredDrill))  # noqa: B023 - called right here
        except ValueError:
            continue  # of another version, or written by hand
    return known


async def enter(api: Api, identity: str, entry: RegisteredDrill) -> dict[str, RegisteredDrill]:
    """Write the entry; the others that were there at that moment."""
    data = {identity: msgspec.json.encode(entry).decode()}
    for attempt in range(_TRIES):
        try:
            found = await api.patch(CONFIG_MAPS, _NAME, _PLACE, {"data": data}, "application/merge-patch+json")
            return {name: one for name, one in _read(found).items() if name != identity}
        except ApiError as error:
            if error.status != 404:
                raise
        labels = {"app.kubernetes.io/managed-by": MANAGED["app.kubernetes.io/managed-by"]}
        metadata = {"name": _NAME, "namespace": _PLACE, "labels": labels}
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
        try:
            if await api.create(CONFIG_MAPS, document, _PLACE) is not None:
                return {}
        except ApiError as error:
            if error.status != 409 or attempt == _TRIES - 1:
                raise  # else another drill was first: enter its ConfigMap
    raise ApiError(f"{WHERE} is deleted by others all the time: this drill cannot be entered", status=409)


async def leave(api: Api, identity: str) -> None:
    """Remove the entry, and the ConfigMap with the last one."""
    try:
        patch = {"data": {identity: None}}
        found = await api.patch(CONFIG_MAPS, _NAME, _PLACE, patch, "application/merge-patch+json")
        if not found.data:
            await api.delete(CONFIG_MAPS, _NAME, _PLACE, version=found.metadata.resource_version)
    except ApiError as error:
        if error.status != 404:
            raise


@asynccontextmanager
async def entered(
    api: Api, identity: str, entry: RegisteredDrill, *, warn: Callable[[str], None]
) -> AsyncIterator[dict[str, RegisteredDrill]]:
    """Be entered, and give signs of life, as long as the block runs; gives the others that were there at its begin."""
    try:
        others = await enter(api, identity, entry)
    except ApiError as error:
        if error.status not in (403, 404):
            raise
        warn(f"this drill cannot be entered in {WHERE}, where drills of other namespaces look for it: {error}")
        yield {}
        return
    beating = asyncio.create_task(_beats(api, identity, entry))
    try:
        yield others
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        try:
            await leave(api, identity)
        except HitlessError as error:
            warn(
                f"the entry of drill {identity} in {WHERE} could not be removed ({error}); remove it with: "
                f"hitless drill --cleanup --namespace {entry.namespace}"
            )


async def _beats(api: Api, identity: str, entry: RegisteredDrill) -> None:
    while True:
        await api.patience.sleep(heartbeat.BEAT)
        entry = msgspec.structs.replace(entry, beat=entry.beat + 1)
        renewal = asyncio.ensure_future(enter(api, identity, entry))
        try:
            await asyncio.shield(renewal)
        except HitlessError:
            continue  # the server is away
        except asyncio.CancelledError:
            # a request that is still in flight would put back what is removed next
            await asyncio.wait([renewal], timeout=_LAST_BEAT)
            renewal.cancel()
            await asyncio.gather(renewal, return_exceptions=True)
            raise


async def dead_ones(
    api: Api, found: Mapping[str, RegisteredDrill], *, tell: Callable[[str], None], known: Collection[str] = ()
) -> set[str]:
    """Those of ``found`` whose drivers are dead (``known``: found out before); waits until it is known of each."""
    dead = {name for name, one in found.items() if name in known or heartbeat.of_process(one.process) == "dead"}
    waiting = {name: one for name, one in found.items() if name not in dead and not _here(one)}
    if waiting:
        names = ", ".join(f"drill {clean(name, _LONGEST)} ({one.who})" for name, one in waiting.items())
        tell(f"checking whether {names} still runs: up to {heartbeat.LOOK:g} s")
    end = api.patience.now() + heartbeat.LOOK
    while waiting and api.patience.now() < end:
        await api.patience.sleep(1.0)
        now = await entries(api)
        waiting = {name: one for name, one in waiting.items() if now.get(name) == one}
        dead |= {name for name in found if name not in now}
    return dead | waiting.keys()


def _here(one: RegisteredDrill) -> bool:
    return heartbeat.of_process(one.process) == "alive"
