"""Which network agent a cluster runs, as which DaemonSet.

Problem: the same flannel is found under a dozen names. Promise: the CNI is found by what its DaemonSets run (images,
commands, ConfigMaps), not by one name; nothing is written. Next stages: ``nodes``, ``hitless.restarts``,
``hitless.advice``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from hitless import profiles
from hitless.errors import InputError
from hitless.kube.api import Api
from hitless.kube.objects import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DISRUPTION_BUDGETS,
    NODES,
    Container,
    DaemonSet,
    DisruptionBudget,
    Node,
)
from hitless.model.versions import Flannel, parse_flannel
from hitless.profiles import Cluster

__all__ = ["Cni", "Survey", "flannels", "survey_cluster"]

_NOT_AGENTS = ("operator", "cni-plugin", "install", "csi", "apiserver", "typha", "controllers", "envoy", "hubble")


@dataclass(frozen=True, slots=True)
class Cni:
    """The network agent of a cluster. ``container`` is the one that programs egress; K3s has no DaemonSet for it.

    ``name`` is a profile's (``hitless.profiles``), ``k3s``, ``other`` (an agent that users named) or ``none`` (nothing
    that is known, and nothing was named). ``others``: the DaemonSets that run beside it, as NAMESPACE/NAME.
    ``config_map`` holds flannel's net-conf.json.
    """

    name: str
    daemon_set: DaemonSet | None = None
    container: str = ""
    image: str = ""
    flannel: Flannel | None = None
    networks: tuple[str, ...] = ()
    nftables: bool = False
    others: tuple[str, ...] = ()
    config_map: str = ""

    @property
    def facts(self) -> Cluster:
        """What its profile says of it."""
        return profiles.clusters().get(self.name, Cluster(self.name))

    @property
    def known(self) -> bool:
        """Whether this tool knows the rules that it programs; else a drill goes by traffic alone."""
        return self.name in profiles.names() and bool(profiles.shipped(self.name).tables)

    @property
    def profile(self) -> str:
        """What the watch's profile of its rules is called; empty where there is none."""
        return (self.nftables and self.facts.nftables) or (self.name if self.known else "")

    @property
    def namespace(self) -> str:
        return self.daemon_set.metadata.namespace if self.daemon_set else ""

    @property
    def title(self) -> str:
        """For users: ``rke2-canal (flannel v0.26.7-build20250515)``."""
        name = self.daemon_set.name if self.daemon_set else self.name
        return f"{name} (flannel {self.flannel})" if self.flannel else name


@dataclass(frozen=True, slots=True)
class Survey:
    """What was seen: nodes in the order of their names, the CNI, and the budgets in its namespace."""

    nodes: tuple[Node, ...]
    cni: Cni
    budgets: tuple[DisruptionBudget, ...] = ()


async def survey_cluster(api: Api, *, agent: str = "", with_budgets: bool = True) -> Survey:
    """Survey a cluster; where no known CNI is found, it is ``none``.

    ``agent``: the option, NAMESPACE/DAEMONSET[/CONTAINER]; raises ``InputError`` when there is no such one.
    """
    nodes = tuple(sorted(await api.all(NODES), key=lambda node: node.name))
    sets = await api.all(DAEMON_SETS)
    cni = await (_named(api, agent, sets) if agent else _find(api, sets, nodes))
    budgets: Sequence[DisruptionBudget] = ()
    if with_budgets and cni.namespace:
        budgets = await api.all(DISRUPTION_BUDGETS, cni.namespace)
    return Survey(nodes, cni, tuple(budgets))


async def _find(api: Api, sets: Iterable[DaemonSet], nodes: Sequence[Node]) -> Cni:
    ordered = sorted(sets, key=lambda one: (one.metadata.namespace, one.name))
    found = [(name, one, container) for one in ordered for name, container in _agents(one).items()]
    if found:
        name, one, container = min(found, key=lambda it: profiles.clusters()[it[0]].precedence)
        return await _cni(api, name, one, container)
    if any("+k3s" in node.status.node_info.kubelet_version for node in nodes):
        return Cni("k3s", networks=tuple(sorted({cidr for node in nodes for cidr in node.pod_cidrs})))
    return Cni("none", others=tuple(f"{one.metadata.namespace}/{one.name}" for one in sets))


