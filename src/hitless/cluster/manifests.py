"""The objects that a drill creates in a cluster, as documents, and the permissions that it needs. Pure.

Problem: an operator must see every object and every right before anything happens, and nothing may stay behind.
Promise: everything that is made carries one label and (inside its namespace) one owner; pods end by themselves after a
deadline; the probe's pod satisfies the restricted Pod Security Standard; the watch's pod has NET_ADMIN and the host's
network and nothing else (and the host's process ids only where the restart method must find a process). ``rights`` is
exactly what a run of the same options uses; a test holds it to that. Next stage: ``pods``, ``target``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hitless import __version__
from hitless.probe.targets import is_far_end
from hitless.restarts.methods import ApiMethod, entry_of

__all__ = [
    "CONTAINER",
    "DRILLS",
    "DRILL_LABEL",
    "IMAGE",
    "MANAGED",
    "ROLLOUT",
    "Document",
    "PodOptions",
    "far_addresses",
    "far_urls",
    "farend_pod",
    "namespace",
    "owner",
    "peer_pod",
    "probe_pod",
    "rights",
    "selector",
    "watch_pod",
]

Document = dict[str, Any]
"""A manifest: JSON as the API takes it."""

IMAGE = f"ghcr.io/hitless/hitless:{__version__}"
"""Its tag is the package's version: pods of another version might write what this one does not read."""

DRILL_LABEL = "hitless.dev/drill"
CREATED_LABEL = "hitless.dev/created"
MANAGED = {"app.kubernetes.io/managed-by": "hitless", "app.kubernetes.io/part-of": "hitless-drill"}
CONTAINER = "hitless"
SPOOL = "/spool"
PEER_PORT = 7800

ROLLOUT = ("kube-system", "hitless-rollout")
"""Namespace and name of the one ConfigMap of the cluster's rollout: every cluster has this namespace, and if it could
be chosen, two rollouts could miss each other. A drill reads it, to know whether a rollout is running."""

DRILLS = ("kube-system", "hitless-drills")
"""Namespace and name of the one ConfigMap in which all drills of a cluster are entered (``registry``)."""

SPOOL_BYTES = 1 << 29
_USER = 65532  # "nonroot" by convention of small images


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What shapes a drill's pods. ``identity`` distinguishes the objects of several drills.

    ``rules``: the watch follows them (false: this agent's rules are not known, only the control probe runs there).
    """

    identity: str
    namespace: str = "hitless-drill"
    probe_namespace: str = ""
    image: str = IMAGE
    pull_policy: Literal["IfNotPresent", "Never", "Always"] = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    rate: int | None = 1000
    streams: int = 0
    family: Literal["ipv4", "ipv6", "dual"] = "ipv4"
    networks: tuple[str, ...] = ()
    profile: str = ""
    seconds: int = 3600
    see_processes: bool = False
    rules: bool = True
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    driver: Mapping[str, str] = field(default_factory=dict)
    """The driver, so that others can see whether this drill is alive (``heartbeat.driver``)."""

    @property
    def traffic_namespace(self) -> str:
        """The namespace of the pods with ordinary networking."""
        return self.probe_namespace or self.namespace

    @property
    def namespaces(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.namespace, self.traffic_namespace)))


def selector(identity: str = "") -> str:
    """The label selector of one drill's objects, or of every drill's."""
    own = ",".join(f"{key}={value}" for key, value in sorted(MANAGED.items()))
    return f"{own},{DRILL_LABEL}={identity}" if identity else own


def _labels(pods: PodOptions, role: str) -> dict[str, str]:
    return {**pods.pod_labels, **MANAGED, DRILL_LABEL: pods.identity, "app.kubernetes.io/component": role}


def name(pods: PodOptions, role: str, node: str = "") -> str:
    """A pod's name: short enough for any node's name, the same for the same node."""
    short = hashlib.sha256(node.encode()).hexdigest()[:8] if node else ""
    return "-".join(part for part in ("hitless", role, pods.identity, short) if part)


def namespace(pods: PodOptions) -> Document:
    """The drill's own namespace, with Pod Security labels that allow the watch's host network."""
    labels = {**MANAGED, DRILL_LABEL: pods.identity, CREATED_LABEL: "true"}
    for mode in ("enforce", "audit", "warn"):
        labels[f"pod-security.kubernetes.io/{mode}"] = "privileged"
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": pods.namespace, "labels": labels}}


def owner(pods: PodOptions, place: str) -> Document:
    """The object that owns the drill's pods in a namespace: when it is deleted, the cluster deletes them."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name(pods, "drill"), "namespace": place, "labels": _labels(pods, "owner")},
        "data": {"README": "Owner of a hitless drill's pods. Deleting it ends the drill.", **pods.driver},
    }


