"""etcd, API server, controller manager and scheduler, in the namespace ``hitless-k8s``."""

from __future__ import annotations

import shutil
import time

from tools.real_cluster import background
from tools.real_cluster.folder import HUB, NAMESPACE, PODS, Folder, exists, fail, run, say, within

SERVICES = "10.96.0.0/16"
PARTS = ("kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
"""In the order in which they are stopped."""

_PATIENCE = 180.0


def start(folder: Folder, token: str) -> None:
    """Start the four and wait for the API server; the state of an earlier cluster is dropped."""
    if not exists(NAMESPACE):
        run(["ip", "netns", "add", NAMESPACE])
        run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"])
        run(["ip", "-n", NAMESPACE, "link", "add", "hub0", "type", "bridge"])
        run(["ip", "-n", NAMESPACE, "link", "set", "hub0", "up"])
        run(["ip", "-n", NAMESPACE, "addr", "add", f"{HUB}/24", "dev", "hub0"])
    shutil.rmtree(folder.path / "etcd", ignore_errors=True)
    client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
    etcd = ["etcd", "--data-dir", str(folder.path / "etcd"), "--log-level", "warn"]
    etcd += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer]
    etcd += ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    background.start(folder, "etcd", within(NAMESPACE, etcd))
    background.start(folder, "kube-apiserver", within(NAMESPACE, _api_server(folder, client)))
    _wait(folder, token)
    pki = folder.pki
    manager = _component(folder, "kube-controller-manager", "controller-manager")
    manager += [f"--authentication-kubeconfig={pki}/controller-manager.kubeconfig", "--use-service-account-credentials"]
    manager += [f"--service-account-private-key-file={pki}/accounts.key", f"--root-ca-file={pki}/ca.crt"]
    manager += [f"--authorization-kubeconfig={pki}/controller-manager.kubeconfig", f"--cluster-cidr={PODS}"]
    background.start(folder, "kube-controller-manager", within(NAMESPACE, [*manager, "--allocate-node-cidrs=true"]))
    background.start(folder, "kube-scheduler", within(NAMESPACE, _component(folder, "kube-scheduler", "scheduler")))


def _component(folder: Folder, program: str, name: str) -> list[str]:
    kubeconfig = f"--kubeconfig={folder.pki}/{name}.kubeconfig"
    return [str(folder.bin / program), "--bind-address=127.0.0.1", kubeconfig, "--leader-elect=false"]


def _api_server(folder: Folder, etcd: str) -> list[str]:
    pki = folder.pki
    return [
        str(folder.bin / "kube-apiserver"),
        f"--etcd-servers={etcd}",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        f"--advertise-address={HUB}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--token-auth-file={pki}/tokens.csv",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki}/accounts.pub",
        f"--service-account-signing-key-file={pki}/accounts.key",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP,Hostname",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]


def _wait(folder: Folder, token: str) -> None:
    begun = time.monotonic()
    arguments = ["--raw=/readyz", f"--token={token}"]
    while "ok" not in folder.kubectl("get", *arguments, check=False).stdout:
        if not background.alive(folder, "kube-apiserver"):
            fail(f"the API server ended:\n  {background.last_words(folder, 'kube-apiserver')}")
        if time.monotonic() - begun > _PATIENCE:
            fail(f"the API server is not ready after {_PATIENCE:.0f} s; its log: {folder.logs / 'kube-apiserver.log'}")
        time.sleep(0.3)
    say(f"API server ready after {time.monotonic() - begun:.1f} s")


def stop(folder: Folder) -> None:
    """Stop the four and remove the namespace."""
    for one in PARTS:
        background.stop(folder, one)
    if exists(NAMESPACE):
        run(["ip", "netns", "del", NAMESPACE], check=False)
