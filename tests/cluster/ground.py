"""The ground that the suite stands on: one suite at a time, the image on every node, and what to show of a failure.

Whoever runs this has never seen it: what is missing is said at once, with the command that mends it. A ConfigMap is the
lock (two suites would restart one agent at once); what an earlier suite left behind, killed, is taken away first. While
the tests run a thread renews the lock, so that a suite that was killed is told from one that runs, and keeps what the
kubelets say (events and states of pods), because a drill takes its pods away.
"""

from __future__ import annotations

import asyncio
import copy
import json
import os
import secrets
import shlex
import subprocess
import tarfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from hitless.cluster import manifests
from hitless.errors import ApiError, HitlessError
from hitless.kube.access import httpx2
from hitless.kube.api import Api, connect
from hitless.kube.objects import CONFIG_MAPS, NAMESPACES, NamespaceObject

TOKEN = secrets.token_hex(3)
PREFIX = "hitless-e2e-"
NAMESPACE = f"{PREFIX}{TOKEN}"
"""Of the drills, which make and remove it."""
STAGE, ACCOUNTS = f"{NAMESPACE}-stage", f"{NAMESPACE}-accounts"
LABEL = {"hitless.dev/e2e": "true"}

IMAGE = os.environ.get("HITLESS_IMAGE", manifests.IMAGE)
POLICY = os.environ.get("HITLESS_PULL_POLICY", "Never")
LOAD = os.environ.get("HITLESS_LOAD", "")
ARCHIVE = Path(os.environ.get("HITLESS_ARCHIVE", Path(__file__).parents[2] / "dist/hitless-image.tar"))
HOW_TO_LOAD = f"""load it there, as root, and run the suite again:
    ctr -n k8s.io images import {ARCHIVE}
  K3s, RKE2: k3s ctr …, or /var/lib/rancher/rke2/bin/ctr --address /run/k3s/containerd/containerd.sock -n k8s.io …
  kind: kind load image-archive {ARCHIVE}
  on this machine: HITLESS_LOAD='ctr -n k8s.io images import' make cluster
  from a registry: HITLESS_IMAGE=… HITLESS_PULL_POLICY=IfNotPresent make cluster"""

LOCK = "hitless-e2e"
_RENEWED = 5.0
STALE = 120.0
"""Seconds without a renewal after which the holder counts as killed: longer than its API server may be slow."""
LOOK = 5.0
_WAIT = 1800.0
"""Seconds for another suite to end."""
PATIENCE = 300.0
"""Seconds that a small machine may take to start a pod, or to take one away."""


def run(work: Callable[[Api], Awaitable[Any]]) -> Any:
    """Do something with the cluster of KUBECONFIG, through the product's own port."""

    async def main() -> Any:
        async with connect() as api:
            return await work(api)

    return asyncio.run(main())


