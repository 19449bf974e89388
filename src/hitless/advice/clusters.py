"""Advice for a cluster: which flannel runs on which of its nodes, and how it was installed.

Problem: a cluster may run several releases during an upgrade, Canal from RKE2's chart or from anybody's manifest, a
DaemonSet for each architecture, and nodes where no flannel runs at all (Windows). Promise: each node is listed under
the DaemonSet that has a pod on it, with remedies for that DaemonSet; a note says which nodes have none. A release's
table is used only where the release installed what runs. It only reads nodes, DaemonSets and ConfigMaps. Next stage:
``advice``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hitless.advice import judgement as advising
from hitless.advice.releases import ReleaseTable
from hitless.advice.remedies import Setting, Workload
from hitless.errors import ApiError, InputError
from hitless.kube.api import Api, Patience, connect
from hitless.kube.objects import DAEMON_SETS, NODES, DaemonSet, Node
from hitless.kube.placement import runs_on
from hitless.model.versions import Build, Release, find_releases
from hitless.survey.cni import Cni, flannels, survey_cluster

__all__ = ["advise_cluster"]

_RKE2_CHARTS = ("rke2-canal", "rke2-flannel")
_HELM_RELEASE = "meta.helm.sh/release-name"


def advise_cluster(
    table: ReleaseTable, kubeconfig: Path | None, context: str | None, notes: list[str]
) -> list[advising.Advice]:
    """The advice for every release that the cluster's nodes run; ``notes`` gets what is not known."""
    import asyncio

    async def run() -> list[advising.Advice]:
        async with connect(kubeconfig, context, patience=Patience(total=20.0)) as api:
            return await _advise(api, table, notes)

    answers = asyncio.run(run())
    if not answers and not notes:
        raise ApiError("the cluster has no nodes")
    return answers


async def _advise(api: Api, table: ReleaseTable, notes: list[str]) -> list[advising.Advice]:
    nodes = sorted(await api.all(NODES), key=lambda node: node.name)
    found = await flannels(api, await api.all(DAEMON_SETS))
    if not found:
        return await _without_daemon_set(api, table, nodes, notes)
    answers: list[advising.Advice] = []
    left = list(nodes)
    for cni in found:
        daemon_set = cni.daemon_set
        assert daemon_set is not None, "flannels returns DaemonSets only"
        own = [node for node in left if runs_on(daemon_set, node)]
        left = [node for node in left if node not in own]
        answers += _of_daemon_set(cni, daemon_set, own, table, notes)
    notes += _left_out(left, found)
    return answers


def _of_daemon_set(
    cni: Cni, daemon_set: DaemonSet, nodes: Sequence[Node], table: ReleaseTable, notes: list[str]
) -> list[advising.Advice]:
    """The answers for the nodes of one DaemonSet; its releases count only where RKE2's chart installed it."""
    workload = _workload(cni, daemon_set)
    setting: Setting = "flannel" if cni.name != "canal" else "rke2" if workload.chart else "canal"
    name = f"{daemon_set.metadata.namespace}/{daemon_set.name}"
    if not nodes:
        notes.append(f"DaemonSet {name} runs on none of the nodes")
        return []
    if cni.flannel is None:
        other = "the release table is used" if workload.chart else "give it with --flannel VERSION"
        notes.append(f"the image {cni.image} does not show flannel's version: {other}")
    answers: list[advising.Advice] = []
    for release, names in _by_release(nodes, counts=bool(workload.chart)).items():
        if release is None and cni.flannel is None:
            notes.append(f"{_named_as(names)}: which flannel {name} runs there is not known")
            continue
        answers.append(
            advising.advise(
                table,
                release,
                running=cni.flannel,
                running_source=f"image of {daemon_set.name}" if cni.flannel else "",
                setting=setting,
                workload=workload,
                nodes=tuple(names),
            )
        )
    return answers


def _workload(cni: Cni, daemon_set: DaemonSet) -> Workload:
    owner = (daemon_set.metadata.annotations or {}).get(_HELM_RELEASE, "")
    if not owner and daemon_set.name in _RKE2_CHARTS:
        owner = daemon_set.name
    spec = daemon_set.spec.template.spec
    host = {
        one.name for one in spec.volumes or [] if one.host_path and one.host_path.path.rstrip("/") == "/run/flannel"
    }
    container = next((one for one in spec.containers or [] if one.name == cni.container), None)
    mounts = (container.volume_mounts if container else None) or []
    kept = any(one.name in host and one.mount_path.rstrip("/") == "/run/flannel" for one in mounts)
    return Workload(
        daemon_set.metadata.namespace,
        daemon_set.name,
        cni.container,
        config_map=cni.config_map,
        chart=owner if owner in _RKE2_CHARTS else "",
        release=owner,
        keeps_run_flannel=kept,
        nftables=cni.nftables,
        grace=spec.termination_grace_period_seconds,
    )


async def _without_daemon_set(
    api: Api, table: ReleaseTable, nodes: Sequence[Node], notes: list[str]
) -> list[advising.Advice]:
    """K3s runs flannel in its own process; other clusters may run another network agent, or none that is known."""
    survey = await survey_cluster(api, with_budgets=False)
    if survey.cni.daemon_set is not None and not survey.cni.facts.net_conf:
        notes.append(
            f"{survey.cni.title} runs here, not flannel: this advice is about flannel. Drill it: "
            "hitless drill --cluster"
        )
        return []
    if survey.cni.name == "none":
        notes.append(f"no network agent that is known was found; DaemonSets: {', '.join(survey.cni.others) or 'none'}")
    answers: list[advising.Advice] = []
    linux = [node for node in nodes if node.status.node_info.operating_system in ("", "linux")]
    if len(linux) < len(nodes):
        notes += _left_out([one for one in nodes if one not in linux], ())
    for release, names in _by_release(linux, counts=True).items():
        if release is None:
            notes.append(f"{_named_as(names)}: neither RKE2 nor K3s, and no version in any image")
            continue
        setting: Setting | None = "k3s" if survey.cni.name == "k3s" else None
        answers.append(advising.advise(table, release, setting=setting, nodes=tuple(names)))
    return answers


def _by_release(nodes: Sequence[Node], *, counts: bool) -> dict[Release | Build | None, list[str]]:
    found: dict[Release | Build | None, list[str]] = {}
    for node in nodes:
        found.setdefault(_release(node) if counts else None, []).append(node.name)
    return found


def _release(node: Node) -> Release | Build | None:
    try:
        return find_releases(node.status.node_info.kubelet_version)[0]
    except InputError:
        return None


def _named_as(names: Sequence[str]) -> str:
    return f"{'node' if len(names) == 1 else 'nodes'} {', '.join(names)}"


def _left_out(nodes: Sequence[Node], found: Sequence[Cni]) -> list[str]:
    """A note for Windows nodes, which no flannel with iptables runs on, and one for other nodes without a pod."""
    windows = [node for node in nodes if node.status.node_info.operating_system == "windows"]
    others = [node.name for node in nodes if node not in windows]
    notes = [f"{len(windows)} Windows {'node' if len(windows) == 1 else 'nodes'} left out"] if windows else []
    if others:
        names = ", ".join(f"{one.namespace}/{one.daemon_set.name}" for one in found if one.daemon_set)
        why = f"left out by the selector, affinity or tolerations of {names}" if names else "not Linux"
        notes.append(f"{_named_as(others)}: no flannel runs there ({why})")
    return notes
