"""The fake cluster's DaemonSet controller: pods on every node, replacements, rollouts, and a status that comes later.

Problem: a client that reads a DaemonSet's status right after its pods became ready is right with a store that is always
up to date, and wrong with a real controller, which writes it a moment later. Promise: what a client makes is spread
over the nodes, its status follows its pods ``status_delay`` seconds later; a pod that ends is replaced; a change of the
template is rolled out one node after the other, or with OnDelete when clients delete the pods; each template is kept as
a ControllerRevision, and pods are labelled with theirs. Used by ``api_kubelet``, which runs the pods.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Protocol

from hitless.testing.api_server import FakeApi
from hitless.testing.api_store import Document, Stored

__all__ = ["DaemonSets"]

_SETS = "daemonsets.apps"
_REVISIONS = "controllerrevisions.apps"
_HASH = "controller-revision-hash"


class _Nodes(Protocol):
    api: FakeApi
    start_delay: float
    status_delay: float

    def terminate(self, pod: Document, grace: int | None) -> None: ...


class DaemonSets:
    """The controller for ``nodes``; ``go`` starts what goes on by itself."""

    def __init__(self, nodes: _Nodes, go: Callable[[Awaitable[None]], None]) -> None:
        self._nodes, self._go = nodes, go
        self._store = nodes.api.store
        self._numbers = itertools.count(1)
        self._rolled: dict[str, int] = {}
        self._ours: set[str] = set()
        """DaemonSets that clients made; those of ``add`` keep the status that a test gave them."""

    def add(self, document: Document) -> None:
        """An existing DaemonSet, its pods on every node running and ready."""
        nodes = self._store.all("nodes")
        document["status"] = {"desiredNumberScheduled": len(nodes), "numberReady": len(nodes), "observedGeneration": 1}
        made = self._store.create(_SETS, document["metadata"]["namespace"], document)
        self._revise(made)
        self._spread(made)

    def seen(self, event: Stored) -> None:
        """Handle a change in the store."""
        document = event.document
        uid = document["metadata"]["uid"]
        if event.resource == _SETS and event.type == "ADDED" and "status" not in document:
            self._ours.add(uid)
            self._go(self._begin(document))
        if event.resource == _SETS and event.type == "MODIFIED":
            generation = document["metadata"]["generation"]
            if generation > self._rolled.get(uid, 1):
                self._rolled[uid] = generation
                self._go(self._follow(document))
        if event.resource == "pods":
            for owner in document["metadata"].get("ownerReferences") or []:
                if owner["uid"] in self._ours:
                    self._go(self._update_status_later(document["metadata"]["namespace"], owner["name"]))

    async def _begin(self, document: Document) -> None:
        self._revise(document)
        self._spread(document)
        self._update_status(document["metadata"]["namespace"], document["metadata"]["name"])

    def _spread(self, document: Document) -> None:
        for node in self._store.all("nodes"):
            self.replace(document, node["metadata"]["name"])

    def replace(self, document: Document, node: str) -> None:
        """A pod of it on a node."""
        template = copy.deepcopy(document["spec"]["template"])
        name, uid = document["metadata"]["name"], document["metadata"]["uid"]
        template.setdefault("metadata", {}).update(
            name=f"{name}-{next(self._numbers):05x}",
            ownerReferences=[{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": uid}],
        )
        labels = {**(template["metadata"].get("labels") or {}), _HASH: _hash(document)}
        template["metadata"]["labels"] = labels
        template["spec"]["nodeName"] = node
        self._store.create("pods", document["metadata"]["namespace"], template)

    def _pods(self, document: Document) -> list[Document]:
        place, uid = document["metadata"]["namespace"], document["metadata"]["uid"]
        return [
            pod
            for pod in self._store.all("pods", place)
            if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or [])
        ]

    def _revise(self, document: Document) -> None:
        """Keep the template as a revision: a new one, or an old one that is the latest again."""
        metadata, template = document["metadata"], copy.deepcopy(document["spec"]["template"])
        place, owner = metadata["namespace"], {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": metadata["name"]}
        latest = max((one["revision"] for one in self._store.all(_REVISIONS, place)), default=0)
        name = f"{metadata['name']}-{_hash(document)}"
        if (_REVISIONS, place, name) in self._store.objects:
            self._store.change(_REVISIONS, place, name, lambda one: one.__setitem__("revision", latest + 1))
            return
        labels = {**((template.get("metadata") or {}).get("labels") or {}), _HASH: _hash(document)}
        made = {
            "metadata": {"name": name, "labels": labels, "ownerReferences": [{**owner, "uid": metadata["uid"]}]},
            "data": {"spec": {"template": {**template, "$patch": "replace"}}},
            "revision": latest + 1,
        }
        self._store.create(_REVISIONS, place, made)

    async def _follow(self, document: Document) -> None:
        """A change of the spec: observed after a while, and rolled out unless the strategy is OnDelete."""
        await asyncio.sleep(self._nodes.status_delay)
        metadata = document["metadata"]
        key = (_SETS, metadata["namespace"], metadata["name"])
        if key not in self._store.objects:
            return
        self._revise(document)
        generation = metadata["generation"]
        self._store.change(*key, lambda one: one["status"].__setitem__("observedGeneration", generation))
        if (document["spec"].get("updateStrategy") or {}).get("type") != "OnDelete":
            await self._roll(document)

    async def _roll(self, document: Document) -> None:
        for pod in self._pods(document):
            if (pod["metadata"].get("labels") or {}).get(_HASH) != _hash(document):
                self._nodes.terminate(pod, None)
                await asyncio.sleep(self._nodes.start_delay * 2)

    async def _update_status_later(self, place: str, name: str) -> None:
        await asyncio.sleep(self._nodes.status_delay)
        self._update_status(place, name)

    def _update_status(self, place: str, name: str) -> None:
        document = self._store.objects.get((_SETS, place, name))
        if document is None:
            return
        ready = sum(
            any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or [])
            for pod in self._pods(document)
            if pod.get("status") and "deletionTimestamp" not in pod["metadata"]
        )
        status = {
            "desiredNumberScheduled": len(self._store.all("nodes")),
            "numberReady": ready,
            "observedGeneration": document["metadata"]["generation"],
        }
        if document.get("status") != status:
            self._store.change(_SETS, place, name, lambda one: one.__setitem__("status", status))


def _hash(document: Document) -> str:
    """The hash of a template."""
    return hashlib.sha256(json.dumps(document["spec"]["template"], sort_keys=True).encode()).hexdigest()[:10]
