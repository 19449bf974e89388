"""What the suite for real clusters adds to a cluster, and when it leaves one alone: on fakes of several kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.cluster import stage as staging
from tests.unit.cluster.clusters import canal, cluster

from hitless.kube.api import Api, connect
from hitless.testing.api_kubelet import FakeNodes

PLACE, DRILLS = "hitless-e2e-0-stage", "hitless-e2e-0"


def daemon_set(name: str, image: str) -> dict[str, Any]:
    document = canal()
    document["metadata"]["name"] = name
    document["spec"]["template"]["spec"]["containers"] = [{"name": "agent", "image": image}]
    return document


def play(story: Callable[[FakeNodes, Api], Coroutine[Any, Any, None]], folder: Path, **options: Any) -> None:
    async def run() -> None:
        async with asyncio.timeout(240), cluster(3, **options) as fake:
            (folder / "kubeconfig").write_text(fake.api.kubeconfig())
            async with connect(folder / "kubeconfig") as api:
                await story(fake, api)

    asyncio.run(run())


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HITLESS_TO", "HITLESS_NODES"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_added_where_there_are_nodes_and_an_agent(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        built = await staging.build(api, PLACE, DRILLS)
        assert (built.words, built.rules, built.agent, built.missing) == (["--nodes", "1"], True, "", "")
        assert {one["metadata"]["name"][:8] for one in fake.pods_made} == {"rke2-can", "greeting"}

    play(story, tmp_path)


def test_cilium_on_several_nodes_gets_a_world_behind_the_one_that_is_drilled(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        built = await staging.build(api, PLACE, DRILLS)
        assert built.words == ["--node", "node-1", "--to", staging.WORLD]
        assert (built.nodes, built.rules, built.missing) == (1, False, "")
        (world,) = [one for one in fake.pods_made if one["metadata"]["name"] == "world"]
        assert world["spec"]["nodeName"] == "node-1"

    play(story, tmp_path, agent=daemon_set("cilium", "quay.io/cilium/cilium:v1.18.1@sha256:0"))


def test_a_world_of_ipv4_is_not_put_behind_a_node_of_ipv6(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        def of_ipv6(node: dict[str, Any]) -> None:
            node["status"]["addresses"] = [{"type": "InternalIP", "address": "2001:db8::1"}]

        for number in range(3):
            fake.api.store.change("nodes", "", f"node-{number}", of_ipv6)
        built = await staging.build(api, PLACE, DRILLS)
        assert built.missing == "node-1 has no IPv4 address, and our world no other: name a far end with HITLESS_TO"

    play(story, tmp_path, agent=daemon_set("cilium", "quay.io/cilium/cilium:v1.18.1"))


def test_a_cluster_that_is_still_being_made_is_waited_for(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        def ready(status: str) -> None:
            fake.api.store.change(
                "nodes", "", "node-2", lambda one: one["status"]["conditions"][0].__setitem__("status", status)
            )

        ready("False")
        building = asyncio.create_task(staging.build(api, PLACE, DRILLS))
        await asyncio.sleep(0.5)
        assert not building.done()
        ready("True")
        assert (await building).words == ["--nodes", "1"]

    play(story, tmp_path)


def test_a_budget_that_allows_nothing_is_a_reason_to_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PATIENCE", 0.5)

    async def story(fake: FakeNodes, api: Api) -> None:
        budget = {
            "metadata": {"name": "none"},
            "spec": {"selector": {"matchLabels": {"k8s-app": "canal"}}},
            "status": {"disruptionsAllowed": 0},
        }
        fake.api.store.create("poddisruptionbudgets.policy", "kube-system", budget)
        built = await staging.build(api, PLACE, DRILLS)
        assert built.missing == "PodDisruptionBudget kube-system/none allows no disruption now"
        assert ("namespaces", "", PLACE) not in fake.api.store.objects

    play(story, tmp_path)
