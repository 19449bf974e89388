"""What helps against a restart's cost, as commands and manifests for the installation at hand. Pure.

Problem: the same remedy is a HelmChartConfig on RKE2 and a patch of another DaemonSet where Canal was installed from
its own manifest; a command for another installation fails or is undone. Promise: every snippet names the DaemonSet,
namespace, container and mechanism that are there (``Workload``; without a cluster to read, those that the
distribution installs). Next stage: ``advice``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

import msgspec

from hitless import profiles
from hitless.model.versions import Flannel

__all__ = ["Remedy", "Setting", "Status", "Workload", "default_workload", "remedies"]

Status = Literal["affected", "window", "unknown"]
"""``affected``: rules are removed when flannel stops, egress is gone until it is back. ``window``: only the flush at
start. ``unknown``: cannot tell."""

Setting = Literal["rke2", "canal", "k3s", "flannel"]
"""How flannel runs: in RKE2's Canal, in a Canal that somebody else installed, inside the k3s process, or in a
DaemonSet of its own."""

_UPSTREAM = "docker.io/flannel/flannel:v0.27.4"
"""The newest 0.27 of flannel's own images that was tried here."""

_NFTABLES_CHART_BUILD = 2026072200  # the first rke2-canal chart with a value for it: v3.32.1-build2026072200
_KEEPS_RULES = (0, 27, 0)


class Remedy(msgspec.Struct, frozen=True):
    """Something that helps; ``snippet`` can be applied as it is (after a review)."""

    id: str
    title: str
    text: str
    snippet: str = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """The DaemonSet that runs flannel. ``chart``: the RKE2 chart that owns it; ``release``: another Helm release.

    ``config_map`` holds its net-conf.json; ``keeps_run_flannel``: /run/flannel is a directory of the host;
    ``nftables``: it runs in its nftables mode; ``grace``: seconds between SIGTERM and SIGKILL, None if not known.
    """

    namespace: str
    daemon_set: str
    container: str = "kube-flannel"
    config_map: str = ""
    chart: str = ""
    release: str = ""
    keeps_run_flannel: bool = False
    nftables: bool = False
    grace: int | None = None


def default_workload(setting: Setting) -> Workload:
    """What the distribution or project installs, for questions about a version alone."""
    match setting:
        case "rke2":
            return Workload("kube-system", "rke2-canal", config_map="rke2-canal-config", chart="rke2-canal", grace=0)
        case "canal" | "flannel" | "k3s":
            installed = profiles.clusters()["flannel" if setting == "k3s" else setting].installed
            assert installed is not None
            return Workload(
                installed.namespace,
                installed.daemon_set,
                config_map=installed.config_map,
                keeps_run_flannel=installed.keeps_run_flannel,
                grace=installed.grace,
            )
        case _:
            assert_never(setting)


def remedies(
    setting: Setting,
    status: Status,
    workload: Workload,
    *,
    flannel: Flannel | None,
    hardened: Flannel | None,
    chart_build: int,
) -> tuple[Remedy, ...]:
    """What helps, most effective first. ``hardened``: RKE2's newest image with a flannel that keeps its rules."""
    found = [_GUARD]
    if setting != "k3s" and status != "unknown":
        if status == "affected":
            found.append(_image(workload, hardened))
        if not workload.keeps_run_flannel and not workload.nftables:
            found.append(_run_flannel(workload))
        if flannel is not None and flannel.number >= _KEEPS_RULES and not workload.nftables:
            if not workload.chart:
                found.append(_nftables_config_map(workload))
            elif workload.chart == "rke2-flannel" or chart_build >= _NFTABLES_CHART_BUILD:
                found.append(_nftables_chart(workload))
        found.append(_agent(workload))
    found.append(_drill(setting))
    return tuple(found)


_GUARD = Remedy(
    "guard",
    "run the guard on every node",
    "a second NAT chain carries new flows while flannel's is empty, for every version and both backends; "
    "it covers the window at start too, which no release closes. From a checkout of hitless, with its image on the "
    "nodes or in a registry of yours (docs/install.md; none is published yet)",
    "helm upgrade --install hitless deploy/chart \\\n  --namespace hitless-system --create-namespace",
)


def _lasting(workload: Workload) -> str:
    if workload.release:
        return f"The Helm release {workload.release} owns this: change it there too, or its next upgrade undoes it"
    return "Whatever installed it (a manifest, RKE1's cluster.yml) undoes it the next time: change it there too"