def load() -> None:
    """Give the archive to HITLESS_LOAD, where that was set."""
    if not LOAD:
        return
    if not ARCHIVE.exists():
        pytest.fail(f"{ARCHIVE} is not there: build it with `make image`, or name it: HITLESS_ARCHIVE", pytrace=False)
    if (names := _names(ARCHIVE)) and not any(f"/{one}".endswith(f"/{IMAGE}") for one in names):
        pytest.fail(
            f"{ARCHIVE} holds {', '.join(names)}, and the pods ask for {IMAGE}: build it again with `make image`, or "
            f"set HITLESS_IMAGE={names[0]}",
            pytrace=False,
        )
    done = subprocess.run([*shlex.split(LOAD), str(ARCHIVE)], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        pytest.fail(f"HITLESS_LOAD: {LOAD} {ARCHIVE} ended with {done.returncode}: {done.stderr}", pytrace=False)


def _names(archive: Path) -> list[str]:
    """The images' names in an archive as `make image` builds it; none where it is of another kind."""
    try:
        with tarfile.open(archive) as packed:
            file = packed.extractfile("index.json")
            manifests = json.load(file)["manifests"] if file is not None else []
    except (tarfile.TarError, KeyError, ValueError):
        return []
    found = [(one.get("annotations") or {}).get("io.containerd.image.name") for one in manifests]
    return [one for one in found if one]


async def take(api: Api) -> None:
    """Be the only suite on this cluster. A lock that nobody renews is a dead suite's: no clock but ours is asked."""
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": LOCK, "namespace": "default", "labels": LABEL},
        "data": {"holder": TOKEN},
    }
    begin = since = time.monotonic()
    seen = ""
    while True:
        try:
            if await api.create(CONFIG_MAPS, document, "default") is not None:
                return
        except ApiError as error:
            if error.status != 409:
                raise
        try:
            there = await api.get(CONFIG_MAPS, LOCK, "default")
        except ApiError as error:
            if error.status != 404:
                raise
            continue
        if (there.data or {}).get("holder") == TOKEN:  # ours, by a call whose answer was lost
            return
        now = time.monotonic()
        if there.metadata.resource_version != seen:
            seen, since = there.metadata.resource_version, now
        elif now - since >= STALE:
            await api.delete(CONFIG_MAPS, LOCK, "default", uid=there.metadata.uid)
            continue
        if now - begin > _WAIT:
            raise AssertionError(
                f"another suite runs on this cluster since {there.metadata.creation_timestamp}, and renews its lock "
                f"(the ConfigMap {LOCK} in default)"
            )
        await asyncio.sleep(LOOK)


async def renew(api: Api) -> None:
    """Say that this suite still runs; ``ApiError`` 409 when the lock is another's by now."""
    there = await api.get(CONFIG_MAPS, LOCK, "default")
    if (there.data or {}).get("holder") != TOKEN:
        raise ApiError("the lock was taken by another suite", status=409)
    said = {"data": {"renewed": f"{time.time():.3f}"}}
    await api.patch(CONFIG_MAPS, LOCK, "default", said, "application/merge-patch+json")


async def release(api: Api) -> None:
    """Let the next suite in; the lock only if it is ours."""
    try:
        there = await api.get(CONFIG_MAPS, LOCK, "default")
    except ApiError as error:
        if error.status == 404:
            return
        raise
    if (there.data or {}).get("holder") == TOKEN:
        await api.delete(CONFIG_MAPS, LOCK, "default", uid=there.metadata.uid)


async def away(api: Api, *places: str) -> None:
    """Delete namespaces, and wait until they are gone: pods end by SIGTERM, so that the agent takes its rules away."""
    for place in places:
        await api.delete(NAMESPACES, place)
    for place in places:
        for _ in range(int(PATIENCE * 2)):
            try:
                there = await api.get(NAMESPACES, place)
            except ApiError as error:
                if error.status == 404:
                    break
                raise
            if _emptied(there):
                break
            await asyncio.sleep(0.5)
        else:
            raise AssertionError(f"the namespace {place} does not go: {there.held or 'the server does not say why'}")


def _emptied(namespace: NamespaceObject) -> bool:
    """Whether nothing but the name is left: it goes when the API's broken part (``broken``) works again."""
    said = {one.type: one.status for one in namespace.status.conditions or []}
    return (said.get("NamespaceDeletionDiscoveryFailure"), said.get("NamespaceContentRemaining")) == ("True", "False")


async def broken(api: Api) -> list[str]:
    """Parts of the API whose own servers are away (metrics-server without its image): no namespace goes meanwhile."""
    return [
        one["metadata"]["name"]
        for one in await _items(api, "/apis/apiregistration.k8s.io/v1/apiservices")
        if any(
            each.get("type") == "Available" and each.get("status") == "False"
            for each in (one.get("status") or {}).get("conditions") or []
        )
    ]


NEWER = {"appArmorProfile": 30}
"""Fields of containers' security contexts, and the minor version of the first server that knows them."""


async def minor(api: Api) -> int:
    """Which 1.x the server is; some providers say "29+"."""
    answer = await api.client.get("/version")
    assert answer.is_success, answer.text
    found: str = answer.json()["minor"]
    return int(found.rstrip("+"))


