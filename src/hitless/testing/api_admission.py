"""What the fake API server's admission and controllers do beside storing an object.

Problem: a suite for real clusters that ran against nothing but a store would pass by accident. Promise: a pod is
refused without its namespace's ServiceAccount, and (where the namespace enforces the restricted level) with the host's
network or capabilities, with the message of PodSecurity; an eviction is refused by a budget; a TokenRequest gets a
token; fields that are newer than the server are dropped, or refused with fieldValidation=Strict. Used by
``api_server``.
"""

from __future__ import annotations

from hitless.testing.api_store import Document, ObjectStore, StatusError

__all__ = ["admit", "check_budget", "decode", "token"]

_SINCE = {"appArmorProfile": 30}
"""Fields of a container's security context, and the minor version of the first server that has them."""
_ENFORCE = "pod-security.kubernetes.io/enforce"


def admit(store: ObjectStore, resource: str, namespace: str, document: Document) -> None:
    """Raise ``StatusError`` 403 for a pod that is not admitted."""
    place = store.objects.get(("namespaces", "", namespace))
    if resource != "pods" or place is None:
        return
    name = document["metadata"].get("name", "")
    details = {"name": name, "kind": "pods"}
    if ("serviceaccounts", namespace, "default") not in store.objects:
        message = f'error looking up service account {namespace}/default: serviceaccount "default" not found'
        raise StatusError(403, "Forbidden", f'pods "{name}" is forbidden: {message}', details)
    if (place["metadata"].get("labels") or {}).get(_ENFORCE) != "restricted":
        return
    if against := _against(document["spec"]):
        message = f'violates PodSecurity "restricted:latest": {", ".join(against)}'
        raise StatusError(403, "Forbidden", f'pods "{name}" is forbidden: {message}', details)


def decode(document: Document, minor: int, *, strict: bool) -> None:
    """Drop what a server of this version does not know; ``strict``: raise ``StatusError`` 400 for it."""
    containers = (document.get("spec") or {}).get("containers") or () if document.get("kind") == "Pod" else ()
    for at, one in enumerate(containers):
        security = one.get("securityContext") or {}
        for field in [field for field in security if _SINCE.get(field, 0) > minor]:
            if strict:
                message = f'strict decoding error: unknown field "spec.containers[{at}].securityContext.{field}"'
                message = f'Pod in version "v1" cannot be handled as a Pod: {message}'
                raise StatusError(400, "BadRequest", message)
            del security[field]


def _against(spec: Document) -> list[str]:
    found = []
    if spec.get("hostNetwork"):
        found.append("host namespaces (hostNetwork=true)")
    for one in spec["containers"]:
        security = one.get("securityContext") or {}
        if "ALL" not in (security.get("capabilities") or {}).get("drop", ()):
            must = f'container "{one["name"]}" must set securityContext.capabilities.drop=["ALL"]'
            found.append(f"unrestricted capabilities ({must})")
    if not (spec.get("securityContext") or {}).get("runAsNonRoot"):
        found.append("runAsNonRoot != true")
    return found


def check_budget(store: ObjectStore, pod: Document) -> None:
    """Raise ``StatusError`` 429 when a budget forbids the pod's eviction."""
    for budget in store.all("poddisruptionbudgets.policy", pod["metadata"]["namespace"]):
        wanted = (budget["spec"].get("selector") or {}).get("matchLabels") or {}
        labels = pod["metadata"].get("labels") or {}
        if wanted.items() <= labels.items() and budget["status"].get("disruptionsAllowed", 0) < 1:
            name = budget["metadata"]["name"]
            raise StatusError(
                429,
                "TooManyRequests",
                "Cannot evict pod as it would violate the pod's disruption budget.",
                {"causes": [{"reason": "DisruptionBudget", "message": f"The disruption budget {name} needs it"}]},
            )


def token(request: Document) -> Document:
    """A TokenRequest with its status."""
    return {**request, "status": {"token": "of-an-account", "expirationTimestamp": "2036-01-01T00:00:00Z"}}
