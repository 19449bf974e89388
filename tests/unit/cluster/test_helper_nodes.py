"""Nodes that are restarted together are measured from nodes that are not, and budgets must allow all of them."""

from __future__ import annotations

import asyncio
import json
from itertools import combinations, product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.cluster.clusters import client, cluster

from hitless.cluster import manifests
from hitless.cluster.manifests import PodOptions
from hitless.cluster.target import ClusterTarget, SharedObjects, far_ends, helper_nodes
from hitless.drill import DrillPlan
from hitless.kube.objects import DaemonSet, DisruptionBudget, Node
from hitless.restarts.agents import AgentPods
from hitless.restarts.methods import ApiMethod
from hitless.survey.cni import Survey, survey_cluster
from hitless.survey.nodes import exhausted


def survey(count: int, folder: Path, *, not_ready: tuple[str, ...] = ()) -> Survey:
    """Of a cluster with so many nodes."""

    async def run() -> Survey:
        async with asyncio.timeout(120), cluster(count) as fake, client(fake, folder) as api:
            for name in not_ready:
                fake.api.store.change(
                    "nodes",
                    "",
                    name,
                    lambda one: one["status"].update(conditions=[{"type": "Ready", "status": "False"}]),
                )
            return await survey_cluster(api)

    return asyncio.run(run())


def target_of(found: Survey, nodes: list[Node], at_once: int) -> ClusterTarget:
    pods = PodOptions("x")
    helpers = helper_nodes(found, nodes, at_once)
    owners = {place: manifests.owner(pods, place) for place in pods.namespaces}
    peers = tuple((one.name, f"10.42.9.{number}") for number, one in enumerate(helpers))
    shared = SharedObjects(owners, tuple(helpers), peers)
    plan, agent = DrillPlan(rounds=1), AgentPods(None, found.cni)  # type: ignore[arg-type]
    return ClusterTarget(None, found, nodes, pods, plan, agent, ApiMethod.DELETE_POD, shared, [], at_once)  # type: ignore[arg-type]


def reached(documents: list[dict[str, Any]]) -> set[str]:
    """The hosts that the probe on a node opens connections to, its control between pods included."""
    (probe,) = (one for one in documents if one["metadata"]["labels"]["app.kubernetes.io/component"] == "probe")
    tools = [one for one in probe["spec"]["containers"][0]["args"] if "=" in one]
    words = [word for tool in tools for word in json.loads(tool.partition("=")[2])]
    return {word.removeprefix("farend://").rpartition(":")[0] for word in words if word.startswith("farend://")}


@pytest.mark.parametrize("width", [1, 2, 3])
def test_no_node_is_measured_from_one_that_is_restarted_at_the_same_time(tmp_path: Path, width: int) -> None:
    found = survey(4, tmp_path)
    nodes = list(found.nodes)
    target = target_of(found, nodes, width)
    addresses = {ip: node.name for node in nodes for ip in node.internal_ips.values()}
    addresses |= {ip: name for name, ip in target.places.peers}
    for group in combinations(nodes, width):
        names = {one.name for one in group}
        for node in group:
            hosts = {addresses[one] for one in reached(target._documents(node, group))}
            assert len(hosts) in (1, 2) and not hosts & names, (names, node.name, hosts)
        used = [document for document, _ in target._far_ends(group, dict.fromkeys(names))]  # type: ignore[arg-type]
        assert {one["spec"]["nodeName"] for one in used}.isdisjoint(names)


def test_a_node_that_is_never_drilled_is_enough(tmp_path: Path) -> None:
    found = survey(4, tmp_path)
    assert [one.name for one in helper_nodes(found, found.nodes[:3], 3)] == ["node-3", "node-0"]
    assert [one.name for one in far_ends(found, found.nodes[1:], 1)] == ["node-0"]


def test_only_nodes_that_get_a_far_end_count_as_its_places(tmp_path: Path) -> None:
    """A drill registers these, and others are refused there."""
    found = survey(4, tmp_path)
    for drilled, width in product((2, 3, 4), (1, 2, 3)):
        nodes = list(found.nodes[4 - drilled :])
        target, used = target_of(found, nodes, width), set()
        for group in combinations(nodes, min(width, drilled)):
            placed = target._far_ends(group, dict.fromkeys(one.name for one in group))  # type: ignore[arg-type]
            used |= {document["spec"]["nodeName"] for document, _ in placed}
        assert {one.name for one in far_ends(found, nodes, width)} == used, (drilled, width)


def test_where_all_ready_nodes_are_restarted_at_once_each_still_has_another_one(tmp_path: Path) -> None:
    found = survey(3, tmp_path, not_ready=("node-2",))
    nodes = list(found.nodes[:2])
    target = target_of(found, nodes, 2)
    assert [target._far_end(one, nodes).name for one in nodes] == ["node-1", "node-0"]  # type: ignore[union-attr]


SETS = msgspec.convert(
    {"metadata": {"namespace": "kube-system"}, "spec": {"template": {"metadata": {"labels": {"k8s-app": "canal"}}}}},
    DaemonSet,
)


@pytest.mark.parametrize(
    ("selector", "covered"),
    [
        ({"matchLabels": {"k8s-app": "canal"}}, True),
        ({"matchLabels": {"k8s-app": "other"}}, False),
        ({}, True),  # of policy/v1: all pods of the namespace
        (None, False),
        ({"matchExpressions": [{"key": "k8s-app", "operator": "In", "values": ["a", "canal"]}]}, True),
        ({"matchExpressions": [{"key": "k8s-app", "operator": "NotIn", "values": ["canal"]}]}, False),
        ({"matchExpressions": [{"key": "k8s-app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "k8s-app", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"k8s-app": "canal"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}, False),
    ],
)
@pytest.mark.parametrize("allowed", [0, 1, 2])
def test_a_budget_of_the_agent_must_allow_all_pods_of_a_step(
    selector: dict[str, Any] | None, covered: bool, allowed: int
) -> None:
    budget = msgspec.convert(
        {"metadata": {"name": "b"}, "spec": {"selector": selector}, "status": {"disruptionsAllowed": allowed}},
        DisruptionBudget,
    )
    why = exhausted([budget], SETS, 2)
    assert bool(why) == (covered and allowed < 2)
    assert exhausted([budget], SETS, 1) == (
        ["PodDisruptionBudget kube-system/b allows no disruption now"] if covered and not allowed else []
    )
    if covered and allowed == 1:
        assert why == ["PodDisruptionBudget kube-system/b allows 1 disruption now, and a step restarts 2 pods"]
