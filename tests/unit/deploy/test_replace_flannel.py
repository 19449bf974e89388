"""docs/replace-flannel.md and ``advise`` against what the charts and manifests that install flannel really have.

The facts below were read in the sources that each entry names: how flannel's container is started, and what else is
run from its image. A value that a chart does not have is ignored by helm without a word, and a program that
the image lacks keeps the whole pod from starting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from tests.unit.deploy.test_agent_chart import render
from tests.unit.deploy.test_chart import ROOT
from tools.build_image import FLANNELD, INSTALL_CONF, KEEP_PROGRAMS

from hitless.advice.remedies import Workload, remedies
from hitless.sources import parse_flags

PAGE = (ROOT / "docs/replace-flannel.md").read_text()


@dataclass(frozen=True)
class Installation:
    """``values``: where the chart has the image's name; ``beside``: what init containers run from the same image."""

    source: str
    args: tuple[str, ...]
    values: tuple[str, ...] = ()
    namespace: str = "kube-system"
    daemon_set: str = ""
    env: tuple[str, ...] = ("POD_NAME", "POD_NAMESPACE")
    beside: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ("/run/xtables.lock", "/etc/kube-flannel/")
    container: str = "kube-flannel"
    command: str = "/opt/bin/flanneld"


_CANAL_ENV = ("POD_NAME", "POD_NAMESPACE", "FLANNELD_IFACE", "FLANNELD_IFACE_REGEX", "FLANNELD_IP_MASQ")
_IMAGE = ("flannel.image.repository", "flannel.image.tag")
_OWN = ("/run/flannel", "/etc/kube-flannel/", "/run/xtables.lock")

INSTALLATIONS = {
    "rke2-canal 0.24.2": Installation(
        "rancher/rke2-charts packages/rke2-canal, values.yaml at cbc280a5, templates/daemonset.yaml at 69291aea",
        ("--ip-masq", "--kube-subnet-mgr"),
        values=_IMAGE,
        daemon_set="rke2-canal",
        env=_CANAL_ENV,
    ),
    "rke2-canal 0.27.3": Installation(
        "rancher/rke2-charts packages/rke2-canal, values.yaml at 0087a864, templates/daemonset.yaml at 03483135",
        ("--ip-masq", "--kube-subnet-mgr", "--iptables-forward-rules=false", "--ip-blackhole-route"),
        values=_IMAGE,
        daemon_set="rke2-canal",
        env=_CANAL_ENV,
    ),
    "rke2-flannel 0.26.4": Installation(
        "rancher/rke2-charts packages/rke2-flannel, values.yaml.patch at 0161342c, daemonset.yaml.patch at 024f581a",
        ("--ip-masq", "--kube-subnet-mgr"),
        values=_IMAGE,
        beside=("cp",),
        mounts=_OWN,
    ),
    "flannel's chart 0.28.9": Installation(
        "flannel-io/flannel chart/kube-flannel, values.yaml at 07274bb7, templates/daemonset.yaml at 0c01a50e",
        ("--ip-masq", "--kube-subnet-mgr", "--healthz-port=8081"),
        values=_IMAGE,
        namespace="kube-flannel",
        daemon_set="kube-flannel-ds",
        env=("POD_NAME", "POD_NAMESPACE", "EVENT_QUEUE_DEPTH", "CONT_WHEN_CACHE_NOT_READY"),
        beside=("/opt/bin/install-conf",),
        mounts=_OWN,
    ),
    "kube-flannel.yml 0.27.4": Installation(
        "flannel-io/flannel Documentation/kustomization/kube-flannel/kube-flannel.yml at 05e2b583",
        ("--ip-masq", "--kube-subnet-mgr"),
        namespace="kube-flannel",
        daemon_set="kube-flannel-ds",
        env=("POD_NAME", "POD_NAMESPACE", "EVENT_QUEUE_DEPTH", "CONT_WHEN_CACHE_NOT_READY"),
        beside=("cp",),
        mounts=_OWN,
    ),
}

K3S_WITHOUT_FLANNEL = "/etc/cni/net.d"
"""k3s-io/k3s pkg/agent/templates/templates_linux.go at 06be48b6: containerd is told K3s' own directories unless it runs
without flannel; so the defaults hold (its docs name /etc/cni/net.d too, docs/networking/basic-network-options.md)."""

INSTALLED = pytest.mark.parametrize("one", INSTALLATIONS.values(), ids=list(INSTALLATIONS))