async def flannels(api: Api, sets: Iterable[DaemonSet]) -> list[Cni]:
    """Every DaemonSet that runs flannel: a cluster may have one for each architecture or kind of node."""
    found: list[Cni] = []
    for one in sorted(sets, key=lambda one: (one.metadata.namespace, one.name)):
        for name, container in _agents(one).items():
            if profiles.clusters()[name].net_conf:
                found.append(await _cni(api, name, one, container))
    return found


async def _named(api: Api, agent: str, sets: Iterable[DaemonSet]) -> Cni:
    """The agent that the option names; flannel is known as such under any name."""
    place, _, rest = agent.partition("/")
    name, _, wanted = rest.partition("/")
    known = {(one.metadata.namespace, one.name): one for one in sets}
    daemon_set = known.get((place, name))
    if daemon_set is None:
        there = ", ".join(sorted(f"{space}/{one}" for space, one in known)) or "the cluster has none"
        raise InputError(f"there is no DaemonSet {agent!r}", where="--agent", expected=f"NAMESPACE/NAME: {there}")
    containers = daemon_set.spec.template.spec.containers or []
    chosen = next((one for one in containers if one.name == wanted), None) if wanted else None
    if wanted and chosen is None:
        names = ", ".join(one.name for one in containers)
        raise InputError(f"{place}/{name} has no container {wanted!r}", where="--agent", expected=names)
    for kind, container in _agents(daemon_set).items():
        if chosen in (None, container):
            return await _cni(api, kind, daemon_set, container)
    container = chosen or (containers[0] if containers else Container())
    return Cni("other", daemon_set, container.name, container.image)


def _agents(daemon_set: DaemonSet) -> dict[str, Container]:
    """The plugins that the DaemonSet runs, each with its container, the most telling first.

    Where one is another one beside a third (Canal is flannel beside Calico), it is that one and not the other.
    """
    known = profiles.clusters()
    alone: dict[str, Container] = {}
    for container in daemon_set.spec.template.spec.containers or []:
        name = next((name for name, facts in known.items() if _runs(facts, container)), None)
        if name is not None:
            alone.setdefault(name, container)
    found: dict[str, Container] = {}
    for name in sorted(alone, key=list(known).index):
        whole = (of for of, facts in known.items() if facts.of == name and facts.beside in alone)
        found[next(whole, name)] = alone[name]
    return found


def _runs(facts: Cluster, container: Container) -> bool:
    path = container.image.lower()
    image = container.image.split("@", 1)[0].rsplit("/", 1)[-1].lower()
    if any(other in image for other in _NOT_AGENTS):
        return False
    argv = " ".join([*(container.command or []), *(container.args or [])])
    by_image = any(mark in path and (mark in image or image.startswith("node:")) for mark in facts.images)
    return by_image or any(mark in argv for mark in facts.commands)


class _NetConf(msgspec.Struct):
    network: str = msgspec.field(name="Network", default="")
    ipv6_network: str = msgspec.field(name="IPv6Network", default="")
    enable_nftables: bool = msgspec.field(name="EnableNFTables", default=False)


async def _cni(api: Api, name: str, daemon_set: DaemonSet, container: Container) -> Cni:
    if not profiles.clusters()[name].net_conf:
        return Cni(name, daemon_set, container.name, container.image)
    conf, config_map = _NetConf(), ""
    for volume in daemon_set.spec.template.spec.volumes or []:
        if volume.config_map is None:
            continue
        text = (await api.get(CONFIG_MAPS, volume.config_map.name, daemon_set.metadata.namespace)).data or {}
        if "net-conf.json" in text:
            config_map = volume.config_map.name
            try:
                conf = msgspec.json.decode(text["net-conf.json"], type=_NetConf)
            except msgspec.DecodeError as error:
                where = f"ConfigMap {daemon_set.metadata.namespace}/{volume.config_map.name}, net-conf.json"
                raise InputError(str(error), where=where, expected="flannel's configuration") from error
    return Cni(
        name,
        daemon_set,
        container.name,
        container.image,
        _version(container.image),
        tuple(network for network in (conf.network, conf.ipv6_network) if network),
        conf.enable_nftables,
        config_map=config_map,
    )


def _version(image: str) -> Flannel | None:
    """The flannel version of an image's tag; None where the tag (a digest, ``latest``) does not tell."""
    try:
        return parse_flannel(image)
    except InputError:
        return None
