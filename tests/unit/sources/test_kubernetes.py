"""The node's subnets from the API: what is asked, what is understood, and what each failure says."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import unquote

import pytest

from hitless.errors import ApiError, InputError
from hitless.sources.flags import parse_flags
from hitless.sources.kubernetes import NodeSource


class Server(HTTPServer):
    """One node object, as a test sets it."""

    status = 200
    body: object = {}
    pods: object = None
    seen: tuple[str, str] = ("", "")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.seen = (self.path, self.headers.get("Authorization", ""))
        body = self.server.pods if "/pods/" in self.path and self.server.pods is not None else self.server.body
        if isinstance(body, dict) and self.server.status == 200:
            body = {"metadata": {"name": unquote(self.path.rpartition("/")[2])}, **body}
        text = body if isinstance(body, str) else json.dumps(body)
        data = text.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def api() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def source(api: Server, tmp_path: Path, token: str = "secret", environment: dict[str, str] | None = None) -> NodeSource:
    """By a kubeconfig, as a person would write it; the node by its name, or as ``environment`` says."""
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.server_port}/prefix/"}}],
        "users": [{"name": "u", "user": {"token": token}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    name = ["--node-name=n 1"] if environment is None else []
    return NodeSource.from_options(parse_flags([f"--kubeconfig-file={path}", *name], environment or {}))


def test_both_families_come_from_pod_cidrs(api: Server, tmp_path: Path) -> None:
    api.body = {"spec": {"podCIDR": "10.42.3.0/24", "podCIDRs": ["10.42.3.0/24", "fd42:0:0:3::/64"]}}
    assert source(api, tmp_path).subnets() == (ip_network("10.42.3.0/24"), ip_network("fd42:0:0:3::/64"))
    assert api.seen == ("/prefix/api/v1/nodes/n%201", "Bearer secret")


def test_an_old_api_has_one_pod_cidr(api: Server, tmp_path: Path) -> None:
    api.body = {"spec": {"podCIDR": "10.42.3.0/24"}}
    assert source(api, tmp_path).subnets() == (ip_network("10.42.3.0/24"),)


FLANNELS = {"POD_NAME": "rke2-canal-abcde", "POD_NAMESPACE": "kube-system"}


def test_without_a_node_name_it_is_the_node_of_our_pod_as_flannels_chart_has_it(api: Server, tmp_path: Path) -> None:
    api.pods = {"spec": {"nodeName": "worker-7"}}
    api.body = {"spec": {"podCIDRs": ["10.42.7.0/24"]}}
    asked = source(api, tmp_path, environment=FLANNELS)
    assert asked.subnets() == (ip_network("10.42.7.0/24"),)
    assert api.seen[0] == "/prefix/api/v1/nodes/worker-7"
    assert str(asked) == "the node of pod kube-system/rke2-canal-abcde"


@pytest.mark.parametrize(
    ("pod", "named"),
    [({"spec": {}}, "no spec.nodeName"), ([], "the answer is not a pod"), ("no", "the answer is not a pod")],
)
def test_a_pod_that_says_nothing_is_an_api_error(api: Server, tmp_path: Path, pod: object, named: str) -> None:
    api.pods = pod
    with pytest.raises(ApiError, match=named):
        source(api, tmp_path, environment=FLANNELS).subnets()


def test_a_node_name_wins_over_the_pods(api: Server, tmp_path: Path) -> None:
    api.body = {"spec": {"podCIDRs": ["10.42.7.0/24"]}}
    source(api, tmp_path, environment={**FLANNELS, "NODE_NAME": "told"}).subnets()
    assert api.seen[0] == "/prefix/api/v1/nodes/told"


@pytest.mark.parametrize(
    ("status", "body", "named"),
    [
        (200, {"spec": {}}, "no podCIDR yet"),
        (200, "not json", "not a node"),
        (200, {"spec": {"podCIDRs": ["10.42.3.0"]}}, "not a node"),
        (200, {"spec": {"podCIDRs": ["fd42::%1\nCOMMIT/64"]}}, "not a node"),
        (200, {"spec": {"podCIDRs": "10.42.3.0/24"}}, "not a node"),
        (200, {"spec": {"podCIDRs": [7]}}, "not a node"),
        (200, [], "not a node"),
        (401, {}, "token"),
        (403, {}, "RBAC"),
        (404, {}, "no such node"),
        (500, {}, "500"),
    ],
)
def test_every_failure_says_what_it_is(api: Server, tmp_path: Path, status: int, body: object, named: str) -> None:
    api.status, api.body = status, body
    with pytest.raises(ApiError, match=named):
        source(api, tmp_path).subnets()


def test_an_api_that_is_away_is_an_api_error(api: Server, tmp_path: Path) -> None:
    asked = source(api, tmp_path)
    api.server_close()
    with pytest.raises(ApiError, match="cannot be reached"):
        asked.subnets()


@pytest.mark.parametrize(
    ("words", "environment", "named"),
    [
        (["--kube-subnet-mgr"], {}, "NODE_NAME"),
        (["--kube-subnet-mgr"], {"POD_NAME": "alone"}, "POD_NAMESPACE"),
        (["--node-name=n"], {}, "no API server"),
        (["--node-name=n", "--kubeconfig-file=/nonexistent"], {}, "/nonexistent"),
    ],
)
def test_what_can_never_work_is_said_at_once(words: list[str], environment: dict[str, str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        NodeSource.from_options(parse_flags(words, environment))


def test_a_kubeconfig_in_yaml(api: Server, tmp_path: Path) -> None:
    api.body = {"spec": {"podCIDRs": ["10.42.3.0/24"]}}
    path = tmp_path / "kubeconfig.yaml"
    path.write_text(
        "current-context: a\ncontexts: [{name: a, context: {cluster: b, user: c}}]\n"
        f"clusters: [{{name: b, cluster: {{server: 'http://127.0.0.1:{api.server_port}'}}}}]\n"
        "users: [{name: c, user: {token: t}}]\n"
    )
    made = NodeSource.from_options(parse_flags([f"--kubeconfig-file={path}", "--node-name=n"], {}))
    assert made.subnets() == (ip_network("10.42.3.0/24"),)


@pytest.mark.parametrize("text", ["", "[]", "current-context: x", "{", "contexts: 5\ncurrent-context: x"])
def test_a_broken_kubeconfig_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(InputError, match="broken"):
        NodeSource.from_options(parse_flags([f"--kubeconfig-file={path}", "--node-name=n"], {}))


def _kubeconfig(folder: Path, cluster: dict[str, object], user: dict[str, object]) -> NodeSource:
    path = folder / "kubeconfig"
    document = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "b", "user": "c"}}],
        "clusters": [{"name": "b", "cluster": {"server": "http://127.0.0.1:1", **cluster}}],
        "users": [{"name": "c", "user": user}],
    }
    path.write_text(json.dumps(document))
    return NodeSource.from_options(parse_flags([f"--kubeconfig-file={path}", "--node-name=n"], {}))


@pytest.mark.parametrize(
    ("cluster", "user", "named"),
    [
        ({"proxy-url": "socks5://p:1"}, {"token": "t"}, "proxy by socks5 is not known.*proxy-url"),
        ({"proxy-url": "https://p:1"}, {"token": "t"}, "proxy by https is not known.*proxy-url"),
        ({}, {"token": "t", "as-groups": ["g"]}, "as-groups"),
        ({}, {"token": "t", "username": "me", "password": "p"}, "both given"),
        ({}, {"exec": {"command": "login", "apiVersion": "client.authentication.k8s.io/v1"}}, "exec is not known"),
        ({}, {"auth-provider": {"name": "oidc"}}, "auth-provider"),
    ],
)
def test_whom_to_ask_and_as_whom_is_never_passed_over(
    tmp_path: Path, cluster: dict[str, object], user: dict[str, object], named: str
) -> None:
    with pytest.raises(InputError, match=named.partition(".*")[0]) as refused:
        _kubeconfig(tmp_path, cluster, user)
    assert named.rpartition(".*")[2] in str(refused.value)


def test_a_token_counts_before_a_login_program_and_its_file_is_relative_to_the_kubeconfig(
    api: Server, tmp_path: Path
) -> None:
    api.body = {"spec": {"podCIDR": "10.42.3.0/24"}}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/token").write_text("of the file\n")
    login = {"command": "login", "apiVersion": "client.authentication.k8s.io/v1"}
    made = _kubeconfig(
        tmp_path, {"server": f"http://127.0.0.1:{api.server_port}"}, {"tokenFile": "sub/token", "exec": login}
    )
    made.subnets()
    assert api.seen == ("/api/v1/nodes/n", "Bearer of the file")


def test_a_kubeconfig_that_does_not_parse_is_not_quoted(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("a: b\ntoken: *secret\n")
    with pytest.raises(InputError, match=r"undefined alias … \(line 2\)") as caught:
        NodeSource.from_options(parse_flags([f"--kubeconfig-file={path}", "--node-name=n"], {}))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("what", ["authority", "client-certificate", "client-key"])
def test_a_certificate_that_is_no_plain_file_is_refused_at_once(tmp_path: Path, what: str) -> None:
    """OpenSSL would wait for a FIFO for ever; and of an empty authority Python would make the machine's own."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").write_text("")
    (tmp_path / "filled").write_text("x")
    server: dict[str, object] = {"server": "https://127.0.0.1:1"}
    for name in ("fifo", "empty"):
        cluster = {**server, "certificate-authority": name} if what == "authority" else server
        user: dict[str, object] = {"client-certificate": "filled", "client-key": "filled", what: name}
        if what == "authority":
            user = {"token": "t"}
        with pytest.raises(InputError, match=f"{name} is empty|{name} cannot be read"):
            _kubeconfig(tmp_path, cluster, user)
