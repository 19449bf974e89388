"""The fake API server's RBAC: what a subject may do, and what it did.

Problem: a manifest that grants too little fails in the field, one that grants too much is refused by reviewers; both
look alike in tests with an all-powerful fake. Promise: only what a rule names is allowed, refusals have the real
server's message, and every allowed request is kept with its rule, so that a test can list the rules that were not
needed. Next stage: ``api_server``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hitless.testing.api_store import Document, StatusError

__all__ = ["EVERYTHING", "ApiRequest", "RbacRule", "Request", "Rights", "Rule"]


@dataclass(frozen=True)
class ApiRequest:
    """What RBAC sees of a request: ``resource`` with its subresource (``pods/exec``), ``group`` empty for the core."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        group = f".{self.group}" if self.group else ""
        place = f" in {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{group} {self.name or '*'}{place}"


@dataclass(frozen=True)
class RbacRule:
    """One verb on one resource, in one namespace (empty: in all, and for cluster-wide resources)."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    names: tuple[str, ...] = ()

    def allows(self, request: ApiRequest) -> bool:
        """As RBAC: every given part must fit; a request without a name fits only a rule without names."""
        return (
            self.verb in ("*", request.verb)
            and (self.resource == "*" or (self.group, self.resource) == (request.group, request.resource))
            and (not self.namespace or self.namespace == request.namespace)
            and (not self.names or request.name in self.names)
        )


Request, Rule = ApiRequest, RbacRule  # their names in earlier releases

EVERYTHING = (RbacRule("*", "", "*"),)


@dataclass
class Rights:
    """The rules of the one subject, and the log of what it did. ``user`` is for the messages."""

    rules: Sequence[RbacRule] = EVERYTHING
    user: str = "system:serviceaccount:hitless:drill"
    used: dict[RbacRule, list[ApiRequest]] = field(default_factory=dict)
    denied: list[ApiRequest] = field(default_factory=list)

    def check(self, request: ApiRequest) -> None:
        """Raise 403 with the real server's message unless a rule allows the request."""
        for rule in self.rules:
            if rule.allows(request):
                self.used.setdefault(rule, []).append(request)
                return
        self.denied.append(request)
        name = f' "{request.name}"' if request.name else ""
        where = f' in the namespace "{request.namespace}"' if request.namespace else " at the cluster scope"
        group, resource = request.group, request.resource
        plural = resource.split("/")[0]  # the subresource is named only in what follows
        details = {"name": request.name, "group": group, "kind": plural}
        raise StatusError(
            403,
            "Forbidden",
            f'{plural}{"." + group if group else ""}{name} is forbidden: User "{self.user}" cannot {request.verb} '
            f'resource "{resource}" in API group "{group}"{where}',
            {key: value for key, value in details.items() if value},
        )

    @property
    def requests(self) -> list[ApiRequest]:
        """Everything that was allowed."""
        return [request for requests in self.used.values() for request in requests]

    @property
    def unused(self) -> list[RbacRule]:
        """Rules that no request needed."""
        return [rule for rule in self.rules if rule not in self.used]


def rules_of(documents: Sequence[Document]) -> list[RbacRule]:
    """The rules that a list of Role and ClusterRole documents grants, one for each verb and resource.

    A ClusterRole counts where it is bound: by a RoleBinding in its namespace, by a ClusterRoleBinding everywhere.
    """
    found: list[RbacRule] = []
    for binding in documents:
        if binding["kind"] not in ("RoleBinding", "ClusterRoleBinding"):
            continue
        place = binding["metadata"].get("namespace", "") if binding["kind"] == "RoleBinding" else ""
        wanted = (binding["roleRef"]["kind"], binding["roleRef"]["name"])
        for role in documents:
            here = role["metadata"].get("namespace", "")
            if (role["kind"], role["metadata"]["name"]) != wanted or (role["kind"] == "Role" and here != place):
                continue
            for rule in role["rules"]:
                found += [
                    RbacRule(verb, group, resource, place, tuple(rule.get("resourceNames", ())))
                    for verb in rule["verbs"]
                    for group in rule["apiGroups"]
                    for resource in rule["resources"]
                ]
    return found
