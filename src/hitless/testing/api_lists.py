"""The fake API server's lists and watches: pages, selectors, bookmarks, 410.

Used by ``api_server``; the objects and their history are in ``api_store``.
"""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import web

from hitless.testing.api_discovery import KINDS
from hitless.testing.api_faults import Faults
from hitless.testing.api_store import Document, ObjectStore, StatusError, matches_fields, matches_labels

__all__ = ["page", "watch", "whole"]


def whole(resource: str, document: Document) -> Document:
    """The object with its kind and apiVersion."""
    group = resource.partition(".")[2]
    return {"kind": KINDS[resource], "apiVersion": f"{group}/v1" if group else "v1", **document}


def page(store: ObjectStore, request: web.Request, resource: str, namespace: str) -> Document:
    """The list, or the page of it for ``limit`` and ``continue``."""
    query = request.query
    found = [one for one in store.all(resource, namespace) if _selects(request, one)]
    limit = int(query.get("limit", "0") or 0) or len(found)
    start = 0
    version = store.version
    if token := query.get("continue", ""):
        start, version = (int(part) for part in token.split(":"))
        if version < store.oldest:
            raise StatusError(410, "Expired", "The provided continue parameter is too old")
    items = found[start : start + limit]
    metadata: Document = {"resourceVersion": str(version)}
    if start + limit < len(found):
        metadata |= {"continue": f"{start + limit}:{version}", "remainingItemCount": len(found) - start - limit}
    group = resource.partition(".")[2]
    version_ = f"{group}/v1" if group else "v1"
    return {"kind": f"{KINDS[resource]}List", "apiVersion": version_, "metadata": metadata, "items": items}


def _selects(request: web.Request, document: Document) -> bool:
    """Whether the request's selectors match the object."""
    labels, fields = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
    return matches_labels(document, labels) and matches_fields(document, fields)


async def watch(
    store: ObjectStore, faults: Faults, request: web.Request, resource: str, namespace: str, bookmark_every: float
) -> web.StreamResponse:
    """Send the changes after ``resourceVersion``, with a bookmark after each pause of ``bookmark_every`` seconds."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)

    async def send(kind: str, document: Document) -> None:
        line = json.dumps({"type": kind, "object": document}).encode() + b"\n"
        await faults.write(response, request, line)

    matching: set[str] = set()
    version = int(request.query.get("resourceVersion", "0")) or store.version
    for one in store.all(resource, namespace):
        if _selects(request, one):
            matching.add(one["metadata"]["uid"])
            if request.query.get("resourceVersion", "0") == "0":  # no version: all objects first
                await send("ADDED", whole(resource, one))
    end = time.monotonic() + float(request.query.get("timeoutSeconds", "300"))
    while time.monotonic() < end:
        changed = store.changed
        try:
            events = store.since(version)
        except StatusError as refusal:  # the response has begun: the refusal is an event, as from the real server
            await send("ERROR", refusal.document())
            break
        for event in events:
            version = event.version
            fits = event.resource == resource and namespace in ("", event.document["metadata"].get("namespace"))
            uid = event.document["metadata"]["uid"]
            if fits and _selects(request, event.document):
                matching.add(uid)
                await send(event.type, whole(resource, event.document))
            elif fits and uid in matching:  # an object that the selector no longer matches is deleted for this watch
                matching.discard(uid)
                await send("DELETED", whole(resource, event.document))
        if events:
            continue
        try:
            async with asyncio.timeout(min(bookmark_every, max(0.01, end - time.monotonic()))):
                await changed.wait()
        except TimeoutError:
            if request.query.get("allowWatchBookmarks") == "true":
                # the version that was sent, not the store's: it may have changed in the turn in which the time ended
                await send("BOOKMARK", {"kind": KINDS[resource], "metadata": {"resourceVersion": str(version)}})
    await response.write_eof()
    return response
