"""What is wrong with ``drill --cluster`` is said with the option before anybody is asked: no kubeconfig is there."""

from __future__ import annotations

import pytest

from hitless.cli.tools import run_tools
from hitless.cluster.validation import abort_after

DRILL = ["drill", "--cluster", "--yes", "--kubeconfig", "/nonexistent"]
AGENT = "NAMESPACE/DAEMONSET or NAMESPACE/DAEMONSET/CONTAINER, as kube-system/rke2-canal/kube-flannel"
LONG = "a" * 64


def said(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run_tools(words) == 3
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        *(("--agent", one, AGENT)
          for one in ("kube-system", "/canal", "kube-system/", "a/b/c/d", "a/b/", "A/b", "a/b c")),
        *((flag, one, "up to 63 small letters")
          for flag in ("--namespace", "--probe-namespace") for one in ("Drills", "a_b", "a/b", "-a", "a.b", LONG)),
        ("--namespace", "", "up to 63 small letters"),
        *(("--image", one, "[REGISTRY/]NAME[:TAG][@DIGEST]")
          for one in ("", "a b", "Hitless:1", "hitless:", "hitless@sha256:0", "https://ghcr.io/hitless", "x:y:z")),
        *(("--push-metrics", one, "a Pushgateway, http://HOST:PORT")
          for one in ("pushgateway:9091", "ftp://x", "http://", "http://x:0", "http://x:99999", "http://[::1",
                      "http://x/a b", "http://x/?a=b", "http://x/#a")),
        *(("--watch-profile", one, "one of canal, flannel, flannel-nftables")
          for one in ("", "cilium", "./canal.toml")),
        *(("--node-selector", one, "KEY=VALUE or KEY")
          for one in ("=x", "a!=b", "a==b", "a in (b)", "A/b/c=d", f"a={LONG}", "ok=1,not ok")),
        *(("--abort-after", one, "losses (500), or seconds without egress (10s)")
          for one in ("", "0", "0s", "-1", "10m", "1e3", "s", "1.5", "nans")),
        *(("--to", one, "farend://HOST[:PORT]") for one in ("", "far.example", "Node", "ht:x")),
        ("--to", "tcp://192.0.2.1", "tcp://HOST:PORT"),
        ("--to", "farend://192.0.2.1:80", "1024 to"),
        ("--node", "Worker 1", "small letters"),
        ("--pull-secret", "a/b", "small letters"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_option_and_what_was_expected(
    option: str, value: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = said([*DRILL, option, value], capsys)
    term = value.rpartition(",")[2] if option == "--node-selector" else value
    assert line.startswith(f"hitless: {option}: {term!r}"), line
    assert f"(expected {expected}" in line or expected in line.partition("(expected ")[2], line


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--agent", "kube-system/rke2-canal"), ("--agent", "kube-flannel/kube-flannel-ds.v1/kube-flannel"),
        ("--namespace", "d"), ("--probe-namespace", "a" * 63),
        ("--image", "hitless"), ("--image", "localhost:5000/a/b_c:V1"), ("--image", "[::1]:5000/hitless:1.0"),
        ("--image", f"ghcr.io/hitless/hitless:0.1.0.dev0@sha256:{'0' * 64}"),
        ("--push-metrics", "http://pushgateway.monitoring:9091"), ("--push-metrics", "https://[fd00::1]/push/"),
        ("--watch-profile", "canal"), ("--node-selector", "node-role.kubernetes.io/worker,zone=a, x="),
        ("--abort-after", "500"), ("--abort-after", "1.5s"), ("--to", "node"), ("--to", "https://example.org/a?b"),
        ("--node", "worker-1.example.org"), ("--pull-secret", "one"),
    ],
)  # fmt: skip
def test_a_right_value_goes_on_to_the_kubeconfig(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said([*DRILL, option, value], capsys).startswith("hitless: /nonexistent: ")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--namespace", "a", "--namespace", "b"], "--namespace: was given twice"),
        (["--node", "a", "--round-robin"], "--node: names a node, and the turn decides"),
        (["--node", "a", "--nodes", "2"], "--nodes: counts nodes, and --node names them"),
        (["--node", "a", "--node-selector", "b"], "--node-selector: goes by labels, and --node by name"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said([*DRILL, *words], capsys).startswith(f"hitless: {line}")


def test_a_password_in_the_gateways_url_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    line = said([*DRILL, "--push-metrics", "http://me:secret@push:9091"], capsys)
    assert line.startswith("hitless: --push-metrics: there is a user's name in the URL")
    assert "secret" not in line


def test_a_cleanup_of_what_can_be_no_namespace_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    line = said(["drill", "--cleanup", "--kubeconfig", "/nonexistent", "--namespace", "A"], capsys)
    assert line.startswith("hitless: --namespace: 'A' can be no namespace's name")


def test_a_limit_is_losses_or_seconds() -> None:
    assert [abort_after(one) for one in (None, "500", "10s", "0.5s")] == [(0, 0.0), (500, 0.0), (0, 10.0), (0, 0.5)]
