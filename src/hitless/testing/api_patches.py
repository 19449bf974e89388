"""The fake API server's patches: merge, strategic merge, JSON patch and apply.

Problem: clients may send four kinds of patches, and a fake that treats all as one accepts requests that a real server
refuses. Promise: each content type of kube-apiserver is applied as it is defined (RFC 7386, RFC 6902, lists of named
things merged by name), any other is refused with 415 and the server's message. Apply accepts JSON (which kubectl
sends), merges, and does not track field managers. Used by ``api_server``.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from hitless.testing.api_store import Document, StatusError

__all__ = ["APPLY", "patched", "read"]

APPLY = "application/apply-patch+yaml"
_STRATEGIC = "application/strategic-merge-patch+json"
_MERGE = "application/merge-patch+json"
_JSON = "application/json-patch+json"
_TAKEN = (_JSON, _MERGE, _STRATEGIC, APPLY)


def read(content_type: str, body: bytes) -> Any:
    """The patch; ``StatusError`` 415 or 400 when it is not valid."""
    if content_type not in _TAKEN:
        raise StatusError(
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(_TAKEN),
        )
    try:
        return json.loads(body)
    except ValueError as error:
        raise StatusError(400, "BadRequest", f"error decoding patch: {error}") from error


def patched(document: Document, content_type: str, patch: Any) -> None:
    """Change the document in place."""
    wanted = "" if content_type == _JSON else ((patch.get("metadata") or {}).get("resourceVersion") or "")
    if wanted and wanted != document["metadata"]["resourceVersion"]:
        name = document["metadata"]["name"]
        message = "the object has been modified; please apply your changes to the latest version and try again"
        raise StatusError(409, "Conflict", f'Operation cannot be fulfilled on "{name}": {message}', {"name": name})
    if content_type == _JSON:
        _operations(document, patch)
    else:
        _merge(document, patch, strategic=content_type != _MERGE)


def _operations(document: Document, operations: list[Document]) -> None:
    for one in operations:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in one["path"].split("/")[1:]]
        here: Any = document
        try:
            for part in parents:
                here = here[int(part)] if isinstance(here, list) else here[part]
            _operation(here, last, one)
        except (LookupError, ValueError) as error:
            message = f"the server rejected our request due to an error in our request: {one['op']} {one['path']}"
            raise StatusError(422, "Invalid", message) from error


def _operation(here: Any, last: str, one: Document) -> None:
    key: Any = last
    if isinstance(here, list):
        key = len(here) if last == "-" else int(last)
    match one["op"]:
        case "add" if isinstance(here, list):
            here.insert(key, one["value"])
        case "add":
            here[key] = one["value"]
        case "replace":
            del here[key]  # the replaced field must exist
            _operation(here, last, {**one, "op": "add"})
        case "remove":
            del here[key]
        case "test" if here[key] == one["value"]:
            pass
        case _:
            raise ValueError(one["op"])


def _merge(target: Document, patch: Document, *, strategic: bool) -> None:
    for key, value in patch.items():
        if key.startswith("$"):
            continue  # a directive (the order of a list), not a field
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and strategic and value.get("$patch") == "replace":
            target[key] = {name: copy.deepcopy(each) for name, each in value.items() if name != "$patch"}
        elif isinstance(value, dict):
            here = target.setdefault(key, {})
            if not isinstance(here, dict):
                target[key] = here = {}
            _merge(here, value, strategic=strategic)
        elif strategic and isinstance(value, list) and all(isinstance(one, dict) and "name" in one for one in value):
            here = target.setdefault(key, [])
            for one in value:
                same = next((had for had in here if had.get("name") == one["name"]), None)
                if same is None:
                    here.append(copy.deepcopy(one))
                else:
                    _merge(same, one, strategic=True)
        else:
            target[key] = copy.deepcopy(value)
