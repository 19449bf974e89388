"""What kubeconfigs say, alone and together, and what is refused in them."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cluster import roads

from hitless.errors import InputError
from hitless.kube import kubeconfig, proxies
from hitless.kube.access import access
from hitless.kube.contexts import Connection, read

SERVER = "https://one.example:6443"
V1 = "client.authentication.k8s.io/v1"
EXEC = {"apiVersion": V1, "command": "login", "interactiveMode": "Never"}


def files(monkeypatch: pytest.MonkeyPatch, folder: Path, **documents: dict[str, Any]) -> None:
    """Each in a folder of its own, in this order in KUBECONFIG."""
    paths = []
    for name, document in documents.items():
        path = folder / name / "config"
        path.parent.mkdir()
        path.write_text(json.dumps(document))
        paths.append(str(path))
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(paths))


def one(folder: Path, cluster: dict[str, Any], user: dict[str, Any]) -> Connection:
    return read(roads.write(folder / "config", cluster, user), None)


def test_each_files_paths_are_relative_to_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = {"tokenFile": "sub/token", "client-certificate": "me.pem", "client-key": "../me.key"}
    files(
        monkeypatch,
        tmp_path,
        a={"clusters": [{"name": "c", "cluster": {"server": SERVER, "certificate-authority": "ca.pem"}}]},
        b={"users": [{"name": "u", "user": user}]},
        c={"contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"},
    )
    (tmp_path / "a/ca.pem").write_text("authority")
    (tmp_path / "b/me.pem").write_text("chain")
    (tmp_path / "me.key").write_text("key")
    way = read(None, None)
    assert way.cluster.authority == b"authority"
    assert way.token_file == tmp_path / "b/sub/token"
    assert way.certificate == (b"chain", b"key")


def test_without_any_kubeconfig_it_is_said_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "gone"))
    for look in (kubeconfig.named_by_environment, lambda: kubeconfig.merged([tmp_path / "gone"])):
        with pytest.raises(InputError) as refused:
            look()
        assert "--kubeconfig FILE or KUBECONFIG" in str(refused.value)
        assert "/etc/rancher/rke2/rke2.yaml" in str(refused.value)


def test_a_login_program_is_relative_to_its_file_when_it_has_a_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command, meant in (("./bin/login", str(tmp_path / "bin/login")), ("login", "login"), ("/x/y", "/x/y")):
        monkeypatch.chdir("/")
        way = one(tmp_path, {"server": SERVER}, {"exec": {**EXEC, "command": command}})
        assert way.plugin is not None
        assert way.plugin.command == meant


def test_the_first_word_on_a_name_counts_and_nothing_is_added_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    files(
        monkeypatch,
        tmp_path,
        a={"users": [{"name": "u", "user": {"token": "first"}}], "current-context": ""},
        b={
            "clusters": [{"name": "c", "cluster": {"server": SERVER}}],
            "users": [{"name": "u", "user": {"token": "second", "as": "admin"}}],
            "contexts": [context],
            "current-context": "x",
        },
        c={
            "clusters": [{"name": "c", "cluster": {"server": "https://two.example", "tls-server-name": "n"}}],
            "contexts": [{"name": "x", "context": {"cluster": "none", "namespace": "other"}}],
            "current-context": "y",
        },
    )
    way = read(None, None)
    assert (way.cluster.server, way.cluster.server_name, way.namespace) == (SERVER, "", "default")
    assert (way.token, way.impersonation) == ("first", ())


@pytest.mark.parametrize(
    ("server", "more", "meant"),
    [
        ("one.example:6443", {}, "http://one.example:6443"),
        ("one.example", {"insecure-skip-tls-verify": True}, "https://one.example"),
        ("https://[2001:db8::1]:6443/a/b/", {}, "https://[2001:db8::1]:6443/a/b/"),
        ("https://me:secret@one.example/a", {}, "https://one.example/a"),
    ],
)
def test_a_server_is_what_kubectl_takes_it_for(tmp_path: Path, server: str, more: dict[str, Any], meant: str) -> None:
    assert one(tmp_path, {"server": server, **more}, {}).cluster.server == meant


AUTHORITY = {"certificate-authority-data": base64.b64encode(b"x").decode()}


@pytest.mark.parametrize(
    ("cluster", "said"),
    [
        ({}, "cluster c: it has no server"),
        ({"server": ""}, "cluster c: it has no server"),
        ({"server": "https://"}, "its server is not a URL"),
        ({"server": "unix:///run/api"}, "its server is not a URL"),
        ({"server": SERVER, "insecure-skip-tls-verify": True, **AUTHORITY}, "insecure-skip-tls-verify with a cert"),
        ({"server": SERVER, "certificate-authority": "/x", **AUTHORITY}, "are both given"),
        ({"server": SERVER, "certificate-authority": "/no/such"}, "/no/such cannot be read: No such file"),
        ({"server": SERVER, "certificate-authority-data": "secret"}, "certificate-authority-data is not base64"),
        ({"server": SERVER, **AUTHORITY}, "the certificate authority of https://one.example:6443: it is not PEM"),
        ({"server": SERVER, "proxy-url": "ftp://me:secret@p:1"}, "proxy-url: a proxy by ftp is not known"),
        ({"server": SERVER, "proxy-url": "http://me:sec/ret@p:1"}, "proxy-url: the proxy is not a URL"),
        ({"server": SERVER, "proxy-url": "p:3128"}, "proxy-url: a proxy by p is not known"),
        ({"server": SERVER, "tls-server-name": 7}, "cluster c: Expected `str`, got `int` - at `$.tls-server-name`"),
    ],
)
def test_a_cluster_that_does_not_say_where_is_refused(tmp_path: Path, cluster: dict[str, Any], said: str) -> None:
    path = roads.write(tmp_path / "config", cluster, {"token": "t"})
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        access(path, None)
    assert str(path) in str(caught.value)
    assert "sec" not in str(caught.value).replace(str(path), "").replace("insecure", "")


PAIR = {name: base64.b64encode(b"secret").decode() for name in ("client-certificate-data", "client-key-data")}


@pytest.mark.parametrize(
    ("user", "said"),
    [
        ({"as-groups": ["secret"]}, "without as"),
        ({"as-uid": "secret", "token": "secret"}, "without as"),
        ({"as-user-extra": {"a": ["secret"]}}, "without as"),
        ({"as": "secret\r\nImpersonate-Group: system:masters"}, "a control character"),
        ({"as": ["secret"]}, "Expected `str`, got `array` - at `$.as`"),
        ({"token": "secret", "username": "secret"}, "token and username are both given"),
        ({"tokenFile": "/secret", "password": "secret"}, "token and username are both given"),
        ({"token": 123}, "Expected `str`, got `int` - at `$.token`"),
        ({"client-certificate": "/secret", **PAIR}, "are both given"),
        ({"client-certificate-data": PAIR["client-certificate-data"]}, "without its key"),
        ({"client-certificate": "/no/such", "client-key": "/no/such"}, "/no/such cannot be read"),
        (PAIR, "the client certificate of user u: its chain or key is not PEM"),
        ({"auth-provider": {"name": "oidc"}}, "auth-provider is not known"),
        ({"auth-provider": {"name": "oidc"}, "exec": EXEC}, "auth-provider is not known"),
        ({"exec": {**EXEC, "interactiveMode": "Always"}}, "wants to ask the user (interactiveMode: Always)"),
        ({"exec": {**EXEC, "interactiveMode": "Perhaps"}}, "unknown interactiveMode"),
        ({"exec": {**EXEC, "apiVersion": "v0"}}, "exec plugins of v0 are not known"),
        ({"exec": {"apiVersion": V1}}, "missing required field `command`"),
    ],
)
def test_a_user_that_does_not_say_who_is_refused(tmp_path: Path, user: dict[str, Any], said: str) -> None:
    path = roads.write(tmp_path / "config", {"server": SERVER}, user)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        access(path, None)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value).replace(str(path), "")


def test_a_key_behind_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=x"]
    words += ["-passout", "pass:secret", "-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "chain")]
    subprocess.run(words, check=True, capture_output=True)
    user = {"client-certificate": "chain", "client-key": "key"}
    with pytest.raises(InputError, match="its key is locked by a password"):
        access(roads.write(tmp_path / "config", {"server": SERVER}, user), None)


@pytest.mark.parametrize("user", [{"token": "t"}, {"username": "me"}, {"tokenFile": "/token"}])
def test_what_is_said_itself_counts_before_a_login_program(tmp_path: Path, user: dict[str, Any]) -> None:
    assert one(tmp_path, {"server": SERVER}, {**user, "exec": EXEC}).plugin is None


def test_a_missing_login_program_is_said_with_how_to_get_it(tmp_path: Path) -> None:
    import asyncio

    from hitless.kube.login import from_plugin

    program = {**EXEC, "command": "no-such-login", "installHint": "get it from\nexample.org"}
    way = one(tmp_path, {"server": SERVER}, {"exec": program})
    assert way.plugin is not None
    with pytest.raises(InputError, match=r"no-such-login.*\(get it from example.org\)"):
        asyncio.run(from_plugin(way.plugin, way.where))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clusters: [{name: a}, {name: a}]", "it has two clusters 'a'"),
        ("users: {a: b}", "it is not a kubeconfig"),
        ("users: [{name: u, user: {token: *secret}}]", "undefined alias … (line 1)"),
        ("users:\n- user: {token: !secret x}", "for the tag … (line 2)"),
        ("a: b\ntoken: 'secret", "scanning a quoted scalar"),
        ("a: 2020-99-99", "it is not YAML"),
        ("a: \x07secret", "it is not YAML"),
    ],
)
def test_a_file_that_is_not_understood_is_not_quoted(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        read(tmp_path / "config", None)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "context", "said"),
    [
        ({"current-context": ""}, None, "no current context"),
        ({}, "y", "it has no context 'y' (expected one of its contexts (x))"),
        ({"clusters": None}, None, "it has no cluster 'c'"),
        ({"users": None}, None, "it has no user 'u'"),
    ],
)
def test_a_context_that_leads_nowhere_is_refused(
    tmp_path: Path, change: dict[str, Any], context: str | None, said: str
) -> None:
    path = roads.write(tmp_path / "config", {"server": SERVER}, {"token": "t"})
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=re.escape(said)):
        read(path, context)


def test_what_can_be_read_only_once_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config")
    with pytest.raises(InputError, match="read more than once"):
        read(tmp_path / "config", None)


def test_nothing_of_a_user_is_in_what_is_printed_of_it(tmp_path: Path) -> None:
    env = [{"name": "A", "value": "secret"}]
    cluster = {"server": SERVER, "proxy-url": "http://me:secret@p:1"}
    for user in ({"token": "secret"}, {"username": "a", "password": "secret"}, PAIR, {"exec": {**EXEC, "env": env}}):
        assert "secret" not in repr(one(tmp_path, cluster, user))


@pytest.mark.parametrize(
    ("server", "exceptions", "direct"),
    [
        ("https://localhost:6443", "", True),
        ("https://127.9.9.9", "", True),
        ("https://[::1]:6443", "", True),
        ("https://a.example", "", False),
        ("https://a.example", "b.example,*", True),
        ("https://a.example", "*.b.example", False),
        ("https://a.b.example", "*.b.example", True),
        ("https://b.example", "*.b.example", False),
        ("https://b.example", ".b.example", False),
        ("https://b.example", " B.Example ,", True),
        ("https://a.b.example", "b.example", True),
        ("https://ab.example", "b.example", False),
        ("https://b.example:6443", "b.example:6443", True),
        ("https://b.example:6443", "b.example:443", False),
        ("https://b.example", "b.example:443", True),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://10.1.2.3", "10.1.2.3/8", True),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.0.0.0/255.0.0.0", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3", "1.2.3,2.3,.3", False),
        ("https://10.1.2.3:6443", "10.1.2.3:443", False),
        ("https://[2001:db8::5]:6443", "2001:db8::/32", True),
        ("https://[2001:db8::5]:6443", "2001:db8::5", True),
        ("https://[2001:db8::5]:6443", "[2001:db8:0::5]:6443", True),
        ("https://[2001:db8::5]:6443", "[2001:db8::5]:443", False),
        ("https://[2001:db8::5]:6443", "[2001:db8::5]", False),
        ("https://a.example", "[a.example]", False),
        ("https://a.example", "10.0.0.0/8,a.example/24,:443,://,[", False),
    ],
)
def test_the_exceptions_from_a_proxy_are_those_of_kubectl(server: str, exceptions: str, direct: bool) -> None:
    environment = {"HTTPS_PROXY": "p:3128", "NO_PROXY": exceptions, "HTTP_PROXY": "http://wrong:1"}
    assert proxies.chosen(server, environment) == ("" if direct else "http://p:3128")


@pytest.mark.parametrize(
    ("server", "environment", "proxy"),
    [
        ("https://a.example", {"https_proxy": "https://p:1"}, "https://p:1"),
        ("https://a.example", {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"}, "http://up:1"),
        ("https://a.example", {"ALL_PROXY": "http://p:1", "HTTP_PROXY": "http://p:1"}, ""),
        ("http://a.example", {"http_proxy": "http://p:1", "HTTPS_PROXY": "http://q:1"}, "http://p:1"),
        ("https://a.example", {"HTTPS_PROXY": "http://p:1", "no_proxy": "a.example"}, ""),
        ("https://a.example", {"HTTPS_PROXY": ""}, ""),
    ],
)
def test_the_variables_are_those_of_kubectl(server: str, environment: dict[str, str], proxy: str) -> None:
    assert proxies.chosen(server, environment) == proxy


def test_a_variable_that_names_no_proxy_is_refused_and_not_passed_over() -> None:
    with pytest.raises(InputError, match="HTTPS_PROXY: a proxy by ftp is not known") as caught:
        proxies.chosen(SERVER, {"HTTPS_PROXY": "ftp://me:secret@p:1"})
    assert "secret" not in str(caught.value)


def test_a_client_that_is_not_installed_is_said_with_how_to_get_it() -> None:
    code = "import sys; sys.modules['yaml'] = None; import hitless.kube.access"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingError: the Kubernetes client is not installed (yaml); install it: pip" in done.stderr
