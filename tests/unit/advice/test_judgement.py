"""Advice: what a release's restart costs and where it is fixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from hitless.advice import judgement, nodes, releases
from hitless.cli.advise import command
from hitless.errors import InputError
from hitless.model.versions import (
    Flannel,
    Release,
    find_flannel,
    find_releases,
    parse_flannel,
    parse_release,
)

TABLE = releases.packaged()


def about(version: str) -> judgement.Advice:
    return judgement.advise(TABLE, parse_release(version))


AFFECTED_RKE2 = {
    "1.27": (13, 16),
    "1.28": (9, 15),
    "1.29": (4, 15),
    "1.30": (0, 13),
    "1.31": (0, 9),
    "1.32": (0, 5),
    "1.33": (0, 1),
}


def test_exactly_the_rke2_releases_with_flannel_0_25_0_to_0_26_7_are_affected() -> None:
    seen = 0
    for release in TABLE.releases:
        if release.product != "rke2" or release.minor < 27:
            continue
        first, last = AFFECTED_RKE2.get(release.line, (1, 0))
        status = judgement.advise(TABLE, release).status
        assert (status == "affected") == (first <= release.patch <= last), (str(release), status)
        seen += 1
    assert seen > 100


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ("v1.30.0+rke2r1", "v1.30.14+rke2r1"),
        ("v1.31.9+rke2r1", "v1.31.10+rke2r1"),
        ("v1.32.5+rke2r1", "v1.32.6+rke2r1"),
        ("v1.33.1+rke2r1", "v1.33.2+rke2r1"),
        ("v1.32.5+k3s1", "v1.32.6+k3s1"),
    ],
)
def test_the_nearest_fixed_release_is_of_the_same_line(version: str, fixed: str) -> None:
    answer = about(version)
    assert (answer.upgrade.state, answer.upgrade.version) == ("available", fixed)


@pytest.mark.parametrize("version", ["v1.27.16+rke2r2", "v1.28.10+rke2r1", "v1.29.15+rke2r1"])
def test_lines_that_ended_without_the_fix_never_get_it(version: str) -> None:
    assert about(version).upgrade.state == "none"


def test_a_release_that_is_not_in_the_table_is_unknown_and_gets_the_rule_and_its_neighbours() -> None:
    answer = about("v1.32.5+rke2r9")
    assert answer.status == "unknown"
    assert answer.flannel == ""
    assert "0.25.0-0.26.7" in answer.summary
    assert "v1.32.5+rke2r1" in answer.summary
    assert "v1.32.6+rke2r1" in answer.summary


def test_a_lower_bound_decides_only_where_everything_above_behaves_the_same() -> None:
    assert about("v1.30.14+k3s1").status == "unknown"  # flannel 0.26.7 or later
    assert about("v1.31.12+k3s1").status == "window"  # flannel 0.27.0 or later


def test_a_flannel_newer_than_what_was_read_is_unknown() -> None:
    assert judgement.advise(TABLE, None, running=parse_flannel("v0.28.9")).status == "window"
    assert judgement.advise(TABLE, None, running=parse_flannel("v0.29.0")).status == "unknown"


def test_what_runs_wins_over_what_the_release_ships() -> None:
    answer = judgement.advise(
        TABLE, parse_release("v1.32.5+rke2r1"), running=parse_flannel("v0.27.4-build20251204"), running_source="image"
    )
    assert (answer.status, answer.certainty, answer.source) == ("window", "running", "image")


def test_canal_is_told_of_the_longer_window_and_of_its_remedies_and_k3s_is_not() -> None:
    canal, k3s = about("v1.32.5+rke2r1"), about("v1.32.5+k3s1")
    assert {one.id for one in canal.remedies} == {"guard", "image-tag", "run-flannel", "agent", "drill"}
    assert {one.id for one in k3s.remedies} == {"guard", "drill"}
    assert any("/run/flannel" in one.why for one in canal.findings)
    assert not any("/run/flannel" in one.why for one in k3s.findings)
    assert any("8151" in issue for one in canal.findings for issue in one.issues)


def test_the_image_tag_snippet_names_an_image_that_keeps_its_rules() -> None:
    import yaml

    snippet = next(one.snippet for one in about("v1.29.15+rke2r1").remedies if one.id == "image-tag")
    chart = yaml.safe_load(snippet)
    assert chart["kind"] == "HelmChartConfig"
    tag = yaml.safe_load(chart["spec"]["valuesContent"])["flannel"]["image"]["tag"]
    assert parse_flannel(tag).number >= (0, 27, 0)


@pytest.mark.parametrize(
    "text", ["", "1.2", "v1.32.5", "v1.32.5+rke3r1", "v1.32.5+rke2r1x", "v1.32.5_rke2r1", "٣.1.1+k3s1"]
)
def test_a_version_that_is_none_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        parse_release(text)


@pytest.mark.slow
@given(st.text(max_size=40))
def test_only_our_errors_escape_the_parsers(text: str) -> None:
    for parse in (parse_release, parse_flannel):
        try:
            parse(text)
        except InputError:
            continue


@given(
    st.sampled_from(["rke2", "k3s"]),
    *[st.integers(0, 999)] * 4,
)
def test_a_release_reads_back_as_itself(product: str, major: int, minor: int, patch: int, revision: int) -> None:
    one = Release("rke2" if product == "rke2" else "k3s", major, minor, patch, revision)
    assert parse_release(str(one)) == one


def test_releases_and_images_sort_in_the_order_of_release() -> None:
    order = ["v1.30.9+rke2r1", "v1.30.14+rke2r1", "v1.30.14+rke2r2", "v1.31.0+rke2r1"]
    assert [str(one) for one in sorted(parse_release(text) for text in order)] == order
    assert parse_flannel("rancher/hardened-flannel:v0.27.1-build20250710") == Flannel(0, 27, 1, "build20250710")


RKE2_SAYS = "rke2 version v1.28.9+rke2r1 (0123456789abcdef0123456789abcdef01234567)\ngo version go1.21.9\n"
NODES = """NAME   STATUS   ROLES   AGE   VERSION        INTERNAL-IP   OS-IMAGE             CONTAINER-RUNTIME
a      Ready    <none>  1d    v1.30.4+k3s1   192.0.2.1     Ubuntu 22.04.4 LTS   containerd://1.7.20-k3s1
b      Ready    <none>  1d    v1.31.1+k3s1   192.0.2.2     Ubuntu 22.04.4 LTS   containerd://1.7.21-k3s2
"""
KUBECTL = "Client Version: v1.33.0+k3s1\nKustomize Version: v5.6.0\nServer Version: v1.28.9+rke2r1\n"
KUBECTL_JSON = """{
  "clientVersion": {"gitVersion": "v1.33.0+k3s1"},
  "serverVersion": {
    "gitVersion": "v1.28.9+rke2r1"}}"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (RKE2_SAYS, ["v1.28.9+rke2r1"]),
        ("k3s version v1.26.2+k3s1 (01234567)", ["v1.26.2+k3s1"]),
        (KUBECTL, ["v1.28.9+rke2r1"]),
        (KUBECTL_JSON, ["v1.28.9+rke2r1"]),
        (NODES, ["v1.30.4+k3s1", "v1.31.1+k3s1"]),
        ("rancher/rke2-upgrade:v1.28.9-rke2r1", ["v1.28.9+rke2r1"]),
        ("rancher/rke2-runtime:v1.32.5-rke2r1-windows-amd64", ["v1.32.5+rke2r1"]),
        ("https://example.org/download/v1.28.9%2Brke2r1/rke2.linux-amd64", ["v1.28.9+rke2r1"]),
        ("v1.32.5-rc2+rke2r1", ["v1.32.5-rc2+rke2r1"]),
        ("v1.32.5+rke2r1-rc3", ["v1.32.5+rke2r1-rc3"]),
        ("v1.29.2+dev.01234567", ["v1.29.2+dev.01234567"]),
        ("k3s version v1.31.1+k3s-13ee24b3 (13ee24b3)", ["v1.31.1+k3s-13ee24b3"]),
    ],
)
def test_the_releases_inside_a_text_are_found(text: str, found: list[str]) -> None:
    assert [str(one) for one in find_releases(text)] == found


