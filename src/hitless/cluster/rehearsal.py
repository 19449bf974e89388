"""A drill described: every object, every call, every permission, without changing anything. Pure.

Problem: administrators must be able to read what a drill will do, and to grant exactly that. Promise: the objects
are those that the run makes (same functions), except for what the server decides (uids, addresses of pods); the rights
are those that the run uses (a test runs a drill with them and nothing else). Next stage: a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hitless.cluster import heartbeat, manifests
from hitless.cluster.manifests import Document, PodOptions
from hitless.cluster.target import far_ends, helper_nodes
from hitless.kube.objects import Node
from hitless.restarts.methods import ApiMethod, entry_of
from hitless.survey.cni import Survey

__all__ = ["Rehearsal", "rehearse"]

_LATER = "decided-by-the-server"


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a drill would make, call and need."""

    objects: tuple[Document, ...]
    calls: tuple[str, ...]
    rights: tuple[Document, ...]


def rehearse(
    pods: PodOptions,
    survey: Survey,
    nodes: Sequence[Node],
    restart: ApiMethod,
    *,
    to: Sequence[str],
    own_far_end: bool,
    rounds: int,
    makes_namespace: bool = True,
    turn: bool = False,
    tells: bool = False,
    windows: str = "",
    enters: bool = True,
    at_once: int = 1,
) -> Rehearsal:
    """The whole of a drill with these choices."""
    owners = {place: manifests.owner(pods, place) for place in pods.namespaces}
    for owner in owners.values():
        owner["metadata"]["uid"] = _LATER
    helpers = [
        manifests.peer_pod(pods, node.name, owners[pods.traffic_namespace])
        for node in helper_nodes(survey, nodes, at_once)
    ]
    far = [one for one in to if one != "node"]
    if own_far_end:
        helpers += [
            manifests.farend_pod(pods, one.name, _far(pods, one), owners[pods.namespace])
            for one in far_ends(survey, nodes, at_once)
        ]
        far += manifests.far_urls(_far(pods, helper_nodes(survey, nodes, at_once)[0]))
    stations: list[Document] = []
    for node in nodes:
        stations.append(manifests.watch_pod(pods, node.name, owners[pods.namespace], far))
        stations.append(manifests.probe_pod(pods, node.name, owners[pods.traffic_namespace], far, peer="192.0.2.1"))
    rights = grants(
        pods, survey, restart, makes_namespace=makes_namespace, turn=turn, tells=tells, windows=windows, enters=enters
    )
    agent = survey.cni.daemon_set.name if survey.cni.daemon_set else survey.cni.name
    place = survey.cni.namespace
    verb = entry_of(restart).call.format(agent=agent, place=place, container=survey.cni.container)
    calls = [
        f"list nodes, daemonsets; list poddisruptionbudgets and get the ConfigMap of {agent} in {place}",
        *([f"get the ConfigMap {windows} (maintenance windows)"] if windows else []),
        f"list the pods of other drills in {', '.join(pods.namespaces)}",
        "get the ConfigMap {1} in {0} (whether a rollout is under way)".format(*manifests.ROLLOUT),
        _register(enters),
        f"get namespaces {', '.join(pods.namespaces)}{f'; create {pods.namespace}' if makes_namespace else ''}",
        f"create ConfigMap {manifests.name(pods, 'drill')} (the owner) and the pods below; watch them",
        f"patch that ConfigMap every {heartbeat.BEAT:g} s (an annotation: the drill is alive)",
        "exec in the pods: hitless relay read, clock, stop",
        f"{rounds} times on each of {', '.join(node.name for node in nodes)}: {verb}; watch its pods",
        *([f"get, create and patch the ConfigMap hitless-drill-turn in {pods.namespace}"] if turn else []),
        *(["create an Event in default for each node"] if tells else []),
        "delete the pods and the ConfigMap by label and uid"
        + (f"; delete the namespace {pods.namespace}, which the drill made" if makes_namespace else ""),
    ]
    made = [manifests.namespace(pods)] if makes_namespace else []
    return Rehearsal((*made, *owners.values(), *helpers, *stations), tuple(calls), tuple(rights))


def _register(enters: bool) -> str:
    what = "the ConfigMap {1} in {0} (which drills run".format(*manifests.DRILLS)
    if not enters:
        return f"get {what})"
    return f"get, create and patch {what}; every {heartbeat.BEAT:g} s a sign of life); delete it with the last entry"


def _far(pods: PodOptions, node: Node) -> list[str]:
    return manifests.far_addresses(pods, node.internal_ips)


def grants(
    pods: PodOptions,
    survey: Survey,
    restart: ApiMethod,
    *,
    makes_namespace: bool = True,
    turn: bool = False,
    tells: bool = False,
    windows: str = "",
    enters: bool = True,
) -> list[Document]:
    """The rights of a drill with these choices."""
    daemon_set = survey.cni.daemon_set
    maps: list[str] = []
    if daemon_set is not None and survey.cni.facts.net_conf:
        volumes = daemon_set.spec.template.spec.volumes or []
        maps = sorted({volume.config_map.name for volume in volumes if volume.config_map is not None})
    name = daemon_set.name if daemon_set else ""
    return manifests.rights(
        pods,
        restart,
        survey.cni.namespace,
        name,
        maps,
        makes_namespace=makes_namespace,
        turn=turn,
        tells=tells,
        windows=windows,
        enters=enters,
    )
