"""Discovery of the fake API server: the kinds that it serves, its version, and access reviews.

Problem: kubectl and other clients first request which kinds there are, and their verbs. Promise: the legacy discovery
documents (every client falls back to them), the version, and SelfSubjectAccessReview, decided by the fake's own
``Rights`` without counting as their use. Used by ``api_server``.
"""

from __future__ import annotations

from hitless.testing.api_rights import ApiRequest, Rights
from hitless.testing.api_store import Document

__all__ = ["CLUSTER_WIDE", "KINDS", "REVIEW", "answer", "review"]

KINDS = {
    "nodes": "Node",
    "namespaces": "Namespace",
    "pods": "Pod",
    "configmaps": "ConfigMap",
    "serviceaccounts": "ServiceAccount",
    "events": "Event",
    "controllerrevisions.apps": "ControllerRevision",
    "daemonsets.apps": "DaemonSet",
    "cronjobs.batch": "CronJob",
    "poddisruptionbudgets.policy": "PodDisruptionBudget",
    "apiservices.apiregistration.k8s.io": "APIService",
    "clusterroles.rbac.authorization.k8s.io": "ClusterRole",
    "clusterrolebindings.rbac.authorization.k8s.io": "ClusterRoleBinding",
    "roles.rbac.authorization.k8s.io": "Role",
    "rolebindings.rbac.authorization.k8s.io": "RoleBinding",
}
CLUSTER_WIDE = frozenset(
    {"nodes", "namespaces", *(name for name in KINDS if name.startswith(("cluster", "apiservices")))}
)
_VERBS = ["create", "delete", "get", "list", "patch", "watch"]
REVIEW = "selfsubjectaccessreviews"


def answer(path: str, minor: int = 34) -> Document | None:
    """The document at a path of discovery of a server 1.``minor``; None where there is none."""
    groups = sorted({name.partition(".")[2] for name in KINDS if "." in name} | {"authorization.k8s.io"})
    match path.strip("/").split("/"):
        case ["version"]:
            return {"major": "1", "minor": str(minor), "gitVersion": f"v1.{minor}.0"}
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            listed = []
            for group in groups:
                version = {"groupVersion": f"{group}/v1", "version": "v1"}
                listed.append({"name": group, "versions": [version], "preferredVersion": version})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        case ["api", "v1"]:
            return _resources("", "v1")
        case ["apis", group, "v1"] if group in groups:
            return _resources(group, f"{group}/v1")
        case _:
            return None


def _resources(group: str, version: str) -> Document:
    found: list[Document] = [
        {
            "name": name.partition(".")[0],
            "singularName": kind.lower(),
            "namespaced": name not in CLUSTER_WIDE,
            "kind": kind,
            "verbs": _VERBS,
        }
        for name, kind in KINDS.items()
        if name.partition(".")[2] == group
    ]
    if not group:
        for sub, kind in (("exec", "PodExecOptions"), ("log", "Pod"), ("eviction", "Eviction")):
            found.append(
                {
                    "name": f"pods/{sub}",
                    "singularName": "",
                    "namespaced": True,
                    "kind": kind,
                    "verbs": ["create", "get"],
                }
            )
    if group == "authorization.k8s.io":
        kind = "SelfSubjectAccessReview"
        found.append({"name": REVIEW, "singularName": "", "namespaced": False, "kind": kind, "verbs": ["create"]})
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}


def review(rights: Rights, document: Document) -> Document:
    """The response to ``kubectl auth can-i``, which every client may send."""
    attributes = (document.get("spec") or {}).get("resourceAttributes") or {}
    resource = "/".join(filter(None, (attributes.get("resource", ""), attributes.get("subresource", ""))))
    request = ApiRequest(
        attributes.get("verb", ""),
        attributes.get("group", ""),
        resource,
        attributes.get("namespace", ""),
        attributes.get("name", ""),
    )
    return {**document, "status": {"allowed": any(rule.allows(request) for rule in rights.rules)}}
