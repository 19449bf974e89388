"""Rollouts of fake clusters: order, stops, undo, other drivers, and a DaemonSet that somebody else changes."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.operations.rollouts import (
    IMAGE,
    NAME,
    PLACE,
    RESTART,
    SURGE,
    Driver,
    Hands,
    Killed,
    Mortal,
    Place,
    place,
)

from hitless.errors import Displaced, InputError
from hitless.kube.objects import Meta, Node, NodeStatus
from hitless.operations.rollout import node_order, preconditions, record
from hitless.operations.rollout.ports import StepOutcome
from hitless.operations.rollout.record import RolloutRecord
from hitless.operations.rollout.values import NodeTurn, Rollout, RolloutChoices, read, text, verdict

LOSS = StepOutcome("fail", 1000, 7, ("lost 7 of 1,000 attempts",), clean=False)
FORMER = "rancher/hardened-flannel:v0.26.7-build20250515"


def play(tmp_path: Path, story: Callable[[Place], Coroutine[Any, Any, None]], nodes: int = 3) -> None:
    async def whole() -> None:
        async with asyncio.timeout(240), place(tmp_path, nodes) as there:
            await story(there)

    asyncio.run(whole())


def courses(state: Rollout) -> dict[str, str]:
    return {one.node: one.course for one in state.turns}


def test_it_stops_at_the_first_loss_and_goes_on_when_told(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        state = await Driver(there, hands=Hands({"node-2": LOSS})).run()
        assert (state.phase, state.driver, dict(there.gone)) == ("rolling", "", {"node-1": 1, "node-2": 1})
        assert courses(state) == {"node-1": "done", "node-2": "done", "node-0": "pending"}
        assert "the first loss: node-2: lost 7 of 1,000" in state.stopped
        assert "hitless rollout resume or hitless rollout undo" in state.stopped
        assert there.strategy == {"type": "OnDelete"}, "the controller must not restart the rest"
        state = await Driver(there).run()
        assert (state.phase, verdict(state.turns)) == ("ended", "fail"), "a loss stays one"
        assert dict(there.gone) == dict.fromkeys(("node-0", "node-1", "node-2"), 1)
        assert there.strategy == SURGE

    play(tmp_path, story)


def test_an_undo_puts_the_former_revision_back_where_the_new_one_is_and_nowhere_else(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        await Driver(there, hands=Hands({"node-2": LOSS})).run()
        hands = Hands()
        state = await Driver(there, hands=hands, undo=True).run()
        assert (state.phase, verdict(state.turns), hands.steps) == ("ended", "pass", [("node-2",), ("node-1",)])
        assert courses(state)["node-0"] == "kept"
        assert set(there.images.values()) == {FORMER}
        assert dict(there.gone) == {"node-1": 2, "node-2": 2}
        assert there.strategy == SURGE

    play(tmp_path, story)


def test_an_undo_of_one_that_ended_goes_over_all_nodes(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        assert (await Driver(there).run()).phase == "ended"
        state = await Driver(there, undo=True).run()
        assert (state.phase, set(there.images.values()), there.strategy) == ("ended", {FORMER}, SURGE)
        with pytest.raises(InputError, match="it was undone already"):
            await Driver(there, undo=True).run()

    play(tmp_path, story, 2)


@pytest.mark.parametrize("at", range(1, 9))
def test_an_undo_whose_driver_is_killed_is_resumed(tmp_path: Path, at: int) -> None:
    async def story(there: Place) -> None:
        await Driver(there, hands=Hands({"node-1": LOSS})).run()
        with pytest.raises(Killed):
            await Driver(there, undo=True, mortal=Mortal(at, after=at % 2 == 0)).run()
        again = Driver(there, undo=there.written.direction == "forward")
        state = await again.run()
        assert (state.phase, set(there.images.values()), there.strategy) == ("ended", {FORMER}, SURGE)
        assert dict(there.gone) == {"node-1": 2}

    play(tmp_path, story, 2)


def test_a_daemon_set_that_somebody_changes_meanwhile_is_left_alone_and_told(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        def meddle(nodes: Sequence[str]) -> None:
            def change(one: dict[str, Any]) -> None:
                one["spec"]["minReadySeconds"] = 9
                fields = {"manager": "argocd-controller", "time": "2026-01-02T03:04:05Z", "operation": "Update"}
                one["metadata"]["managedFields"] = [fields]

            there.change_set(change)

        state = await Driver(there, hands=Hands(meanwhile=meddle)).run()
        assert dict(there.gone) == {"node-1": 1}, "what was begun is brought to its end, and nothing else begun"
        assert "was changed meanwhile by argocd-controller at 2026-01-02T03:04:05Z" in state.stopped
        assert "was changed meanwhile" in (await Driver(there).run()).stopped, "resumed, it is still so"
        assert dict(there.gone) == {"node-1": 1}

    play(tmp_path, story)


def test_a_strategy_that_somebody_puts_back_ends_the_rollout_before_the_next_node(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        def revert(nodes: Sequence[str]) -> None:
            there.change_set(lambda one: one["spec"].__setitem__("updateStrategy", copy.deepcopy(SURGE)))

        state = await Driver(there, RESTART, hands=Hands(meanwhile=revert)).run()
        assert state.phase == "ended", "the same strategy is not a change, and a restart has nothing to lose by it"
        state = await Driver(there, IMAGE, hands=Hands(meanwhile=revert)).run()
        assert "was changed meanwhile" in state.stopped

    play(tmp_path, story)


@pytest.mark.slow
def test_a_node_that_does_not_come_back_is_told_and_undone(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        there.fake.unstartable.add("rancher/hardened-calico:v3.30.0-build20250515")  # whatever is started from now on
        state = await Driver(there, choices=RolloutChoices(patience=1.5)).run()
        assert "the agent did not come back: node-1: not ready 1.5 s after the restart" in state.stopped or (
            "no sign that an agent restarted on node-1" in state.stopped
        )
        assert "ErrImageNeverPull" in state.stopped
        assert "hitless rollout undo" in state.stopped
        assert courses(state)["node-1"] == "restarting"
        state = await Driver(there, choices=RolloutChoices(patience=1.5)).run()
        assert "did not come back" in state.stopped
        assert dict(there.gone) == {"node-1": 1}, "it is waited for, not restarted again"
        there.fake.unstartable.clear()
        there.be_patient()
        state = await Driver(there, undo=True).run()
        assert (state.phase, set(there.images.values())) == ("ended", {FORMER})
        assert {one.node: one.unseen for one in state.turns if one.course == "done"} == {"node-1": True}

    play(tmp_path, story)


def test_a_node_that_is_not_ready_is_left_out_and_the_strategy_stays_until_it_is_back(tmp_path: Path) -> None:
    def condition(there: Place, status: str) -> None:
        there.fake.api.store.change(
            "nodes", "", "node-2", lambda one: one["status"]["conditions"][0].__setitem__("status", status)
        )

    async def story(there: Place) -> None:
        condition(there, "False")
        state = await Driver(there).run()
        assert courses(state) == {"node-1": "done", "node-2": "skipped", "node-0": "done"}
        assert "1 of 3 nodes were left out: node-2 (the node is not Ready)" in state.stopped
        assert there.strategy == {"type": "OnDelete"}
        condition(there, "True")
        state = await Driver(there).run()
        assert (state.phase, verdict(state.turns)) == ("ended", "pass")
        assert dict(there.gone) == dict.fromkeys(("node-0", "node-1", "node-2"), 1)

    play(tmp_path, story)


def test_nodes_that_join_and_leave_meanwhile_are_told_and_not_waited_for(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        def meanwhile(nodes: Sequence[str]) -> None:
            if nodes == ("node-1",):
                there.fake.add_node("node-9")
                there.fake.daemon_sets.replace(there.daemon_set, "node-9")
                (pod,) = there.on("node-2")
                there.fake.api.store.remove("nodes", "", "node-2")
                there.fake.api.store.remove("pods", PLACE, pod["metadata"]["name"])  # as the pod GC does

        state = await Driver(there, hands=Hands(meanwhile=meanwhile)).run()
        expected = {"node-1": "done", "node-2": "left", "node-0": "done", "node-9": "joined"}
        assert (state.phase, courses(state), verdict(state.turns)) == ("ended", expected, "pass")
        assert (there.gone["node-0"], there.gone["node-1"]) == (1, 1)

    play(tmp_path, story)


@pytest.mark.slow
def test_what_somebody_else_restarted_meanwhile_is_not_restarted_again(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        def meanwhile(nodes: Sequence[str]) -> None:
            if nodes == ("node-1",):
                (pod,) = (one for one in there.fake.api.store.all("pods", PLACE) if one["spec"]["nodeName"] == "node-2")
                there.fake.terminate(pod, 0)

        state = await Driver(there, hands=Hands(meanwhile=meanwhile)).run()
        assert dict(there.gone) == dict.fromkeys(("node-0", "node-1", "node-2"), 1)
        assert verdict(state.turns) == "inconclusive", "nobody measured it"
        (other,) = (one for one in state.turns if one.node == "node-2")
        assert (other.unseen, other.verdict) == (True, "inconclusive")

    play(tmp_path, story)


def test_two_at_once_are_refused_by_name_and_a_driver_that_was_displaced_does_nothing_more(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        taken: list[Rollout] = []

        async def other() -> None:
            async with there.api() as api:
                found = await record.read_record(api)
                assert found is not None
                life, _ = await record.life(api, found)
                assert life == "alive"
                mine = RolloutRecord(api)
                await mine.claim(found)
                taken.append(mine.state)

        class Overtaken(Hands):
            async def around(self, nodes: Any, work: Any, *, unseen: bool) -> Any:
                await other()
                return await super().around(nodes, work, unseen=unseen)

        with pytest.raises(Displaced, match="took this rollout over"):
            await Driver(there, hands=Overtaken()).run()
        assert dict(there.gone) == {}, "its write was refused before anything was deleted"
        state = await Driver(there).run()
        assert state.phase == "ended"
        assert dict(there.gone) == dict.fromkeys(("node-0", "node-1", "node-2"), 1)

    play(tmp_path, story)


def test_of_two_that_begin_at_the_same_time_one_is_refused(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        async with there.api() as api:
            from hitless.survey.cni import survey_cluster

            state, _ = await preconditions.new(api, await survey_cluster(api), RESTART, RolloutChoices())
            first, second = RolloutRecord(api), RolloutRecord(api)
            ended = await asyncio.gather(first.begin(state, None), second.begin(state, None), return_exceptions=True)
            assert sorted(type(one).__name__ for one in ended) == ["Displaced", "NoneType"]
            found = await record.read_record(api)
            assert found is not None
            claimed = await asyncio.gather(*(RolloutRecord(api).claim(found) for _ in range(3)), return_exceptions=True)
            assert sorted(type(one).__name__ for one in claimed) == ["Displaced", "Displaced", "NoneType"]

    play(tmp_path, story, 2)


@pytest.mark.slow
def test_answers_that_are_lost_and_a_label_that_somebody_adds_disturb_nothing(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        def meanwhile(nodes: Sequence[str]) -> None:
            there.fake.api.faults.cut(0.05)
            store = there.fake.api.store
            store.change(
                "configmaps", record.PLACE, record.NAME, lambda one: one["metadata"]["labels"].update(team="net")
            )

        there.fake.api.faults.lose(1)
        state = await Driver(there, hands=Hands(meanwhile=meanwhile)).run()
        assert there.fake.api.faults.lost == 1
        assert (state.phase, verdict(state.turns)) == ("ended", "pass")
        assert dict(there.gone) == dict.fromkeys(("node-0", "node-1", "node-2"), 1)

    play(tmp_path, story)


def test_a_window_that_closes_ends_the_node_and_begins_no_other(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        open_ = {"node-1"}
        driver = Driver(there, permit=lambda nodes: "" if open_ >= set(nodes) else "no maintenance window is open")
        driver.hands.meanwhile = lambda nodes: open_.clear()
        state = await driver.run()
        assert dict(there.gone) == {"node-1": 1}
        assert state.stopped.startswith("no maintenance window is open; go on with hitless rollout resume in a window")

    play(tmp_path, story)


@pytest.mark.slow
def test_a_drill_that_began_on_the_next_node_is_waited_for_and_told(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        asked: list[tuple[str, ...]] = []

        async def others(nodes: Sequence[str]) -> str:
            asked.append(tuple(nodes))
            return (
                "another drill, x, is at work on node-2" if nodes == ["node-2"] and asked.count(("node-2",)) < 4 else ""
            )

        state = await Driver(there, others=others).run()
        assert state.phase == "ended", "it went away in time"

        async def always(nodes: Sequence[str]) -> str:
            return "another drill, x, is at work on node-1"

        state = await Driver(there, RESTART, RolloutChoices(patience=0.3), others=always).run()
        assert state.stopped.startswith("another drill, x, is at work on node-1; nothing was done to node-1")
        assert dict(there.gone) == dict.fromkeys(("node-0", "node-1", "node-2"), 1)

    play(tmp_path, story)


def test_what_cannot_be_told_stops_it_unless_that_is_accepted(tmp_path: Path) -> None:
    doubt = StepOutcome("inconclusive", 1000, 0, ("the prober was late",), clean=True)

    async def story(there: Place) -> None:
        state = await Driver(there, hands=Hands({"node-1": doubt})).run()
        assert "it is not known what that cost: node-1: the prober was late" in state.stopped
        there.fake.api.store.remove("configmaps", record.PLACE, record.NAME)
        there.change_set(lambda one: one["metadata"]["annotations"].pop("hitless.dev/rollout"))
        driver = Driver(there, RESTART, RolloutChoices(accept_inconclusive=True), hands=Hands({"node-1": doubt}))
        state = await driver.run()
        assert (state.phase, verdict(state.turns)) == ("ended", "inconclusive")

    play(tmp_path, story)


def test_so_many_steps_as_were_asked_for(tmp_path: Path) -> None:
    async def story(there: Place) -> None:
        state = await Driver(there, RESTART, most=1).run()
        assert dict(there.gone) == {"node-1": 1}
        assert state.stopped.startswith("1 steps were asked for")

    play(tmp_path, story)


def node(name: str, zone: str = "", control: bool = False) -> Node:
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    labels |= {"node-role.kubernetes.io/control-plane": ""} if control else {}
    return Node(metadata=Meta(name=name, labels=labels), status=NodeStatus())


def test_zones_come_one_after_another_control_planes_last_and_the_first_node_alone() -> None:
    nodes = [
        node("c", "z2", True),
        node("a", "z2"),
        node("b", "z1", True),
        *(node(f"w{n}", "z1") for n in range(4)),
        node("n"),
    ]
    turns = node_order.ordered(nodes, RolloutChoices(zones=("z2",), first=("w3",)))
    assert [one.node for one in turns] == ["w3", "a", "c", "n", "w0", "w1", "w2", "b"]
    steps = [[one.node for one in step] for step in node_order.steps(turns, 2)]
    assert steps == [["w3"], ["a", "c"], ["n"], ["w0", "w1"], ["w2", "b"]]
    assert [[one.node for one in step] for step in node_order.steps(turns, 1)] == [[one.node] for one in turns]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["flannel=x"], "there is no container 'flannel' (expected calico-node, kube-flannel)"),
        (["kube-flannel"], "names no image"),
        ([f"kube-flannel={FORMER}"], "nothing would change"),
        (["kube-flannel=a", "kube-flannel=b"], "was named twice"),
    ],
)
def test_an_image_that_cannot_be_meant_is_refused(tmp_path: Path, words: list[str], says: str) -> None:
    async def story(there: Place) -> None:
        from hitless.survey.cni import survey_cluster

        async with there.api() as api:
            daemon_set = (await survey_cluster(api)).cni.daemon_set
            assert daemon_set is not None
            with pytest.raises(InputError) as error:
                preconditions.image(daemon_set, words)
            assert says in str(error.value)

    play(tmp_path, story, 1)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "is not a mapping"),
        ({"spec": {"template": {"spec": {}}, "updateStrategy": {}}}, "changes spec.updateStrategy too"),
        ({"kind": "Pod", "spec": {}}, "has the field kind"),
        ({"spec": {"template": {}}}, "changes nothing"),
        ({"spec": []}, "is not a mapping"),
    ],
)
def test_a_patch_of_anything_but_the_template_is_refused(document: Any, says: str) -> None:
    with pytest.raises(InputError) as error:
        preconditions.patch(document, "file.yaml")
    assert says in str(error.value)
    assert str(error.value).startswith("file.yaml: ")


def test_a_state_that_somebody_edited_is_refused_with_its_field() -> None:
    state = Rollout(
        identity="x",
        namespace=PLACE,
        name=NAME,
        uid="u",
        change=RESTART,
        choices=RolloutChoices(),
        generation=1,
        turns=(NodeTurn("a"),),
    )
    assert read(text(state), "here") == state
    assert '"change":{"kind":"restart","words":"restart"' in text(state)  # the field's name in stored records
    for broken, says in (
        (text(state).replace('"generation":1', '"generation":"one"'), "$.generation"),
        (text(state).replace('"schema":1', '"schema":2'), "schema 2"),
        (text(state).replace('{"node":"a"}', '{"node":"a"},{"node":"a"}'), "names a node twice"),
        ("", "not understood"),
    ):
        with pytest.raises(InputError) as error:
            read(broken, "here")
        assert says in str(error.value)
