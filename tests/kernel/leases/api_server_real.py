"""A real kube-apiserver on an etcd of its own, for one module: RBAC on, no kubelet, no controllers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.contract.leases.clusters import Cluster
from tests.kernel.leases import etcd_server

from hitless.testing.ports import reserved_ports

__all__ = ["FLANNEL_RULES", "program", "real"]

FLANNEL_RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
]
"""flannel's ClusterRole (its Documentation/kube-flannel.yml, and rke2-canal's), where it is least."""


def program() -> str:
    """kube-apiserver's path; the test is skipped without it: no package has it."""
    found = os.environ.get("HITLESS_KUBE_APISERVER") or shutil.which("kube-apiserver")
    if not found:
        pytest.skip("no kube-apiserver: make real-cluster builds one; name it in HITLESS_KUBE_APISERVER")
    return found


@contextmanager
def real() -> Iterator[Cluster]:
    server = program()
    with (
        tempfile.TemporaryDirectory(prefix="hitless-api-") as made,
        etcd_server.serving() as etcd,
        reserved_ports(1) as (port,),
    ):
        folder = Path(made)
        (folder / "tokens.csv").write_text("admin,admin,1,system:masters\nflannel,flannel,2,\n")
        _run("openssl", "genpkey", "-algorithm", "RSA", "-out", str(folder / "accounts.key"))
        command = [
            server, f"--etcd-servers={etcd.url}", "--bind-address=127.0.0.1", f"--secure-port={port}",
            f"--cert-dir={folder}", "--advertise-address=127.0.0.1", "--service-cluster-ip-range=10.96.0.0/16",
            f"--token-auth-file={folder}/tokens.csv", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/accounts.key",
            f"--service-account-signing-key-file={folder}/accounts.key", "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield _ready(folder, port, process)
        finally:
            process.kill()
            process.wait(30)


def _ready(folder: Path, port: int, process: subprocess.Popen[bytes]) -> Cluster:
    until = time.monotonic() + 120
    certificate = folder / "apiserver.crt"  # signed by an authority that stands in the same file
    while True:
        assert process.poll() is None, (folder / "log").read_text()[-3000:]
        assert time.monotonic() < until, (folder / "log").read_text()[-3000:]
        time.sleep(0.2)
        if not certificate.exists():
            continue
        authority = certificate.read_bytes()
        cluster = Cluster(f"https://127.0.0.1:{port}", "admin", "flannel", authority)
        try:
            cluster.ask("GET", "/api/v1/nodes")
            _grant(cluster)
            return cluster
        except (OSError, urllib.error.HTTPError):
            continue


def _grant(cluster: Cluster) -> None:
    group = "rbac.authorization.k8s.io"
    base, version = f"/apis/{group}/v1", f"{group}/v1"
    meta = {"name": "flannel-test"}
    role = {"apiVersion": version, "kind": "ClusterRole", "metadata": meta, "rules": FLANNEL_RULES}
    subject = {"kind": "User", "name": "flannel", "apiGroup": group}
    reference = {"kind": "ClusterRole", "name": "flannel-test", "apiGroup": group}
    bound: dict[str, object] = {"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": meta}
    bound |= {"subjects": [subject], "roleRef": reference}
    for path, body in (
        ("clusterroles", role),
        ("clusterrolebindings", bound),
    ):
        try:
            cluster.ask("POST", f"{base}/{path}", body)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
