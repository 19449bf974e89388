"""The register of a cluster's drills: of two that begin at once exactly one goes on, at whatever request they meet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from tests.unit.cluster.clusters import client, play, until

from hitless.cli import rollout_findings
from hitless.cli.rollout_findings import RolloutFindings
from hitless.cli.rollout_work import _Others
from hitless.cluster import heartbeat, leftovers, other_drills, registry
from hitless.cluster.manifests import DRILLS
from hitless.cluster.registry import RegisteredDrill
from hitless.errors import MissingError
from hitless.kube.api import Api, Patience
from hitless.operations.rollout import observation, preconditions
from hitless.operations.rollout.record import RolloutRecord
from hitless.operations.rollout.values import RolloutChange, RolloutChoices
from hitless.restarts.methods import ApiMethod
from hitless.survey.cni import survey_cluster
from hitless.testing.api_kubelet import FakeNodes
from hitless.testing.api_rights import Rights, Rule

PLACE, NAME = DRILLS
ELSEWHERE = "other-machine 1 2 3"


def drill(*nodes: str, **rest: Any) -> RegisteredDrill:
    return RegisteredDrill(namespace="team", nodes=nodes, driver="somebody@elsewhere", process=ELSEWHERE, **rest)


def known(fake: FakeNodes) -> dict[str, Any]:
    """The register as it is stored; empty where the ConfigMap does not exist."""
    found = fake.api.store.objects.get(("configmaps", PLACE, NAME), {})
    return {name: json.loads(text) for name, text in (found.get("data") or {}).items()}


async def interleaved(
    first: Api, at: int, work: Callable[[], Awaitable[None]], other: Callable[[], Awaitable[None]]
) -> bool:
    """Do ``work`` with ``first`` up to its ``at``-th request, then all of ``other``, then the rest; False when
    ``work`` has fewer requests."""
    request, reached, go, count = first.client.request, asyncio.Event(), asyncio.Event(), 0

    async def counting(*args: Any, **rest: Any) -> httpx2.Response:
        nonlocal count
        count += 1
        if count == at:
            reached.set()
            await go.wait()
        return await request(*args, **rest)

    first.client.request = counting  # type: ignore[method-assign]
    task = asyncio.ensure_future(work())
    waiting = asyncio.ensure_future(reached.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await other()
    go.set()
    await task
    first.client.request = request  # type: ignore[method-assign]
    return reached.is_set()


@pytest.mark.parametrize("third", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_of_two_drills_that_enter_at_once_exactly_one_sees_the_other(tmp_path: Path, at: int, third: bool) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        if third:  # the ConfigMap exists already
            await registry.enter(api, "c", drill("node-9"))
        seen: dict[str, set[str]] = {}

        async def enter(identity: str, by: Api) -> None:
            seen[identity] = set(await registry.enter(by, identity, drill("node-1")))

        async with client(fake, tmp_path) as second:
            await interleaved(api, at, lambda: enter("a", api), lambda: enter("b", second))
        losers = [one for one, other in (("a", "b"), ("b", "a")) if other in seen[one]]
        assert len(losers) == 1, seen
        assert set(known(fake)) == {"a", "b", *(["c"] if third else [])}

    play(story, tmp_path)


@pytest.mark.parametrize("drill_first", [False, True])
@pytest.mark.parametrize("at", range(1, 8))
def test_a_drill_and_a_rollout_that_begin_at_once_do_not_both_go_on(tmp_path: Path, at: int, drill_first: bool) -> None:
    """The drill is in another namespace: the rollout cannot see its pods."""

    async def story(fake: FakeNodes, api: Api) -> None:
        survey = await survey_cluster(api)
        nodes = list(survey.nodes)
        state, _ = await preconditions.new(api, survey, RolloutChange("restart", "restart"), RolloutChoices())
        seen = await observation.see(api, state.namespace, state.name)
        going: set[str] = set()

        async with client(fake, tmp_path) as by_drill, client(fake, tmp_path) as by_rollout:

            async def drilling() -> None:
                mine = other_drills.registration("team", survey, nodes, ApiMethod.DELETE_POD, own_far_end=False)
                others = await registry.enter(by_drill, "d", mine)
                alive, _ = await other_drills.blocking(by_drill, mine, tell=lambda _: None, others=others)
                if alive or await rollout_findings.under_way(by_drill, lambda _: None):
                    await registry.leave(by_drill, "d")
                else:
                    going.add("drill")

            async def rolling() -> None:
                await RolloutRecord(by_rollout).begin(state, None)
                others = _Others(by_rollout, RolloutFindings(survey, None, state, seen, []), "r")
                if not await others(["node-1"]):
                    going.add("rollout")

            if drill_first:
                await interleaved(by_drill, at, drilling, rolling)
            else:
                await interleaved(by_rollout, at, rolling, drilling)
            if not going:  # the rollout waits for the drill, which has left
                assert not await _Others(by_rollout, RolloutFindings(survey, None, state, seen, []), "r")(["node-1"])
                going.add("rollout")
        assert len(going) == 1, going

    play(story, tmp_path)


def test_it_is_deleted_with_the_last_entry_and_not_under_a_drill_that_enters_meanwhile(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        await registry.enter(api, "a", drill("node-1"))
        async with client(fake, tmp_path) as second:

            async def enter() -> None:
                await registry.enter(second, "b", drill("node-2"))

            assert await interleaved(api, 2, lambda: registry.leave(api, "a"), enter), "it asked for the delete"
            assert set(known(fake)) == {"b"}
            await registry.leave(second, "b")
        assert ("configmaps", PLACE, NAME) not in fake.api.store.objects
        await registry.leave(api, "b")  # once more: nothing is there

    play(story, tmp_path)


def test_an_entry_moves_while_its_driver_lives_and_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT", 0.01)

    async def story(fake: FakeNodes, api: Api) -> None:
        async with registry.entered(api, "a", drill("node-1"), warn=pytest.fail) as others:
            assert others == {}
            await until(lambda: known(fake)["a"]["beat"] >= 3)
        assert known(fake) == {}

    play(story, tmp_path)


@pytest.mark.parametrize("lives", [False, True])
def test_a_silent_entry_is_dead_only_after_the_time_that_a_cut_off_driver_may_need(tmp_path: Path, lives: bool) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        await registry.enter(api, "a", drill("node-1"))
        now, said = 0.0, list[str]()

        async def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds
            if lives and now == Patience().total + 20.0:
                fake.api.store.change(
                    "configmaps",
                    PLACE,
                    NAME,
                    lambda one: one["data"].update(a=msgspec.json.encode(drill("node-1", beat=1)).decode()),
                )
            await asyncio.sleep(0)

        api.calls.patience = replace(api.patience, sleep=sleep, now=lambda: now)
        found, dead = await other_drills.blocking(api, drill("node-1"), tell=said.append)
        assert (set(found), dead) == (({"a"}, set()) if lives else (set(), {"a"}))
        assert said == ["checking whether drill a (somebody@elsewhere) still runs: up to 240 s"]
        assert lives or now >= heartbeat.LOOK > Patience().total

    play(story, tmp_path)


def test_only_drills_that_share_nodes_or_ports_are_in_the_way() -> None:
    mine = drill("node-1", far_ends=("node-0",))
    others = {
        "same": drill("node-1", "node-2"),
        "ports": drill("node-2", far_ends=("node-0",)),
        "all": drill(everywhere=True),
        "free": drill("node-2", far_ends=("node-3",)),
        "odd\x1b[2J": drill("node-1"),
    }
    found = other_drills.registered(others, mine)
    its = "(driven by somebody@elsewhere, namespace team; if it was killed: hitless drill --cleanup --namespace team)"
    assert found.pop("odd\x1b[2J").isprintable()
    assert found == {
        "same": f"another drill, same, is at work on node-1 {its}",
        "ports": f"another drill, ports, has its far end on node-0, ports 7801 to 7880 {its}",
        "all": f"another drill, all, is at work on the nodes of this cluster {its}",
    }
    assert list(other_drills.registered({"one": drill("node-5")}, drill(everywhere=True))) == ["one"]


def test_without_the_rights_for_it_a_drill_goes_on_and_says_so(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        fake.api.rights = Rights([Rule("get", "", "namespaces")])
        said: list[str] = []
        assert await other_drills.blocking(api, drill("node-1"), tell=said.append) == ({}, set())
        async with registry.entered(api, "a", drill("node-1"), warn=said.append) as others:
            assert others == {}
        assert known(fake) == {}
        first, second = said
        assert "whether drills of other namespaces are at work cannot be seen" in first
        assert "this drill cannot be entered in ConfigMap kube-system/hitless-drills" in second
        assert all('cannot get resource "configmaps"' in one or "cannot patch" in one for one in said)

    play(story, tmp_path)


def test_a_cleanup_removes_the_entry_of_a_dead_drill_and_keeps_those_of_other_namespaces(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        ended = heartbeat.driver()["process"].rpartition(" ")[0] + " 1"  # a process of this machine, started otherwise
        await registry.enter(api, "a", replace_process(drill("node-1"), ended))
        await registry.enter(api, "b", msgspec.structs.replace(drill("node-1"), namespace="others"))
        (found,) = await leftovers.list_drills(api, ["team"])
        assert (found.identity, found.life, found.driver) == ("a", "dead", "somebody@elsewhere")
        assert found.nodes == ("node-1",)
        assert found.objects == ("its entry in ConfigMap kube-system/hitless-drills",)
        assert await leftovers.remove(api, found) == ["the entry of drill a in ConfigMap kube-system/hitless-drills"]
        assert set(known(fake)) == {"b"}

    play(story, tmp_path)


def replace_process(entry: RegisteredDrill, process: str) -> RegisteredDrill:
    return msgspec.structs.replace(entry, process=process)


def test_what_others_wrote_into_it_ends_nothing(tmp_path: Path) -> None:
    async def story(fake: FakeNodes, api: Api) -> None:
        metadata = {"name": NAME, "namespace": PLACE}
        fake.api.store.create("configmaps", PLACE, {"metadata": metadata, "data": {"x": "{", "y": "[]", "z": "{}"}})
        assert set(await registry.entries(api)) == {"z"}
        assert set(await registry.enter(api, "a", drill("node-1"))) == {"z"}

    play(story, tmp_path)


def test_a_drill_that_meets_another_one_ends_before_anything_is_made(tmp_path: Path) -> None:
    from hitless.cluster.preparation import _still_free

    class Operator:
        def warn(self, text: str) -> None:
            pytest.fail(text)

        async def at_work(self, api: Api) -> list[str]:
            return []

    async def story(fake: FakeNodes, api: Api) -> None:
        own = heartbeat.driver()["process"]
        others = {"b": replace_process(drill("node-1"), own)}
        with pytest.raises(
            MissingError, match=r"not now: another drill, b, is at work on node-1 .*nothing was restart"
        ):
            await _still_free(api, drill("node-1"), others, set(), Operator())  # type: ignore[arg-type]
        await registry.enter(api, "b", drill("node-1"))
        await _still_free(api, drill("node-1"), {"b": drill("node-1")}, {"b"}, Operator())  # type: ignore[arg-type]
        assert known(fake) == {}, "the entry of a dead one is removed"

    play(story, tmp_path)