def in_words_of(document: dict[str, Any], minor: int) -> dict[str, Any]:
    """What a server of this version reads of a pod: it drops fields that are newer, and refuses them only when it is
    asked to be strict. What they say must then stand there in an older form too."""
    if document["kind"] != "Pod":
        return document
    document = copy.deepcopy(document)
    told = document["metadata"].get("annotations") or {}
    for container in document["spec"]["containers"]:
        security = container.get("securityContext") or {}
        for field in [field for field in security if NEWER.get(field, 0) > minor]:
            said = security.pop(field)
            before = f"container.apparmor.security.beta.kubernetes.io/{container['name']}"
            form = {"Unconfined": "unconfined", "RuntimeDefault": "runtime/default"}[said["type"]]
            assert told.get(before) == form, f"{field} without its older form, {before}: {told}"
    return document


async def tidy(api: Api) -> None:
    """What earlier suites left: only one runs at a time, so that every such namespace is somebody's who was killed."""
    await away(api, *(one.name for one in await api.all(NAMESPACES) if one.name.startswith(PREFIX)))


class Recorder(threading.Thread):
    """Renews the lock, and keeps the last states of pods and the events in the suite's namespaces, for the report of a
    failure."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._end = threading.Event()
        self._events: dict[str, tuple[str, str]] = {}
        self._pods: dict[str, str] = {}
        self._trouble = ""

    def run(self) -> None:
        asyncio.run(self._work())

    def close(self) -> None:
        """End, and wait for it."""
        self._end.set()
        self.join(30)

    async def _work(self) -> None:
        renewed = 0.0
        async with connect() as api:
            while not self._end.is_set():
                try:
                    if time.monotonic() - renewed >= _RENEWED:
                        await renew(api)
                        renewed = time.monotonic()
                    for place in (NAMESPACE, STAGE):
                        await self._look(api, place)
                except (HitlessError, httpx2.HTTPError, ValueError) as error:
                    self._trouble = f"{type(error).__name__}: {error}"
                await asyncio.sleep(1.0)

    async def _look(self, api: Api, place: str) -> None:
        for one in await _items(api, f"/api/v1/namespaces/{place}/events"):
            about = one.get("involvedObject") or {}
            text = f"{place} {about.get('kind')}/{about.get('name')}: {one.get('reason')}: {one.get('message')}"
            self._events[one["metadata"]["uid"]] = (str(one.get("lastTimestamp") or one.get("eventTime")), text)
        for one in await _items(api, f"/api/v1/namespaces/{place}/pods"):
            status = one.get("status") or {}
            states = [
                {"name": each.get("name"), "restarts": each.get("restartCount"), **(each.get("state") or {})}
                for each in status.get("containerStatuses") or []
            ]
            name = one["metadata"]["name"]
            node = (one.get("spec") or {}).get("nodeName")
            self._pods[f"{place}/{name}"] = f"on {node}: {status.get('phase')} {status.get('message', '')} {states}"

    def text(self) -> str:
        """For people; the last hundred events."""
        lines = [f"{name} {state}" for name, state in sorted(self._pods.items())]
        lines += [" ".join(one) for one in sorted(self._events.values())[-100:]]
        return "\n".join([*lines, *([f"not everything could be read: {self._trouble}"] if self._trouble else [])])


async def _items(api: Api, path: str) -> list[dict[str, Any]]:
    answer = await api.client.get(path)
    return list(answer.json().get("items") or []) if answer.is_success else []


RECORDER = Recorder()


async def logs(api: Api, place: str) -> str:
    """The last lines of every pod there that has no spool: the suite's own."""
    found = []
    for one in await _items(api, f"/api/v1/namespaces/{place}/pods"):
        name = one["metadata"]["name"]
        answer = await api.client.get(f"/api/v1/namespaces/{place}/pods/{name}/log", params={"tailLines": "20"})
        found.append(f"{place}/{name}: {answer.text.strip()}")
    return "\n".join(found)


def report() -> str:
    """What is known of the cluster, for the report of a failed test."""
    try:
        said: str = run(lambda api: logs(api, STAGE))
    except (HitlessError, httpx2.HTTPError) as error:
        said = f"no logs: {error}"
    return f"{RECORDER.text()}\n{said}".strip()