def _chart_config(chart: str, lines: str) -> str:
    return (
        "apiVersion: helm.cattle.io/v1\n"
        "kind: HelmChartConfig\n"
        "metadata:\n"
        f"  name: {chart}\n"
        "  namespace: kube-system\n"
        "spec:\n"
        "  valuesContent: |-\n"
        "    flannel:\n" + "".join(f"      {line}\n" for line in lines.splitlines())
    )


def _image(workload: Workload, hardened: Flannel | None) -> Remedy:
    if workload.chart and hardened is not None:
        return Remedy(
            "image-tag",
            "let RKE2 run a flannel that keeps its rules",
            f"a HelmChartConfig overrides the image of the {workload.chart} chart; {hardened} is the newest hardened "
            "0.27 in the table. Not a combination that upstream tests with your release: try it on one cluster first",
            _chart_config(workload.chart, f"image:\n  tag: {hardened}"),
        )
    return Remedy(
        "image-tag",
        "run a flannel that keeps its rules",
        f"set the image of container {workload.container} (or your registry's copy of it). The change itself restarts "
        f"every pod of the DaemonSet once. {_lasting(workload)}",
        f"kubectl -n {workload.namespace} set image \\\n"
        f"  daemonset/{workload.daemon_set} \\\n"
        f"  {workload.container}={_UPSTREAM}",
    )


def _agent(workload: Workload) -> Remedy:
    text = (
        "hitless agent takes flanneld's container arguments, rules, devices and annotations; its own restarts change "
        "nothing. For the backends vxlan and host-gw; the image is yours to make (docs/replace-flannel.md; none is "
        "published yet). Taking it away again is the way back"
    )
    if workload.chart:
        lines = "image:\n  repository: REGISTRY/hitless-flanneld\n  tag: TAG"
        return Remedy("agent", "run hitless agent in flanneld's place", text, _chart_config(workload.chart, lines))
    return Remedy(
        "agent",
        "run hitless agent in flanneld's place",
        f"{text}. {_lasting(workload)}",
        f"kubectl -n {workload.namespace} set image \\\n"
        f"  daemonset/{workload.daemon_set} \\\n"
        f"  {workload.container}=REGISTRY/hitless-flanneld:TAG",
    )


def _run_flannel(workload: Workload) -> Remedy:
    undone = (
        "The chart has no value for it, and its next upgrade takes the patch away"
        if workload.chart
        else _lasting(workload)
    )
    return Remedy(
        "run-flannel",
        "keep /run/flannel on the host",
        "with its subnet file kept, flannel knows that its subnet did not change and leaves the jump in POSTROUTING "
        f"alone: a shorter window, not none. {undone}",
        f"kubectl -n {workload.namespace} patch daemonset {workload.daemon_set} --patch '\n"
        "spec:\n"
        "  template:\n"
        "    spec:\n"
        "      volumes:\n"
        "      - name: run-flannel\n"
        "        hostPath: {path: /run/flannel, type: DirectoryOrCreate}\n"
        "      containers:\n"
        f"      - name: {workload.container}\n"
        "        volumeMounts:\n"
        "        - {name: run-flannel, mountPath: /run/flannel}\n"
        "'",
    )


_NFTABLES = (
    "in nftables mode flannel replaces its table in one transaction: ten restarts of the real flanneld 0.28.9 cost 0 "
    "of 14,226 connections. But what another program flushes is gone until the next restart, so keep the guard beside "
    "it"
)


def _nftables_chart(workload: Workload) -> Remedy:
    return Remedy(
        "nftables-mode",
        "let flannel use nftables",
        f"{_NFTABLES}. Applying this restarts the pods once",
        _chart_config(workload.chart, "enableNFTables: true"),
    )


def _nftables_config_map(workload: Workload) -> Remedy:
    name = workload.config_map or "kube-flannel-cfg"
    return Remedy(
        "nftables-mode",
        "let flannel use nftables",
        f'{_NFTABLES}. Add "EnableNFTables": true to net-conf.json, then restart the DaemonSet once. '
        f"{_lasting(workload)}",
        f"kubectl -n {workload.namespace} edit configmap {name}\n"
        f"kubectl -n {workload.namespace} rollout restart \\\n  daemonset {workload.daemon_set}",
    )


def _drill(setting: Setting) -> Remedy:
    text = "the cost depends on the node's rules and load: a drill shows gaps, lost connections and poisoned flows"
    command = "hitless drill --cluster --nodes 1 --rounds 3"
    if setting == "k3s":
        text += ". Flannel runs inside the k3s process, so on the node; this restarts K3s there (k3s-agent on agents)"
        command = "hitless node-drill --restart-unit k3s --to https://example.org/"
    return Remedy("drill", "measure it on one node", text, command)
