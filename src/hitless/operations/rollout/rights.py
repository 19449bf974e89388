"""The objects, calls and permissions of a rollout, for users and as RBAC objects. Pure.

Problem: administrators must be able to read what will be done, and to grant exactly that. Promise: the rights are those
of its drills (``cluster.rehearsal``) and those of the rollout itself, no more: a test runs a rollout with them and
nothing else, and fails on rules that nothing used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.cluster import heartbeat, rehearsal
from hitless.cluster.manifests import Document, PodOptions
from hitless.kube.objects import Node
from hitless.operations.rollout import node_order
from hitless.operations.rollout.record import NAME, PLACE, document
from hitless.operations.rollout.values import Rollout
from hitless.restarts.methods import ApiMethod
from hitless.survey.cni import Survey

__all__ = ["ACCOUNT", "Rehearsal", "rehearse"]

Rehearsal = rehearsal.Rehearsal
ACCOUNT = "hitless-rollout"


def rehearse(
    state: Rollout,
    pods: PodOptions,
    survey: Survey,
    nodes: Sequence[Node],
    *,
    own_far_end: bool,
    makes_namespace: bool,
    guards: Iterable[str],
    windows: str = "",
) -> Rehearsal:
    """The whole of a rollout in documents. ``guards``: the namespaces whose guards are read; ``windows``: the
    ConfigMap (NAMESPACE/NAME) of its maintenance windows."""
    drill = rehearsal.rehearse(
        pods,
        survey,
        nodes,
        ApiMethod.DELETE_POD,
        to=state.choices.to,
        own_far_end=own_far_end,
        rounds=1,
        makes_namespace=makes_namespace,
        windows=windows,
        tells=state.choices.post_events,
        enters=False,
        at_once=node_order.largest_step(state),
    )
    own = f"{NAME} in {PLACE}"
    calls = [
        f"get, create and patch the ConfigMap {own} (who drives, what was done; "
        f"every {heartbeat.BEAT:g} s a sign of life)",
        f"get daemonsets/{state.name} in {state.namespace}",
    ]
    if state.replaces:
        calls.append(
            f"patch daemonsets/{state.name}: updateStrategy OnDelete, the new template, and an annotation, in one "
            "write; at the end updateStrategy as it was"
        )
        calls.append(f"list controllerrevisions in {state.namespace}")
    kept = [one for one in drill.calls if not one.startswith(("1 times on each of", f"get the ConfigMap {NAME}"))]
    kept.insert(-1, f"once on each node: delete the pod of {state.name} by its uid; watch its pods")
    return Rehearsal(
        (document(state), *drill.objects), (*calls, *kept), tuple(_rights(state, list(drill.rights), set(guards)))
    )


def _rule(group: str, resource: str, *verbs: str, names: Sequence[str] = ()) -> Document:
    only = {"resourceNames": list(names)} if names else {}
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs), **only}


def _rights(state: Rollout, drill: list[Document], guards: set[str]) -> list[Document]:
    more: dict[str, list[Document]] = {
        PLACE: [_rule("", "configmaps", "create"), _rule("", "configmaps", "get", "patch", names=[NAME])]
    }
    own = more.setdefault(state.namespace, [])
    own.append(_rule("apps", "daemonsets", "get", *(["patch"] if state.replaces else []), names=[state.name]))
    if state.replaces:
        own.append(_rule("apps", "controllerrevisions", "list"))
    for place in guards:
        if place != state.namespace:  # its pods are listed there anyway
            more.setdefault(place, []).append(_rule("", "pods", "list"))
    return _merged(drill, more)


def _merged(drill: list[Document], more: dict[str, list[Document]]) -> list[Document]:
    """The drill's objects under the rollout's name, with more rules; new Roles where the drill has none."""
    account = next(one for one in drill if one["kind"] == "ServiceAccount")["metadata"]["namespace"]
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": account}
    found: list[Document] = []
    left = dict(more)
    for one in drill:
        metadata = {**one["metadata"], "name": ACCOUNT}
        again: Document = {**one, "metadata": metadata}
        if one["kind"] == "Role":
            again["rules"] = [*one["rules"], *left.pop(one["metadata"]["namespace"], [])]
        if "roleRef" in one:
            again |= {"roleRef": {**one["roleRef"], "name": ACCOUNT}, "subjects": [subject]}
        found.append(again)
    group = "rbac.authorization.k8s.io"
    for place, rules in left.items():
        metadata = {"name": ACCOUNT, "namespace": place}
        ref = {"apiGroup": group, "kind": "Role", "name": ACCOUNT}
        found.append({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules})
        found.append(
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": ref,
                "subjects": [subject],
            }
        )
    return found
