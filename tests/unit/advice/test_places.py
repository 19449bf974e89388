"""``hitless advise --cluster``: every node under what runs flannel there, with remedies that fit that installation."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hitless.cli.advise import command
from hitless.testing.api_server import FakeApi

NET_CONF = '{"Network": "10.42.0.0/16", "EnableNFTables": %s}'


def node(name: str, version: str, system: str = "linux", arch: str = "amd64") -> dict[str, Any]:
    info = {"kubeletVersion": version, "operatingSystem": system, "architecture": arch}
    return {"metadata": {"name": name}, "status": {"nodeInfo": info}}


def flannel(
    name: str, image: str, *, owner: str = "", calico: bool = True, grace: int | None = None, **spec: Any
) -> dict[str, Any]:
    containers: list[dict[str, Any]] = [{"name": "kube-flannel", "image": image}]
    if calico:
        containers.insert(0, {"name": "calico-node", "image": "docker.io/calico/node:v3.28.0"})
    notes = {"meta.helm.sh/release-name": owner} if owner else {}
    whole = {"nodeSelector": {"kubernetes.io/os": "linux"}, "containers": containers, **spec}
    whole.setdefault("volumes", []).append({"name": "conf", "configMap": {"name": "flannel-conf"}})
    if grace is not None:
        whole["terminationGracePeriodSeconds"] = grace
    labels = {"app": name}
    return {
        "metadata": {"name": name, "namespace": "kube-system", "annotations": notes},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": whole},
        },
    }


def ask(
    folder: Path, nodes: list[dict[str, Any]], sets: list[dict[str, Any]], *, nftables: bool = False
) -> tuple[list[dict[str, Any]], list[str], str]:
    """The answers, the notes, and the text for people."""

    async def serve() -> tuple[str, str]:
        async with FakeApi().serve(None) as api:
            for one in nodes:
                api.store.create("nodes", "", one)
            for one in sets:
                api.store.create("daemonsets.apps", "kube-system", one)
            conf = {"metadata": {"name": "flannel-conf"}, "data": {"net-conf.json": NET_CONF % str(nftables).lower()}}
            api.store.create("configmaps", "kube-system", conf)
            (folder / "kubeconfig").write_text(api.kubeconfig())
            words = ["--cluster", "--kubeconfig", str(folder / "kubeconfig")]
            found = []
            for more in (["--json"], []):
                done = await asyncio.to_thread(CliRunner().invoke, command, [*words, *more], standalone_mode=False)
                assert done.exception is None
                found.append(done.output)
            return found[0], found[1]

    machine, text = asyncio.run(serve())
    whole = json.loads(machine)
    return (whole["answers"], whole["notes"], text) if "answers" in whole else ([whole], [], text)


def snippets(answer: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["snippet"] for one in answer["remedies"]}


@pytest.mark.parametrize("version", ["v1.28.12", "v1.28.12+rke2r1", "v1.28.12+k3s1"])
def test_a_canal_that_rke2_did_not_install_gets_its_own_names_and_no_chart_of_rke2(
    tmp_path: Path, version: str
) -> None:
    nodes = [node("linux-1", version), node("win", version, "windows")]
    answers, notes, text = ask(tmp_path, nodes, [flannel("canal", "docker.io/flannel/flannel:v0.25.1", grace=0)])
    assert [(one["status"], one["nodes"], one["setting"]) for one in answers] == [("affected", ["linux-1"], "canal")]
    assert "rke2" not in text
    assert "HelmChartConfig" not in text
    assert "patch daemonset canal" in snippets(answers[0])["run-flannel"]
    assert "daemonset/canal" in snippets(answers[0])["image-tag"]
    assert "21 commands" in text
    assert "grace period of 0" in " ".join(text.split())
    assert "win," not in text
    assert notes == ["1 Windows node left out"]


def test_rke2s_canal_keeps_its_chart_and_is_known_by_the_owner_of_its_daemon_set(tmp_path: Path) -> None:
    image = "rancher/hardened-flannel:v0.26.7-build20250515"
    nodes = [node("a", "v1.32.5+rke2r1"), node("b", "v1.32.4+rke2r1")]
    answers, _, _ = ask(tmp_path, nodes, [flannel("network", image, owner="rke2-canal")])
    assert [(one["subject"], one["nodes"], one["setting"]) for one in answers] == [
        ("v1.32.5+rke2r1", ["a"], "rke2"),
        ("v1.32.4+rke2r1", ["b"], "rke2"),
    ]
    assert "name: rke2-canal" in snippets(answers[0])["image-tag"]
    assert "patch daemonset network" in snippets(answers[0])["run-flannel"]


def test_each_node_is_listed_under_the_daemon_set_that_runs_on_it(tmp_path: Path) -> None:
    by_arch = [
        flannel(f"kube-flannel-{arch}", f"quay.io/coreos/flannel:v{tag}-{arch}", calico=False, nodeSelector=selector)
        for arch, tag, selector in (
            ("amd64", "0.26.7", {"kubernetes.io/arch": "amd64"}),
            ("arm64", "0.27.4", {"kubernetes.io/arch": "arm64"}),
        )
    ]
    nodes = [node("x", "v1.31.0"), node("y", "v1.31.0", arch="arm64"), node("z", "v1.31.0", arch="riscv64")]
    answers, notes, _ = ask(tmp_path, nodes, by_arch)
    assert [(one["nodes"], one["status"]) for one in answers] == [(["x"], "affected"), (["y"], "window")]
    assert len(notes) == 1
    assert notes[0].startswith("node z: no flannel runs there")


def test_what_is_mounted_decides_whether_a_start_is_a_first_start(tmp_path: Path) -> None:
    one = flannel(
        "canal", "docker.io/flannel/flannel:v0.27.4", volumes=[{"name": "r", "hostPath": {"path": "/run/flannel/"}}]
    )
    container = one["spec"]["template"]["spec"]["containers"][1]
    container["volumeMounts"] = [{"name": "r", "mountPath": "/run/flannel"}]
    answers, _, text = ask(tmp_path, [node("a", "v1.31.0")], [one])
    assert "18 commands" in " ".join(text.split())
    assert set(snippets(answers[0])) == {"guard", "nftables-mode", "agent", "drill"}


def test_nftables_mode_is_told_as_what_it_is(tmp_path: Path) -> None:
    one = flannel("canal", "docker.io/flannel/flannel:v0.28.9")
    answers, _, _ = ask(tmp_path, [node("a", "v1.31.0")], [one], nftables=True)
    assert {found["id"] for found in answers[0]["findings"]} == {"nftables-no-resync", "poisoned-flows"}
    assert "one transaction" in answers[0]["summary"]
    assert set(snippets(answers[0])) == {"guard", "agent", "drill"}


def test_an_image_without_a_version_is_not_guessed_from_a_release_that_did_not_install_it(tmp_path: Path) -> None:
    one = flannel("canal", "registry.example/flannel@sha256:" + "0" * 64)
    answers, notes, _ = ask(tmp_path, [node("a", "v1.32.5+rke2r1")], [one])
    assert answers == []
    assert any("does not show flannel's version" in note for note in notes)


def test_k3s_without_a_daemon_set_is_answered_by_its_release(tmp_path: Path) -> None:
    answers, _, text = ask(tmp_path, [node("a", "v1.32.5+k3s1"), node("b", "v1.32.5-rc1+k3s1")], [])
    assert [(one["subject"], one["setting"]) for one in answers] == [
        ("v1.32.5+k3s1", "k3s"),
        ("v1.32.5-rc1+k3s1", "k3s"),
    ]
    assert "UNKNOWN" in text