def _tool(name: str, arguments: Sequence[str]) -> list[str]:
    return ["--tool", f"{name}={json.dumps(list(arguments))}"]


def _pod(pods: PodOptions, role: str, node: str, place: str, owned_by: Document, tools: list[str]) -> Document:
    container: Document = {
        "name": CONTAINER,
        "image": pods.image,
        "imagePullPolicy": pods.pull_policy,
        "command": ["hitless", "relay", "run"],
        "args": ["--spool", SPOOL, "--for", str(pods.seconds), "--limit", str(SPOOL_BYTES * 9 // 10), *tools],
        "env": [
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        # The kubelet puts a failed container's last output into its status: no permission to read logs is needed.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "volumeMounts": [{"name": "spool", "mountPath": SPOOL}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name(pods, role, node),
            "namespace": place,
            "labels": _labels(pods, role),
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "name": owned_by["metadata"]["name"],
                    "uid": owned_by["metadata"].get("uid", ""),
                }
            ],
        },
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": pods.seconds + 120,
            "terminationGracePeriodSeconds": 20,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            **({"imagePullSecrets": [{"name": one} for one in pods.pull_secrets]} if pods.pull_secrets else {}),
            "containers": [container],
            "volumes": [{"name": "spool", "emptyDir": {"sizeLimit": str(SPOOL_BYTES)}}],
        },
    }