@pytest.mark.parametrize(
    "text", ["v1.32.5", "Server Version: v1.32.5-eks-1a2b3c", "v1.32.5+rke3r1", "containerd://1.7.20"]
)
def test_a_text_without_a_release_is_refused_with_what_to_give(text: str) -> None:
    with pytest.raises(InputError, match="expected"):
        find_releases(text)


@given(st.text(max_size=80) | st.from_regex(r"v1\.[0-9.+rke2s3-]{1,30}"))
def test_only_our_errors_escape_the_finders(text: str) -> None:
    for find in (find_releases, find_flannel):
        try:
            find(text)
        except InputError:
            continue


def test_the_flannel_of_a_text_is_found_and_the_cni_plugin_is_not_taken_for_it() -> None:
    both = "docker.io/flannel/flannel-cni-plugin:v1.2.0 docker.io/flannel/flannel:v0.25.1"
    assert find_flannel(both) == Flannel(0, 25, 1)
    assert find_flannel("Image: docker.io/flannel/flannel:v0.25.1\n") == Flannel(0, 25, 1)
    with pytest.raises(InputError, match="several"):
        find_flannel("v0.25.1 v0.26.7")


@pytest.mark.parametrize("version", ["v1.32.5-rc2+rke2r1", "v1.32.5+rke2r1-rc1"])
def test_a_release_candidate_is_unknown_and_gets_its_neighbours(version: str) -> None:
    (build,) = find_releases(version)
    answer = judgement.advise(TABLE, build)
    assert answer.status == "unknown"
    assert "v1.32.4+rke2r1" in answer.summary
    assert "v1.32.5+rke2r1" in answer.summary
    assert answer.upgrade.version == "v1.32.6+rke2r1"


def test_standard_input_is_read_for_a_dash_and_each_release_in_it_is_answered() -> None:
    done = CliRunner().invoke(command, ["--version", "-", "--json"], input=NODES, standalone_mode=False)
    assert done.exception is None
    assert [one["subject"] for one in json.loads(done.output)["answers"]] == ["v1.30.4+k3s1", "v1.31.1+k3s1"]


