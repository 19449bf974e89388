"""The one ConfigMap that records a rollout: who drives it, what was done, and a sign of life.

Problem: a driver dies at any step, two operators begin at once, and an old driver wakes up after another took over.
Promise: there is one record for a cluster, ``kube-system/hitless-rollout``, so that two rollouts never meet; every
write is made on the version that was read (resourceVersion), so that of two writers one is refused, with the name of
the other; a write whose response was lost is recognised by its own number. What is done to pods and DaemonSets is
recorded before it is done, so that the next driver knows what may have been done. No clocks are compared: a driver
counts as alive while an annotation changes. Next stage: ``driver``.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from hitless.cleaning import clean
from hitless.cluster import heartbeat
from hitless.cluster.manifests import ROLLOUT, Document
from hitless.errors import ApiError, Displaced, HitlessError, MissingError
from hitless.kube.api import Api
from hitless.kube.objects import CONFIG_MAPS, ConfigMap
from hitless.operations.rollout.values import Rollout, read, text

__all__ = [
    "NAME",
    "PLACE",
    "WHERE",
    "RolloutRecord",
    "StoredRollout",
    "document",
    "found_or_missing",
    "life",
    "read_record",
]

PLACE, NAME = ROLLOUT
WHERE = f"ConfigMap {PLACE}/{NAME}"

_STATE, _WRITE, _README = "state.json", "write", "README"
_TELLS = "A hitless rollout. See: hitless rollout status, resume, undo, end. Deleting it loses what was done so far."
_LONGEST = 200
_TRIES = 5


@dataclass(frozen=True, slots=True)
class StoredRollout:
    """The record as it was read."""

    state: Rollout
    map: ConfigMap

    @property
    def driver(self) -> str:
        """Who drives it, or who did last, as that driver wrote it."""
        return clean((self.map.data or {}).get("driver", "somebody"), _LONGEST)


async def read_record(api: Api) -> StoredRollout | None:
    """The record, or None where there never was a rollout; ``InputError`` when it is not understood."""
    try:
        found = await api.get(CONFIG_MAPS, NAME, PLACE)
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return StoredRollout(read((found.data or {}).get(_STATE, ""), WHERE), found)


async def life(
    api: Api, found: StoredRollout, within: float = heartbeat.GLANCE, *, tell: Callable[[str], None] = lambda _: None
) -> tuple[heartbeat.Life, str]:
    """Whether its driver is active, and how that is known; where nothing else shows it, the heartbeat is watched for
    ``within`` seconds, which ``tell`` reports."""
    if not found.state.driver:
        return "dead", "no process drives it"
    match heartbeat.here(found.map):
        case "alive":
            return "alive", "its process runs on this machine"
        case "dead":
            return "dead", "its process on this machine has ended"
        case _:
            pass
    tell(f"checking whether {found.driver} still drives it: up to {within:g} s")
    end = api.patience.now() + within
    while api.patience.now() < end:
        await api.patience.sleep(1.0)
        now = await api.get(CONFIG_MAPS, NAME, PLACE)
        if heartbeat.number(now) != heartbeat.number(found.map):
            return "alive", "it gives signs of life"
    return "unknown", f"it gave no sign of life for {within:g} s; it may be cut off from the server"


def document(state: Rollout, write: str = "") -> Document:
    """The ConfigMap, as it is made."""
    labels = {"app.kubernetes.io/managed-by": "hitless", "app.kubernetes.io/part-of": "hitless-rollout"}
    metadata = {"name": NAME, "namespace": PLACE, "labels": labels, "annotations": {heartbeat.ANNOTATION: "0"}}
    data = {_README: _TELLS, _STATE: text(state), _WRITE: write, **heartbeat.driver()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


class RolloutRecord:
    """The record while this process drives. ``lost`` is set when another driver took it."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._token = secrets.token_hex(8)
        self._count = 0
        self._beat = 0
        self._version = ""
        self._lock = asyncio.Lock()
        self._state: Rollout | None = None
        self.lost: Displaced | None = None

    @property
    def state(self) -> Rollout:
        """The recorded state."""
        assert self._state is not None, "nothing was claimed"
        return self._state

    async def begin(self, state: Rollout, over: StoredRollout | None) -> None:
        """Make the record, or replace one that has ended; ``Displaced`` when another driver was quicker."""
        state = self._mine(state)
        if over is not None:
            await self._claim(state, over)
            return
        self._count += 1
        write = f"{self._token} {self._count}"
        try:
            made = await self._api.create(CONFIG_MAPS, document(state, write), PLACE)
        except ApiError as error:
            if error.status != 409:
                raise
            made = None
        if made is None:  # ours, where only the response was lost
            made = await self._api.get(CONFIG_MAPS, NAME, PLACE)
            if (made.data or {}).get(_WRITE) != write:
                raise Displaced(f"another rollout began just now, by {_who(made)}; see hitless rollout status")
        self._version, self._state = made.metadata.resource_version, state

    async def claim(self, found: StoredRollout) -> None:
        """Become the driver of what was found; ``Displaced`` when it was changed since."""
        await self._claim(self._mine(found.state), found)

    def _mine(self, state: Rollout) -> Rollout:
        driver = heartbeat.driver()["driver"]
        return msgspec.structs.replace(state, driver=driver, stopped="")

    async def _claim(self, state: Rollout, found: StoredRollout) -> None:
        self._version, self._state = found.map.metadata.resource_version, found.state
        self._count += 1
        try:
            await self._put(state, f"{self._token} {self._count}", patient=False)
        except Displaced as error:
            raise Displaced(f"{error}; nothing was done") from None

    async def write(self, change: Callable[[Rollout], Rollout]) -> None:
        """Record what ``change`` makes of the state; ``Displaced`` when another driver has taken the record.

        A write that has begun is finished even when the driver is cancelled meanwhile, so that its outcome is known.
        """
        task = asyncio.create_task(self._write(change))
        await asyncio.shield(task)

    async def _write(self, change: Callable[[Rollout], Rollout]) -> None:
        async with self._lock:
            self._count += 1
            await self._put(change(self.state), f"{self._token} {self._count}")

    async def _put(self, state: Rollout, write: str, *, patient: bool = True) -> None:
        if self.lost is not None:
            raise self.lost
        written = text(state)
        before = text(self._state) if self._state is not None else ""
        data = {_STATE: written, _WRITE: write, **heartbeat.driver()}
        for _ in range(_TRIES):
            patch = {"metadata": {"resourceVersion": self._version}, "data": data}
            try:
                done = await self._api.patch(CONFIG_MAPS, NAME, PLACE, patch, "application/merge-patch+json")
            except ApiError as error:
                there = await self._conflict(error)
                if (there.data or {}).get(_WRITE) == write:  # it was done, and the response lost
                    done = there
                elif patient and self._same(there, before):
                    continue
                else:
                    raise self._displaced(there) from error
            self._version, self._state = done.metadata.resource_version, state
            return
        raise ApiError(f"{WHERE} is changed by others all the time: nothing can be written down", status=409)

    async def _conflict(self, error: ApiError) -> ConfigMap:
        """The ConfigMap after a conflict; raises other errors."""
        if error.status == 404:
            self.lost = Displaced(
                f"somebody deleted {WHERE}: what was done is not written down any more, and nothing more is done; "
                "the DaemonSet's updateStrategy may still be OnDelete"
            )
            raise self.lost from error
        if error.status != 409:
            raise error
        return await self._api.get(CONFIG_MAPS, NAME, PLACE)

    def _same(self, there: ConfigMap, state: str) -> bool:
        """Whether it is still ours, and only another part of it was changed (a label, an annotation)."""
        data = there.data or {}
        mine = data.get(_WRITE, "").partition(" ")[0] == self._token and data.get(_STATE) == state
        if mine:
            self._version = there.metadata.resource_version
        return mine

    def _displaced(self, there: ConfigMap) -> Displaced:
        self.lost = Displaced(f"{_who(there)} took this rollout over: this process does nothing more")
        return self.lost

    @asynccontextmanager
    async def alive(self, cut_off: Callable[[HitlessError], None]) -> AsyncIterator[None]:
        """Give signs of life; ``cut_off`` is called when another driver took the record."""
        task = asyncio.create_task(self._beats(cut_off))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _beats(self, cut_off: Callable[[HitlessError], None]) -> None:
        while True:
            await self._api.patience.sleep(heartbeat.BEAT)
            try:
                async with self._lock:
                    await self._sign()
            except Displaced as error:
                cut_off(error)
                return
            except HitlessError:
                continue  # the server is away

    async def _sign(self) -> None:
        self._beat += 1
        annotations = {heartbeat.ANNOTATION: f"{self._token} {self._beat}"}
        patch = {"metadata": {"resourceVersion": self._version, "annotations": annotations}}
        try:
            done = await self._api.patch(CONFIG_MAPS, NAME, PLACE, patch, "application/merge-patch+json")
        except ApiError as error:
            there = await self._conflict(error)
            if not self._same(there, text(self.state)):
                raise self._displaced(there) from error
            return
        self._version = done.metadata.resource_version

    async def release(self, stopped: str) -> None:
        """Record that it is not driven any more; ``stopped`` says why."""

        def released(state: Rollout) -> Rollout:
            state = msgspec.structs.replace(state, driver="", stopped=stopped)
            return state.logged(f"stopped: {stopped}") if stopped else state

        await self.write(released)


def found_or_missing(found: StoredRollout | None) -> StoredRollout:
    """The record; ``MissingError`` where there is none."""
    if found is None:
        raise MissingError("there is no rollout in this cluster", remedy="begin one: hitless rollout restart --plan")
    return found


def _who(there: ConfigMap) -> str:
    return clean((there.data or {}).get("driver", "somebody"), _LONGEST)