@INSTALLED
def test_the_agent_takes_the_containers_arguments_and_variables(one: Installation) -> None:
    variables = {name: "true" if name == "FLANNELD_IP_MASQ" else "" for name in one.env}
    options = parse_flags(list(one.args), variables)
    assert options.kubernetes and options.masquerade
    assert options.forward == ("--iptables-forward-rules=false" not in one.args)
    assert options.healthz_port == (8081 if "--healthz-port=8081" in one.args else 0)
    assert options.healthz_ip == "0.0.0.0"  # probes of such pods ask the node's address


@INSTALLED
def test_the_image_has_what_is_run_from_it(one: Installation) -> None:
    """Ours lacked ``cp`` and ``install-conf``: with flannel's chart and rke2-flannel the pod would not have started."""
    ours = {f"/{FLANNELD}", f"/{INSTALL_CONF}", *KEEP_PROGRAMS}
    assert {one.command, *one.beside} <= ours
    container_file = (ROOT / "deploy/Containerfile").read_text()
    assert f"COPY --from=build /flanneld /{FLANNELD}" in container_file
    assert f"deploy/install-conf /{INSTALL_CONF}" in container_file


def _chart_config(text: str) -> dict[str, Any]:
    (found,) = [one for one in yaml.safe_load_all(text) if one]
    assert (found["apiVersion"], found["kind"]) == ("helm.cattle.io/v1", "HelmChartConfig")
    values: dict[str, Any] = yaml.safe_load(found["spec"]["valuesContent"])
    return {"of": (found["metadata"]["namespace"], found["metadata"]["name"]), "values": set(_leaves(values))}


def _leaves(values: dict[str, Any], before: str = "") -> list[str]:
    found = []
    for name, value in values.items():
        found += _leaves(value, f"{before}{name}.") if isinstance(value, dict) else [f"{before}{name}"]
    return found


def test_the_pages_chart_configuration_names_values_that_the_chart_has() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert _chart_config(block) == {"of": ("kube-system", "rke2-canal"), "values": set(_IMAGE)}


@pytest.mark.parametrize("chart", ["rke2-canal", "rke2-flannel"])
def test_advise_names_values_that_the_chart_has(chart: str) -> None:
    workload = Workload("kube-system", chart, chart=chart)
    found = {one.id: one for one in remedies("rke2", "affected", workload, flannel=None, hardened=None, chart_build=0)}
    assert _chart_config(found["agent"].snippet) == {"of": ("kube-system", chart), "values": set(_IMAGE)}


def test_the_pages_commands_name_the_daemon_set_and_values_that_are_there() -> None:
    manifest, chart = INSTALLATIONS["kube-flannel.yml 0.27.4"], INSTALLATIONS["flannel's chart 0.28.9"]
    command = f"kubectl -n {manifest.namespace} set image daemonset/{manifest.daemon_set} {manifest.container}="
    assert command in PAGE
    assert set(re.findall(r"--set (flannel\.\S+?)=", PAGE)) == set(chart.values)
    advised = Workload(manifest.namespace, manifest.daemon_set)
    found = remedies("flannel", "window", advised, flannel=None, hardened=None, chart_build=0)
    snippet = {one.id: one for one in found}["agent"].snippet.replace(" \\\n ", "")
    assert command in " ".join(snippet.split())


def test_for_k3s_the_chart_writes_where_its_containerd_looks_without_flannel() -> None:
    """The page said K3s' own directory, which containerd does not read then: every node stays NotReady."""
    part = PAGE.partition("## K3s")[2].partition("\n## ")[0]
    (command,) = re.findall(r"helm upgrade (.*?)```", part, re.DOTALL)
    settings = re.findall(r"--set (\S+)", command)
    pod = render(*settings)["DaemonSet"]["spec"]["template"]["spec"]
    places = {one["hostPath"]["path"] for one in pod["volumes"] if one["name"] == "cni"}
    assert places == {K3S_WITHOUT_FLANNEL}
    assert f"{K3S_WITHOUT_FLANNEL}/10-flannel.conflist" in part and "--flannel-backend=none" in part


@pytest.mark.parametrize("one", ["rke2-canal 0.27.3", "flannel's chart 0.28.9"])
def test_our_charts_container_has_the_mounts_of_flannels(one: str) -> None:
    (container,) = render()["DaemonSet"]["spec"]["template"]["spec"]["containers"]
    ours = {mount["mountPath"].rstrip("/") for mount in container["volumeMounts"]}
    assert {mount.rstrip("/") for mount in INSTALLATIONS[one].mounts} <= ours
    assert (container["name"], container["command"]) == (INSTALLATIONS[one].container, [INSTALLATIONS[one].command])
