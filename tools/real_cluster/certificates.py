"""Certificates and kubeconfigs of the cluster, made by openssl; remade at every start."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from tools.real_cluster.folder import API, HUB, Folder, run

_CLIENT = "extendedKeyUsage=clientAuth"
_BOTH = "extendedKeyUsage=serverAuth,clientAuth"
_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


def make(folder: Folder, nodes: Iterable[tuple[str, str]]) -> str:
    """All of them; the answer is the administrator's token. ``nodes``: names with their addresses."""
    shutil.rmtree(folder.pki)
    pki = folder.pki
    pki.chmod(0o700)
    _key(pki, "ca")
    authority = ["openssl", "req", "-x509", "-new", "-key", str(pki / "ca.key"), "-subj", "/CN=hitless-real-cluster"]
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    run([*authority, "-days", "30", "-out", str(pki / "ca.crt"), *usage])
    sans = ",".join([*(f"DNS:{one}" for one in _NAMES), "IP:127.0.0.1", "IP:10.96.0.1", f"IP:{HUB}"])
    _signed(pki, "apiserver", "/CN=kube-apiserver", _BOTH, sans)
    _signed(pki, "apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet", _CLIENT)
    for name, subject in (
        ("admin", "/O=system:masters/CN=admin"),
        ("controller-manager", "/CN=system:kube-controller-manager"),
        ("scheduler", "/CN=system:kube-scheduler"),
        ("proxy", "/CN=system:kube-proxy"),
    ):
        _signed(pki, name, subject, _CLIENT)
        _kubeconfig(pki, name)
    for name, address in nodes:
        subject = f"/O=system:nodes/CN=system:node:{name}"
        _signed(pki, f"kubelet-{name}", subject, _BOTH, f"DNS:{name},DNS:localhost,IP:127.0.0.1,IP:{address}")
        _kubeconfig(pki, f"kubelet-{name}")
    run(["openssl", "genrsa", "-out", str(pki / "accounts.key"), "2048"])
    run(["openssl", "rsa", "-in", str(pki / "accounts.key"), "-pubout", "-out", str(pki / "accounts.pub")])
    token = secrets.token_urlsafe(24)
    (pki / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
    return token


def _key(pki: Path, name: str) -> None:
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(pki / f"{name}.key")])


def _signed(pki: Path, name: str, subject: str, usage: str, names: str = "") -> None:
    _key(pki, name)
    request, more = pki / f"{name}.csr", pki / f"{name}.ext"
    run(["openssl", "req", "-new", "-key", str(pki / f"{name}.key"), "-subj", subject, "-out", str(request)])
    lines = ["keyUsage=critical,digitalSignature,keyEncipherment", usage]
    more.write_text("\n".join([*lines, *([f"subjectAltName={names}"] if names else [])]) + "\n")
    signer = ["-CA", str(pki / "ca.crt"), "-CAkey", str(pki / "ca.key"), "-CAcreateserial", "-days", "30"]
    run(
        [
            "openssl",
            "x509",
            "-req",
            "-in",
            str(request),
            *signer,
            "-extfile",
            str(more),
            "-out",
            str(pki / f"{name}.crt"),
        ]
    )
    request.unlink()
    more.unlink()


def _kubeconfig(pki: Path, name: str) -> None:
    """JSON is YAML."""
    user = {"client-certificate": str(pki / f"{name}.crt"), "client-key": str(pki / f"{name}.key")}
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "real-cluster",
        "clusters": [{"name": "c", "cluster": {"server": API, "certificate-authority": str(pki / "ca.crt")}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "real-cluster", "context": {"cluster": "c", "user": "u"}}],
    }
    (pki / f"{name}.kubeconfig").write_text(json.dumps(whole, indent=1))