@pytest.mark.parametrize("version", ["v1.20.15+rke2r2", "v1.24.3+k3s1", "v1.30.14+rke2r4", "v1.32.13+rke2r2"])
def test_a_line_that_is_finished_upstream_is_said_to_be(version: str) -> None:
    answer = about(version)
    assert answer.upgrade.ended
    assert "finished upstream" in answer.upgrade.text or "ended with" in answer.upgrade.text


def test_nftables_mode_is_a_remedy_where_the_chart_has_a_value_for_it() -> None:
    ids = {version: {one.id for one in about(version).remedies} for version in ("v1.36.2+rke2r1", "v1.36.3+rke2r1")}
    assert "nftables-mode" not in ids["v1.36.2+rke2r1"]
    assert "nftables-mode" in ids["v1.36.3+rke2r1"]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_users_own_table_adds_and_corrects_releases(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "more.csv"
    path.write_text(
        f"{mark}version,flannel,certainty,source\nv1.40.0+rke2r1,v0.28.9,exact,me\nv1.30.14+k3s1,v0.26.7,exact,me\n"
    )
    table = releases.with_file(TABLE, path)
    assert judgement.advise(table, parse_release("v1.40.0+rke2r1")).status == "window"
    assert judgement.advise(table, parse_release("v1.30.14+k3s1")).status == "affected"
    assert about("v1.40.0+rke2r1").status == "unknown"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("a,b\n", ":1"),
        ("version,flannel,certainty,source\nv1.1.1+k3s1,v0.1.1,exact\n", ":2"),
        ("version,flannel,certainty,source\nv1.1.1+k3s1,v0.1.1,maybe,x\n", ":2"),
        ("version,flannel,certainty,source\nv1.1.1+k3s1,new,exact,x\n", ":2"),
    ],
)
def test_a_table_that_does_not_parse_is_refused_with_file_and_line(text: str, where: str) -> None:
    with pytest.raises(InputError, match=f"more.csv{where}"):
        releases.read_table(text, "more.csv")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version", "v1.32.5+rke2r1"], 1),
        (["--version", "v1.32.6+rke2r1"], 0),
        (["--version", "v1.32.6+rke2r1", "--fail-on", "window"], 1),
        (["--version", "v9.0.0+rke2r1"], 2),
        (["--flannel", "rancher/hardened-flannel:v0.26.7-build20250515"], 1),
    ],
)
def test_the_exit_code_says_what_was_found(arguments: list[str], code: int) -> None:
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert result.exception is None
    assert result.return_value == code
    answer = json.loads(CliRunner().invoke(command, [*arguments, "--json"], standalone_mode=False).output)
    assert answer["schema"] == 1
    assert (answer["status"] == "affected") <= (code == 1)


@pytest.mark.parametrize("arguments", [[], ["--version", "v1.32.5+rke2r1", "--node"], ["--flannel", "x", "--node"]])
def test_unclear_questions_are_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    assert isinstance(result.exception, InputError)


def test_a_node_is_asked_for_its_release(tmp_path: Path) -> None:
    program = tmp_path / "rke2"
    program.write_text("#!/bin/sh\necho 'rke2 version v1.32.5+rke2r1 (abc)'\necho 'go version go1.23'\n")
    program.chmod(0o755)
    proc = tmp_path / "proc"
    (proc / "self/ns").mkdir(parents=True)
    (proc / "self/ns/net").touch()
    found = nodes.installed_versions((str(tmp_path),), proc)
    assert str(found.release) == "v1.32.5+rke2r1"
    assert found.flannel is None


@pytest.mark.parametrize("ours", [True, False])
def test_a_flanneld_of_another_network_namespace_is_not_this_nodes(tmp_path: Path, ours: bool) -> None:
    """Of a container that is a node itself, or of a lab: its version says nothing about this node."""
    program = tmp_path / "flanneld"
    program.write_text("#!/bin/sh\necho v0.26.7\n")
    program.chmod(0o755)
    proc = tmp_path / "proc"
    for name in ("self", "77"):
        (proc / name / "ns").mkdir(parents=True)
    (proc / "self/ns/net").touch()
    (proc / "77/comm").write_text("flanneld\n")
    (proc / "77/cmdline").write_bytes(f"{program}\0--ip-masq\0".encode())
    (proc / "77/ns/mnt").symlink_to("/proc/self/ns/mnt")
    if ours:
        (proc / "77/ns/net").hardlink_to(proc / "self/ns/net")
        found = nodes.installed_versions((), proc)
        assert (str(found.flannel), found.flannel_source) == ("v0.26.7", "flanneld, process 77")
        return
    (proc / "77/ns/net").touch()
    with pytest.raises(InputError, match=r"nor a running flanneld was found on this machine \(expected"):
        nodes.installed_versions((), proc)


def test_a_machine_that_is_no_node_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither rke2, k3s nor a running flanneld"):
        nodes.installed_versions((str(tmp_path),), tmp_path)
