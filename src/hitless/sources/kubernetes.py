"""This node's subnets, asked of the Kubernetes API with the standard library.

Problem: the agent needs one field of one object (``node.spec.podCIDRs``), and a client library costs more memory than
the whole agent may use. Promise: in a pod the service account's token and CA are used; else a kubeconfig (JSON, or
YAML where PyYAML is installed) with a token or a client certificate; every failure is ``ApiError`` (try again) or
``InputError`` (it will never work). It reads; annotations and conditions belong to the overlay. One call, bounded time.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from urllib.parse import quote, urlsplit

from hitless.errors import ApiError, InputError
from hitless.kernel import files
from hitless.kernel.memfiles import in_memory
from hitless.kube.asking import ask, bearer, trusting
from hitless.model import reading
from hitless.model.documents import Excess, from_json, from_yaml
from hitless.model.families import Network
from hitless.sources.flags import Options

__all__ = ["NodeSource"]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MOST_SUBNETS = 16  # Kubernetes allows one for each family
_PATIENCE = 10.0  # seconds for the server to go on
_WHOLE = 30.0  # seconds for a whole answer
_MOST = 8 << 20  # bytes of an answer: one object


@dataclass(frozen=True, slots=True)
class NodeSource:
    """Where and how to ask. ``token_file`` is read at each call: the kubelet renews it.

    ``node`` may be empty where ``pod`` (namespace, name) is told: then the node is the one on which that pod runs,
    as flannel does it (its chart, and Canal's, set POD_NAME and POD_NAMESPACE).
    """

    node: str
    url: str
    token: str = ""
    token_file: Path | None = None
    context: ssl.SSLContext | None = None
    pod: tuple[str, str] = ("", "")

    @classmethod
    def from_options(cls, options: Options) -> NodeSource:
        """From flags and environment; raises ``InputError`` that says what is missing."""
        pod = (options.environment.get("POD_NAMESPACE", ""), options.environment.get("POD_NAME", ""))
        if not options.node_name and not all(pod):
            raise InputError(
                "the node's name is not known",
                where="--node-name, NODE_NAME",
                expected="the name of this node in Kubernetes, or POD_NAME and POD_NAMESPACE, as in flannel's chart",
            )
        if options.kubeconfig:
            return cls._from_kubeconfig(options, pod)
        host = options.environment.get("KUBERNETES_SERVICE_HOST", "")
        port = options.environment.get("KUBERNETES_SERVICE_PORT", "443")
        url = options.kube_api_url or (f"https://{f'[{host}]' if ':' in host else host}:{port}" if host else "")
        if not url:
            raise InputError(
                "no API server is named",
                where="--kube-api-url, --kubeconfig-file, KUBERNETES_SERVICE_HOST",
                expected="one of them, or a pod with a service account",
            )
        authority = _ACCOUNT / "ca.crt"
        context = None
        if url.startswith("https"):
            try:
                context = trusting(files.read(authority) if authority.exists() else None)
            except (OSError, ValueError) as error:
                words = "a pod's service account"
                raise InputError(f"cannot be used: {error}", where=str(authority), expected=words) from error
        token = _ACCOUNT / "token"
        return cls(options.node_name, url, token_file=token if token.exists() else None, context=context, pod=pod)

    @classmethod
    def _from_kubeconfig(cls, options: Options, pod: tuple[str, str]) -> NodeSource:
        path = Path(options.kubeconfig)
        data = _load(path)
        chosen = _named(data, "contexts", _text(data.get("current-context")), path).get("context", {})
        if not isinstance(chosen, Mapping):
            raise InputError("the context is no object", where=str(path), expected="cluster and user")
        cluster = _named(data, "clusters", _text(chosen.get("cluster")), path).get("cluster", {})
        user = _named(data, "users", _text(chosen.get("user")), path).get("user", {})
        if not isinstance(cluster, Mapping) or not isinstance(user, Mapping):
            raise InputError("cluster or user is no object", where=str(path), expected="a kubeconfig")
        url = options.kube_api_url or _text(cluster.get("server"))
        if not url:
            raise InputError("the cluster has no server", where=str(path), expected="clusters[].cluster.server")
        _refuse_unknown(cluster, user, path)
        context = _context(cluster, user, path) if url.startswith("https") else None
        file = _beside(path, user.get("tokenFile"))
        return cls(
            options.node_name,
            url,
            token=_text(user.get("token")),
            token_file=Path(file) if file else None,
            context=context,
            pod=pod,
        )

    def __str__(self) -> str:
        return f"node {self.node}" if self.node else f"the node of pod {'/'.join(self.pod)}"

    def subnets(self) -> tuple[Network, ...]:
        """spec.podCIDRs of this node. Raises ``ApiError`` when it cannot be had now."""
        node = self.node or self._node_of_pod()
        path = f"/api/v1/nodes/{quote(node, safe='')}"
        spec = self._spec(path, "nodes")
        told = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        if not isinstance(told, list):
            raise ApiError(f"GET {path}: the answer is no node (its podCIDRs are no list)")
        if not told:
            raise ApiError(f"node {node} has no podCIDR yet (kube-controller-manager --allocate-node-cidrs)")
        try:
            # as flannel reads them: the address may be any of the subnet's
            return tuple(reading.network(text, where="spec.podCIDRs", host_bits=True) for text in told[:_MOST_SUBNETS])
        except InputError as error:
            raise ApiError(f"GET {path}: the answer is no node ({error})") from error

    def _node_of_pod(self) -> str:
        namespace, name = self.pod
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        node = self._spec(path, "pods").get("nodeName")
        if not isinstance(node, str) or not node:
            raise ApiError(f"GET {path}: the pod has no spec.nodeName")
        return node

    def _spec(self, path: str, kind: str) -> Mapping[str, object]:
        """The ``spec`` of an object."""
        status, body = self._get(path)
        if status != 200:
            hint = {
                401: "the token is not accepted",
                403: f"{kind} may not be read (RBAC: get {kind})",
                404: f"no such {kind[:-1]}",
            }
            raise ApiError(f"GET {path}: {status} {hint.get(status, '')}".strip(), status=status)
        try:
            data = from_json(body)
        except ValueError as error:
            raise ApiError(f"GET {path}: the answer is no {kind[:-1]} ({error})") from error
        spec = data.get("spec", {}) if isinstance(data, Mapping) else None
        if not isinstance(spec, Mapping):
            raise ApiError(f"GET {path}: the answer is no {kind[:-1]} (it has no spec)")
        return spec

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise InputError(
                f"{self.url!r} is no address ({error})", where="the API server", expected="a URL"
            ) from error
        connection: HTTPConnection
        if parts.scheme == "https":
            connection = HTTPSConnection(host, port, timeout=_PATIENCE, context=self.context)
        else:
            connection = HTTPConnection(host, port, timeout=_PATIENCE)
        headers = {"Accept": "application/json", "User-Agent": "hitless-agent"}
        try:
            token = files.read_text(self.token_file).strip() if self.token_file is not None else self.token
            headers |= bearer(token)
            whole = parts.path.rstrip("/") + path
            return ask(connection, "GET", whole, None, headers, within=_WHOLE, most=_MOST)
        except UnicodeDecodeError as error:
            raise ApiError(f"{self.token_file} holds no token (it is no text)") from error
        except OSError as error:
            raise ApiError(f"{self.url} cannot be reached: {error}") from error


def _load(path: Path) -> Mapping[str, object]:
    try:
        text = files.read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=str(path), expected="a kubeconfig") from error
    try:
        data: object = from_json(text)
    except ValueError:
        data = _yaml(text, path)
    if not isinstance(data, Mapping):
        raise InputError("is no object", where=str(path), expected="a kubeconfig")
    return data


def _yaml(text: str, path: Path) -> object:
    try:
        import yaml
    except ImportError as error:
        raise InputError(
            "is YAML, and PyYAML is not installed", where=str(path), expected="JSON (kubectl config view --raw -o json)"
        ) from error
    try:
        return from_yaml(text)
    except ValueError as error:
        words = f"does not parse ({error})" if isinstance(error, Excess) else "does not parse"
        raise InputError(words, where=str(path), expected="a kubeconfig") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # YAML's own words quote the file, secrets and all
        line = f" (line {mark.line + 1})" if mark is not None else ""
        raise InputError(f"does not parse{line}", where=str(path), expected="a kubeconfig") from None


def _named(data: Mapping[str, object], key: str, name: str, path: Path) -> Mapping[str, object]:
    items = data.get(key)
    for item in items if isinstance(items, list) else []:
        if isinstance(item, Mapping) and item.get("name") == name:
            return item
    raise InputError(
        f"no {key} entry named {name!r}", where=f"{path}: {key}", expected="what current-context points to"
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _beside(path: Path, name: object) -> str:
    """A file that the kubeconfig names; relative ones are relative to it."""
    return str(path.absolute().parent / _text(name)) if _text(name) else ""


def _refuse_unknown(cluster: Mapping[str, object], user: Mapping[str, object], path: Path) -> None:
    """What says whom to ask, or as whom, and is not done here: to pass it over would ask another, or as another."""
    shown = ("token", "tokenFile", "client-certificate", "client-certificate-data")
    logins = () if any(user.get(name) for name in shown) else ("exec", "auth-provider")
    acting = ("as", "as-uid", "as-groups", "as-user-extra", "username")
    for part, names in ((cluster, ("proxy-url", "tls-server-name")), (user, acting + logins)):
        for name in names:
            if part.get(name):
                expected = "a token, a token file or a client certificate, and a server that is reached directly"
                raise InputError(f"{name} is not known to the agent", where=str(path), expected=expected)


def _context(cluster: Mapping[str, object], user: Mapping[str, object], path: Path) -> ssl.SSLContext:
    try:
        authority = _text(cluster.get("certificate-authority-data"))
        file = _beside(path, cluster.get("certificate-authority"))
        context = trusting(base64.b64decode(authority) if authority else files.read(Path(file)) if file else None)
        if cluster.get("insecure-skip-tls-verify") is True:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if user.get("client-certificate"):
            names = (_beside(path, user.get(name)) for name in ("client-certificate", "client-key"))
            with in_memory(b"\n".join(files.read(Path(name)) for name in names if name)) as memory:
                context.load_cert_chain(memory)
        elif user.get("client-certificate-data"):
            parts = (_text(user.get(name)) for name in ("client-certificate-data", "client-key-data"))
            with in_memory(b"\n".join(base64.b64decode(part) for part in parts)) as memory:
                context.load_cert_chain(memory)
    except (OSError, ValueError) as error:
        raise InputError(f"certificates cannot be used: {error}", where=str(path), expected="a kubeconfig") from error
    return context
