"""A DaemonSet as RKE2's Canal has it, with a real flanneld: its flags, mounts and grace period."""

from __future__ import annotations

import json
import time

from tools.real_cluster.folder import HUB, PODS, Folder, fail, say
from tools.real_cluster.images import flannel_tag

_NAMESPACE = "kube-system"
NAME = "rke2-canal"
_PATIENCE = 120.0


def install(folder: Folder, flannel: str, *, nftables: bool = False) -> None:
    """Apply it and wait until a pod is ready on every node."""
    folder.kubectl(
        "apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": _all(flannel, nftables)})
    )
    end = time.monotonic() + _PATIENCE
    path = "{.status.desiredNumberScheduled} {.status.numberReady}"
    while True:
        told = folder.kubectl("-n", _NAMESPACE, "get", "daemonset", NAME, f"-o=jsonpath={path}").stdout.split()
        if len(told) == 2 and told[0] == told[1] != "0":
            say(f"{NAME} with flanneld {flannel} is ready on {told[0]} nodes")
            return
        if time.monotonic() > end:
            pods = folder.kubectl("-n", _NAMESPACE, "get", "pods", "-o", "wide", check=False).stdout
            fail(f"{NAME} is not ready after {_PATIENCE:.0f} s:\n{pods}")
        time.sleep(0.5)


def _all(flannel: str, nftables: bool) -> list[dict[str, object]]:
    account = {"kind": "ServiceAccount", "name": "canal", "namespace": _NAMESPACE}
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    ]
    rights = "rbac.authorization.k8s.io"
    net_conf = {"Network": PODS, "Backend": {"Type": "vxlan"}, "EnableNFTables": nftables}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "canal", "namespace": _NAMESPACE}},
        {"apiVersion": f"{rights}/v1", "kind": "ClusterRole", "metadata": {"name": "flannel"}, "rules": rules},
        {
            "apiVersion": f"{rights}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "flannel"},
            "roleRef": {"apiGroup": rights, "kind": "ClusterRole", "name": "flannel"},
            "subjects": [account],
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "rke2-canal-config", "namespace": _NAMESPACE},
            "data": {"canal_iface": "", "masquerade": "true", "net-conf.json": json.dumps(net_conf)},
        },
        _daemon_set(flannel),
    ]


def _numbers(flannel: str) -> tuple[int, ...]:
    """Of its version. RKE2's chart has two more arguments since 0.27, which older ones do not know."""
    return tuple(int(one) for one in flannel.split(".")[:2])


def _daemon_set(flannel: str) -> dict[str, object]:
    def of_pod(name: str, field: str) -> dict[str, object]:
        return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}

    def of_config(name: str, key: str) -> dict[str, object]:
        return {"name": name, "valueFrom": {"configMapKeyRef": {"name": "rke2-canal-config", "key": key}}}

    labels = {"k8s-app": "canal"}
    container = {
        "name": "kube-flannel",
        "image": flannel_tag(flannel),
        "imagePullPolicy": "Never",
        "args": [
            "--ip-masq",
            "--kube-subnet-mgr",
            *(["--iptables-forward-rules=false", "--ip-blackhole-route"] if _numbers(flannel) >= (0, 27) else []),
            "--healthz-port=8081",
        ],
        "env": [
            of_pod("POD_NAME", "metadata.name"),
            of_pod("POD_NAMESPACE", "metadata.namespace"),
            of_config("FLANNELD_IFACE", "canal_iface"),
            of_config("FLANNELD_IP_MASQ", "masquerade"),
            {"name": "KUBERNETES_SERVICE_HOST", "value": HUB},
            {"name": "KUBERNETES_SERVICE_PORT", "value": "6443"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/healthz", "port": 8081, "host": "127.0.0.1"},
            "periodSeconds": 1,
        },
        "securityContext": {"privileged": True},
        "volumeMounts": [
            {"name": "xtables-lock", "mountPath": "/run/xtables.lock"},
            {"name": "flannel-cfg", "mountPath": "/etc/kube-flannel/"},
        ],
    }
    pod = {
        "hostNetwork": True,
        "tolerations": [{"operator": "Exists"}],
        "serviceAccountName": "canal",
        "terminationGracePeriodSeconds": 0,
        "priorityClassName": "system-node-critical",
        "containers": [container],
        "volumes": [
            {"name": "xtables-lock", "hostPath": {"path": "/run/xtables.lock", "type": "FileOrCreate"}},
            {"name": "flannel-cfg", "configMap": {"name": "rke2-canal-config"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": NAME, "namespace": _NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
