"""The fake API server's memory: objects, versions, and the events that a watch replays.

Problem: clients fail on what a simple dictionary does not have: resource versions, conflicts, expired pages, a
compacted history. Promise: one counter for all kinds as in etcd; every change is an event with its version; ``compact``
drops events, after which an older watch gets 410; deletes honour preconditions and owners. HTTP is in ``api_server``.
Pods are run by ``api_kubelet``.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "Document", "ObjectStore", "StatusError", "Store", "Stored"]

Document = dict[str, Any]
"""A Kubernetes object as JSON, as the client sent it."""


class StatusError(Exception):
    """A refusal of the API server: HTTP status, reason, message."""

    def __init__(self, status: int, reason: str, message: str, details: Document | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}

    def document(self) -> Document:
        """The ``Status`` object of the response."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.status,
        }


Answer = StatusError  # its name in earlier releases


@dataclass(frozen=True)
class Stored:
    """A change: what happened to which object (as it was then), at which version."""

    version: int
    type: str
    resource: str
    document: Document


@dataclass
class ObjectStore:
    """All objects by resource (``pods``, ``daemonsets.apps``), namespace and name.

    ``reap`` is called before an object is removed because its owner or namespace was; True: it is removed later.
    ``broken``: a group of the API whose own server is away (metrics.k8s.io/v1beta1): namespaces are then emptied, but
    not removed.
    """

    objects: dict[tuple[str, str, str], Document] = field(default_factory=dict)
    events: list[Stored] = field(default_factory=list)
    version: int = 1000
    oldest: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    listeners: list[Callable[[Stored], None]] = field(default_factory=list)
    reap: Callable[[str, Document], bool] = lambda *_: False
    broken: str = ""
    _uids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def _record(self, kind: str, resource: str, document: Document) -> Document:
        self.version += 1
        document["metadata"]["resourceVersion"] = str(self.version)
        event = Stored(self.version, kind, resource, copy.deepcopy(document))
        self.events.append(event)
        self.changed.set()
        self.changed = asyncio.Event()
        for listener in list(self.listeners):
            listener(event)
        return copy.deepcopy(document)

    def compact(self) -> None:
        """Drop all events: a watch from an earlier version gets 410."""
        self.oldest = self.version
        self.events.clear()

    def get(self, resource: str, namespace: str, name: str) -> Document:
        """The object itself; ``StatusError`` 404 when it is not there."""
        try:
            return self.objects[(resource, namespace, name)]
        except KeyError:
            raise StatusError(
                404, "NotFound", f'{resource} "{name}" not found', {"name": name, "kind": resource.split(".")[0]}
            ) from None

    def all(self, resource: str, namespace: str = "") -> list[Document]:
        """Copies of the objects, in the order of their keys (as etcd gives them)."""
        keys = sorted(key for key in self.objects if key[0] == resource and (not namespace or key[1] == namespace))
        return [copy.deepcopy(self.objects[key]) for key in keys]

    def create(self, resource: str, namespace: str, document: Document) -> Document:
        """Store a new object; ``StatusError`` 409 when the name is taken, 404 when the namespace is missing."""
        document = copy.deepcopy(document)
        metadata = document.setdefault("metadata", {})
        name = metadata.get("name") or f"{metadata.get('generateName', '')}{next(self._uids):05x}"
        if not name:
            raise StatusError(422, "Invalid", "name or generateName is required")
        if namespace and ("namespaces", "", namespace) not in self.objects:
            raise StatusError(
                404, "NotFound", f'namespaces "{namespace}" not found', {"name": namespace, "kind": "namespaces"}
            )
        self._check_terminating(resource, namespace, name)
        if (resource, namespace, name) in self.objects:
            details = {"name": name, "kind": resource.split(".")[0]}
            raise StatusError(409, "AlreadyExists", f'{resource} "{name}" already exists', details)
        metadata |= {"name": name, "uid": f"00000000-0000-0000-0000-{next(self._uids):012x}", "generation": 1}
        metadata["creationTimestamp"] = "2026-01-01T00:00:00Z"
        if namespace:
            metadata["namespace"] = namespace
        self.objects[(resource, namespace, name)] = document
        made = self._record("ADDED", resource, document)
        if resource == "namespaces":  # the controllers' part
            self.create("serviceaccounts", name, {"metadata": {"name": "default"}})
        return made

    def change(self, resource: str, namespace: str, name: str, change: Callable[[Document], None]) -> Document:
        """Change an object in place and notify the watches."""
        document = self.get(resource, namespace, name)
        before = copy.deepcopy(document.get("spec"))
        change(document)
        if document.get("spec") != before:
            document["metadata"]["generation"] = document["metadata"].get("generation", 1) + 1
        return self._record("MODIFIED", resource, document)

    def _check_terminating(self, resource: str, namespace: str, name: str) -> None:
        if namespace and "deletionTimestamp" in self.objects[("namespaces", "", namespace)]["metadata"]:
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            details = {"name": name, "kind": resource.split(".")[0], "causes": [cause]}
            raise StatusError(403, "Forbidden", f'{resource} "{name}" is forbidden: {message}', details)

    def remove(self, resource: str, namespace: str, name: str) -> Document:
        """Remove an object and what it owns; a namespace is removed when it is empty."""
        document = self.get(resource, namespace, name)
        if resource == "namespaces":
            return self._terminate(document)
        del self.objects[(resource, namespace, name)]
        gone = self._record("DELETED", resource, document)
        for key in list(self._owned(document["metadata"]["uid"])):
            self._leave(key)
        self._finish(namespace)
        return gone

    def _leave(self, key: tuple[str, str, str]) -> None:
        if key in self.objects and not self.reap(key[0], self.objects[key]):
            self.remove(*key)

    def _terminate(self, namespace: Document) -> Document:
        name = namespace["metadata"]["name"]
        if "deletionTimestamp" not in namespace["metadata"]:
            namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:01Z"
            namespace["status"] = {"phase": "Terminating"}
            self._record("MODIFIED", "namespaces", namespace)
        response = copy.deepcopy(namespace)
        for key in [key for key in self.objects if key[1] == name]:
            self._leave(key)
        self._finish(name)
        return response

    def _finish(self, name: str) -> None:
        namespace = self.objects.get(("namespaces", "", name))
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return
        if any(key[1] == name for key in self.objects):
            return
        if self.broken:
            message = (
                f"Discovery failed for some groups, 1 failing: unable to retrieve the complete list: {self.broken}"
            )
            namespace["status"]["conditions"] = [
                {"type": "NamespaceDeletionDiscoveryFailure", "status": "True", "message": message},
                {"type": "NamespaceContentRemaining", "status": "False", "message": "All content successfully removed"},
            ]
            self._record("MODIFIED", "namespaces", namespace)
        else:
            del self.objects[("namespaces", "", name)]
            self._record("DELETED", "namespaces", namespace)

    def _owned(self, uid: str) -> Iterable[tuple[str, str, str]]:
        for key, document in self.objects.items():
            owners = document["metadata"].get("ownerReferences") or []
            if any(owner.get("uid") == uid for owner in owners):
                yield key

    def since(self, version: int) -> list[Stored]:
        """The events after ``version``; ``StatusError`` 410 when they were dropped."""
        if version < self.oldest:
            raise StatusError(410, "Expired", f"too old resource version: {version} ({self.oldest})")
        return [event for event in self.events if event.version > version]


Store = ObjectStore  # its name in earlier releases


def matches_labels(document: Document, selector: str) -> bool:
    """Whether an equality or existence selector matches the object."""
    labels = document["metadata"].get("labels") or {}
    for term in filter(None, selector.split(",")):
        if "!=" in term:
            key, value = term.split("!=", 1)
            if labels.get(key) == value:
                return False
        elif "=" in term:
            key, value = term.replace("==", "=").split("=", 1)
            if labels.get(key) != value:
                return False
        elif term.startswith("!"):
            if term[1:] in labels:
                return False
        elif term not in labels:
            return False
    return True


def matches_fields(document: Document, selector: str) -> bool:
    """Whether a field selector (``spec.nodeName=x``) takes the object."""
    for term in filter(None, selector.split(",")):
        path, _, wanted = term.replace("==", "=").partition("=")
        value: Any = document
        for part in path.split("."):
            value = value.get(part, "") if isinstance(value, dict) else ""
        if str(value) != wanted:
            return False
    return True
