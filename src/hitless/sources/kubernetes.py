"""This node's subnets, from the Kubernetes API.

Problem: the agent needs one field of one object (``node.spec.podCIDRs``), from the server that flannel's flags, a
kubeconfig or the pod's service account names. Promise: ``hitless.kube`` reaches the API as for every daemon; every
failure is ``ApiError`` (try again) or ``InputError`` (the configuration is wrong). It only reads; annotations and
conditions are written by the overlay. One call, bounded time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from hitless.errors import ApiError, InputError
from hitless.kube import contexts, urls
from hitless.kube.client import Client
from hitless.kube.contexts import Connection
from hitless.kube.objects import NODES, PODS, Kind, Object
from hitless.model import reading
from hitless.model.families import Network
from hitless.sources.flags import Options

__all__ = ["NodeSource", "connect"]

_MOST_SUBNETS = 16  # Kubernetes allows one for each family
_HINTS = {
    401: "the token is not accepted",
    403: "the rights to get nodes and pods are missing (RBAC)",
    404: "there is no such node or pod",
}

_T = TypeVar("_T", bound=Object)


def connect(options: Options) -> Client:
    """The API server that the flags and the environment name; raises ``InputError`` that says what is missing."""
    read = _connection_reader(options)
    return Client(read(), options.environment, agent="hitless-agent", again=read)


def _connection_reader(options: Options) -> Callable[[], Connection]:
    """Reads server and credentials; called again when the server refuses the old ones."""
    url = options.kube_api_url
    if url and not _is_server(url):
        raise InputError("is not a URL of a server", where="--kube-api-url", expected="https://HOST:PORT")

    def read() -> Connection:
        if options.kubeconfig:
            connection = contexts.read(Path(options.kubeconfig), None)
            return replace(connection, cluster=replace(connection.cluster, server=url)) if url else connection
        if own := contexts.account(options.environment, url):
            return own
        if url:
            return Connection("--kube-api-url", None, "", contexts.KubeconfigCluster(url), "")
        raise InputError(
            "no API server is named",
            where="--kube-api-url, --kubeconfig-file, KUBERNETES_SERVICE_HOST",
            expected="one of them, or a pod with a service account",
        )

    return read


def _is_server(url: str) -> bool:
    try:
        found = urls.parsed(url)
    except ValueError:
        return False
    return found.scheme in ("http", "https") and bool(found.host)


@dataclass(frozen=True, slots=True)
class NodeSource:
    """Reads one node from the API server.

    ``node`` may be empty where ``pod`` (namespace, name) is given: then the node is the one on which that pod runs,
    as with flannel (its chart, and Canal's, set POD_NAME and POD_NAMESPACE).
    """

    node: str
    client: Client
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
        return cls(options.node_name, connect(options), pod)

    def __str__(self) -> str:
        return f"node {self.node}" if self.node else f"the node of pod {'/'.join(self.pod)}"

    def subnets(self) -> tuple[Network, ...]:
        """spec.podCIDRs of this node. Raises ``ApiError`` when it cannot be had now."""
        name = self.node or self._node_of_pod()
        cidrs = self._get(NODES, name).pod_cidrs
        if not cidrs:
            raise ApiError(f"node {name} has no podCIDR yet (kube-controller-manager --allocate-node-cidrs)")
        try:
            # as flannel reads them: the address may be any of the subnet's
            return tuple(reading.network(text, where="spec.podCIDRs", host_bits=True) for text in cidrs[:_MOST_SUBNETS])
        except InputError as error:
            raise ApiError(f"the answer is not a node ({error})") from error

    def _node_of_pod(self) -> str:
        namespace, name = self.pod
        node = self._get(PODS, name, namespace).spec.node_name
        if not node:
            raise ApiError(f"pod {namespace}/{name} has no spec.nodeName")
        return node

    def _get(self, kind: Kind[_T], name: str, namespace: str = "") -> _T:
        try:
            return self.client.get(kind, name, namespace)
        except ApiError as error:
            if error.status not in _HINTS:
                raise
            raise ApiError(f"{error}: {_HINTS[error.status]}", status=error.status) from error
