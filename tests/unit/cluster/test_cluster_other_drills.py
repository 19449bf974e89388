"""Other drills: one that is only cut off is not dead, and where none can be seen that is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.unit.cluster.clusters import play

from hitless.cluster import heartbeat, leftovers, manifests
from hitless.cluster.manifests import PodOptions
from hitless.cluster.other_drills import by_pods
from hitless.kube.api import Api, Patience
from hitless.restarts.methods import ApiMethod
from hitless.survey.cni import survey_cluster
from hitless.survey.nodes import choose
from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_rights import RbacRule, Rights

PLACE = "hitless-drill"
PODS = PodOptions("x1", namespace=PLACE)


@dataclass
class Time:
    """Virtual seconds; ``then`` happens at its moment."""

    now: float = 0.0
    then: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.then and self.then[0][0] <= self.now:
            self.then.pop(0)[1]()
        await asyncio.sleep(0)


def left(fake: FakeNodes, *, beat: str = "7", pods: bool = True) -> Callable[[], None]:
    """A drill of another machine; what is returned makes it give a sign of life."""
    store = fake.api.store
    store.create("namespaces", "", {"metadata": {"name": PLACE}})
    owner = manifests.owner(PODS, PLACE)
    owner["metadata"]["annotations"] = {heartbeat.ANNOTATION: beat} if beat else {}
    owner["data"] = {"driver": "somebody@elsewhere", "process": "other 1 2 3"}
    made = store.create("configmaps", PLACE, owner)
    owner["metadata"]["uid"] = made["metadata"]["uid"]
    if pods:
        store.create("pods", PLACE, manifests.peer_pod(PODS, "node-1", owner))

    def lives() -> None:
        name = owner["metadata"]["name"]
        store.change(
            "configmaps",
            PLACE,
            name,
            lambda one: one["metadata"].update(annotations={heartbeat.ANNOTATION: beat + "1"}),
        )

    return lives


@pytest.mark.slow
@pytest.mark.parametrize("pods", [True, False])
def test_a_drill_that_cut_its_driver_off_is_not_dead_as_long_as_the_driver_may_wait(tmp_path: Path, pods: bool) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        lives = left(fake, pods=pods)
        time = Time(then=[(Patience().total + 20.0, lives)])
        api.calls.patience = replace(api.patience, sleep=time.sleep, now=lambda: time.now)
        (found,) = await leftovers.judge(api, await leftovers.list_drills(api, [PLACE]))
        assert (found.life, found.why) == ("alive", "it gives signs of life")

        # looked at for less than that it is not known, and never dead
        (found,) = await leftovers.judge(api, await leftovers.list_drills(api, [PLACE]), heartbeat.GLANCE)
        assert (found.life, found.why) == (
            "unknown",
            "it gave no sign of life for 30 s; it may be cut off from the server",
        )

        begun = time.now
        (found,) = await leftovers.judge(api, await leftovers.list_drills(api, [PLACE]))
        assert (found.life, found.why) == ("dead", "it gave no sign of life for 240 s")
        assert time.now - begun >= heartbeat.LOOK > Patience().total

    play(story, tmp_path)


def test_a_drill_that_has_no_pods_yet_and_gave_no_sign_yet_is_not_dead(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        left(fake, beat="", pods=False)
        (found,) = await leftovers.judge(api, await leftovers.list_drills(api, [PLACE]))
        assert found.life == "unknown", found.why

    play(story, tmp_path)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("sees_namespaces", [True, False])
def test_where_other_drills_cannot_be_looked_for_is_said_unless_there_can_be_none(
    tmp_path: Path, there: bool, sees_namespaces: bool
) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        nodes = choose(survey, ["node-1"], None, "")
        if there:
            left(fake)
        told: list[str] = []
        against = await by_pods(api, [PLACE], survey, nodes, ApiMethod.DELETE_POD, own_far_end=True, tell=told.append)
        assert (told, bool(against)) == ([], False), "a peer alone is in nobody's way"
        fake.api.rights = Rights([RbacRule("get", "", "namespaces")] if sees_namespaces else [])
        against = await by_pods(api, [PLACE], survey, nodes, ApiMethod.DELETE_POD, own_far_end=True, tell=told.append)
        assert against == {}
        assert len(told) == (0 if sees_namespaces and not there else 1)
        for one in told:
            assert "cannot be seen in the namespace hitless-drill" in one
            assert 'cannot list resource "pods"' in one

    play(story, tmp_path)