def _restricted(pod: Document) -> Document:
    """The restricted Pod Security Standard."""
    pod["spec"]["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod["spec"]["containers"][0]["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    return pod


def probe_pod(pods: PodOptions, node: str, owned_by: Document, to: Sequence[str], *, peer: str = "") -> Document:
    """The probe on a node: an ordinary pod. ``peer``: the address of a pod elsewhere, for the control between pods."""
    arguments = ["probe", "--json", "--family", pods.family]
    arguments += ["--rate", str(pods.rate)] if pods.rate is not None else []  # else polite: somebody else's server
    arguments += ["--streams", str(pods.streams)] if pods.streams else []
    for target in to:
        arguments += ["--to", target]
    tools = _tool("probe", arguments)
    if peer:
        host = f"[{peer}]" if ":" in peer else peer
        family = "ipv6" if ":" in peer else "ipv4"
        control = ["probe", "--json", "--rate", "20", "--mix", "tcp=1", "--family", family]
        tools += _tool("control_pods", [*control, "--to", f"farend://{host}:{PEER_PORT}"])
    pod = _restricted(_pod(pods, "probe", node, pods.traffic_namespace, owned_by, tools))
    # Echo requests without a capability: a safe sysctl, which the restricted standard allows.
    pod["spec"]["securityContext"]["sysctls"] = [{"name": "net.ipv4.ping_group_range", "value": f"{_USER} {_USER}"}]
    return pod


def watch_pod(pods: PodOptions, node: str, owned_by: Document, to: Sequence[str]) -> Document:
    """The watch on a node, and the control probe from the host's network: it does not pass the pods' egress path."""
    arguments = ["watch", "--json"]
    arguments += ["--profile", pods.profile] if pods.profile else []
    for network in pods.networks:
        arguments += ["--network", network]
    control = ["probe", "--json", "--family", pods.family]
    control += ["--rate", "20"] if any(is_far_end(one) for one in to) else []
    for target in to:
        control += ["--to", target]
    pod = _pod(
        pods,
        "watch",
        node,
        pods.namespace,
        owned_by,
        [*(_tool("watch", arguments) if pods.rules else []), *_tool("control_host", control)],
    )
    pod["spec"] |= {"hostNetwork": True, "dnsPolicy": "Default"}
    pod["spec"]["securityContext"] = {"runAsUser": 0, "seccompProfile": {"type": "RuntimeDefault"}}
    pod["spec"]["containers"][0]["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
    }
    if pods.see_processes:
        # To find the agent's process. AppArmor's default profile forbids signals to unconfined processes.
        pod["spec"]["hostPID"] = True
        # The field is of 1.30; servers before it take the annotation, later ones want both to say the same.
        pod["spec"]["containers"][0]["securityContext"]["appArmorProfile"] = {"type": "Unconfined"}
        pod["metadata"]["annotations"] = {f"container.apparmor.security.beta.kubernetes.io/{CONTAINER}": "unconfined"}
    return pod


def peer_pod(pods: PodOptions, node: str, owned_by: Document) -> Document:
    """A far end in an ordinary pod, for the control between pods."""
    # The kubelet puts the pod's address in, of whichever family the cluster prefers.
    tools = _tool("farend", ["farend", "--json", "--bind", "$(POD_IP)", "--port", str(PEER_PORT)])
    return _restricted(_pod(pods, "peer", node, pods.traffic_namespace, owned_by, tools))


def far_addresses(pods: PodOptions, addresses: Mapping[str, str]) -> list[str]:
    """A node's addresses (by family) of the families that are drilled."""
    wanted = ("ipv4", "ipv6") if pods.family == "dual" else (pods.family,)
    return [addresses[family] for family in wanted if family in addresses]


def far_urls(addresses: Sequence[str]) -> list[str]:
    """Where a probe finds a far end of ours."""
    return [f"farend://{f'[{one}]' if ':' in one else one}:{PEER_PORT}" for one in addresses]


def farend_pod(pods: PodOptions, node: str, addresses: Sequence[str], owned_by: Document) -> Document:
    """A far end on another node's network: outside the pod network, so that pods reach it by translated flows."""
    binds = [argument for address in addresses for argument in ("--bind", address)]
    arguments = ["farend", "--json", *binds, "--port", str(PEER_PORT)]
    pod = _restricted(_pod(pods, "farend", node, pods.namespace, owned_by, _tool("farend", arguments)))
    pod["spec"] |= {"hostNetwork": True, "dnsPolicy": "Default"}
    return pod


def rights(
    pods: PodOptions,
    restart: ApiMethod,
    agent_namespace: str,
    agent: str,
    config_maps: Sequence[str],
    *,
    makes_namespace: bool,
    turn: bool = False,
    tells: bool = False,
    windows: str = "",
    enters: bool = True,
) -> list[Document]:
    """Roles and bindings for a ServiceAccount ``hitless-drill``: what a drill with these options uses, no more.

    ``turn``: it records the last node of a schedule; ``tells``: it posts Events, for nodes in the namespace default;
    ``windows``: the ConfigMap (NAMESPACE/NAME) of its maintenance windows; ``enters``: it enters its nodes in the
    register of the cluster's drills, and does not only read that.
    """

    def rule(group: str, resource: str, *verbs: str, names: Sequence[str] = ()) -> Document:
        only = {"resourceNames": list(names)} if names else {}
        return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs), **only}

    everywhere = [rule("", "nodes", "list"), rule("apps", "daemonsets", "list")]
    everywhere.append(rule("", "namespaces", "get", names=pods.namespaces))
    if makes_namespace:
        everywhere.append(rule("", "namespaces", "create"))
        everywhere.append(rule("", "namespaces", "delete", names=[pods.namespace]))
    by_place: dict[str, list[Document]] = {
        ROLLOUT[0]: [
            rule("", "configmaps", "get", names=[ROLLOUT[1]]),
            rule("", "configmaps", "get", *(["patch", "delete"] if enters else []), names=[DRILLS[1]]),
            *([rule("", "configmaps", "create")] if enters else []),
        ]
    }
    for place in pods.namespaces:
        by_place.setdefault(place, []).extend(
            (
                rule("", "pods", "create", "list", "watch", "delete"),
                rule("", "pods/exec", "get", "create"),
                rule("", "configmaps", "create", "list", "patch", "delete"),
            )
        )
    if turn:
        by_place[pods.namespace].append(rule("", "configmaps", "get", names=["hitless-drill-turn"]))
    if tells:
        by_place.setdefault("default", []).append(rule("", "events", "create"))
    if windows:
        place, _, its_name = windows.partition("/")
        by_place.setdefault(place, []).append(rule("", "configmaps", "get", names=[its_name]))
    if agent:
        there = by_place.setdefault(agent_namespace, [])
        there.append(rule("policy", "poddisruptionbudgets", "list"))
        if config_maps:
            there.append(rule("", "configmaps", "get", names=config_maps))
        there.append(rule("", "pods", "list", "watch"))
        method = entry_of(restart)
        if method.right is not None:
            there.append(rule(*method.right, names=[agent] if method.named else ()))
    return _bound("hitless-drill", pods.namespace, everywhere, by_place)


def _bound(
    name: str, account_namespace: str, everywhere: list[Document], by_place: Mapping[str, list[Document]]
) -> list[Document]:
    subject = {"kind": "ServiceAccount", "name": name, "namespace": account_namespace}
    api, group = "rbac.authorization.k8s.io/v1", "rbac.authorization.k8s.io"
    found: list[Document] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": account_namespace}},
        {"apiVersion": api, "kind": "ClusterRole", "metadata": {"name": name}, "rules": everywhere},
        {
            "apiVersion": api,
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
            "subjects": [subject],
        },
    ]
    for place, rules in by_place.items():
        metadata = {"name": name, "namespace": place}
        found.append({"apiVersion": api, "kind": "Role", "metadata": metadata, "rules": rules})
        found.append(
            {
                "apiVersion": api,
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [subject],
            }
        )
    return found
