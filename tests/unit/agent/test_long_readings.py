"""While the rules of all programs are read, which takes seconds, ours are repaired and /readyz reports what is
unknown."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NoReturn

import pytest
from tests.contract.start_states import our_text, snapshot
from tests.unit.agent.virtual import Agent, Time

from hitless.agent import runtime as runtime_module
from hitless.agent.health import UNREAD
from hitless.agent.pages import page
from hitless.agent.reconciliation import plan_pass
from hitless.agent.runtime import AsyncRuntime
from hitless.errors import KernelError
from hitless.model.families import Backend, Family
from hitless.model.rules import Ruleset
from hitless.testing.fake_node import FakeNode

V4 = Family.IPV4
WANTED = snapshot(V4)
FLUSH = "*nat\n-F FLANNEL-POSTRTG\nCOMMIT\n"
DROP = "*filter\n-I FORWARD 1 -s 10.42.0.0/16 -j DROP\nCOMMIT\n"
READING = 3.0


def started(*, before: tuple[str, ...] = (), reading: float = READING) -> Agent:
    """On a node that has our rules already, and the rules ``before`` of another program."""
    node, time = FakeNode(), Time()
    for text in (*our_text(Backend.NFT, V4), *before):
        node.write(Backend.NFT, V4, text)
    time.reading = reading
    agent = Agent(node, time, WANTED, backend=Backend.NFT)
    agent.turn()
    return agent


def whole(agent: Agent) -> bool:
    return not plan_pass(agent.node, WANTED, Backend.NFT).transactions


def readyz(agent: Agent) -> tuple[int, list[str]]:
    """The status of /readyz, and its ``cannot_tell``."""
    answer = page("/readyz", agent.health, agent.metrics, agent.time.now)
    return answer.status, json.loads(answer.text)["cannot_tell"]


def flushed(agent: Agent) -> None:
    """Our rules are flushed, the event arrives, and the loop turns without time going on."""
    agent.node.other(Backend.NFT, V4, FLUSH, name="firewalld", pid=9)
    agent.deliver()
    agent.turn()


def test_the_node_is_ready_before_all_rules_are_read_and_readyz_lists_what_is_unknown() -> None:
    agent = started()
    assert len(agent.events("ready")) == 1
    assert readyz(agent) == (200, [f"ipv4: {UNREAD}"])
    agent.sleep(READING + 0.1)
    assert readyz(agent) == (200, [])


def test_changes_by_others_are_noticed_soon_also_after_a_long_first_read() -> None:
    agent = started()
    agent.sleep(READING + 0.1)
    agent.time.reading = 0.0
    chain = "add table ip fw\nadd chain ip fw f { type filter hook forward priority 5 ; }\n"
    agent.node.other(Backend.NFTABLES, V4, f"{chain}add rule ip fw f ip saddr 10.42.0.0/16 drop\n")
    agent.deliver()
    agent.sleep(1.5)
    assert readyz(agent)[0] == 503


def test_a_failed_evaluation_at_the_start_leaves_the_node_ready() -> None:
    node, time = FakeNode(), Time()
    time.reading = READING

    def fails(_: object) -> NoReturn:
        raise KernelError("read", "the chains")

    node.egress = fails  # type: ignore[method-assign,assignment]
    agent = Agent(node, time, WANTED, backend=Backend.NFT)
    agent.turn()
    status, why = readyz(agent)
    assert status == 200
    assert "the chains" in why[0]
    agent.sleep(READING + 0.1)
    assert readyz(agent) == (200, [])


def test_a_drop_in_front_of_our_rules_is_known_before_all_rules_are_read() -> None:
    agent = started(before=(DROP,))
    assert not agent.events("ready")
    assert readyz(agent) == (503, [])
    agent.sleep(3 * READING)
    assert readyz(agent)[0] == 503
    assert len(agent.events("not carried")) == 1


@pytest.mark.parametrize("after", [0.5, 60.0], ids=["while they are read first", "while they are read again"])
def test_damage_is_repaired_at_once_while_all_rules_are_read(after: float) -> None:
    agent = started()
    agent.sleep(after)
    flushed(agent)  # the evaluation that begins after this repair takes three seconds
    assert whole(agent)
    for _ in range(5):
        assert agent.time.begun, "nothing is being read"
        agent.sleep(0.5)
        flushed(agent)
        assert whole(agent)
    assert [one["milliseconds"] for one in agent.events("repaired")] == [0.0] * 6
    assert readyz(agent)[0] == 200


def test_behind_a_repair_no_other_rules_are_read_before_the_next_damage_can_be_repaired() -> None:
    agent = started()
    agent.sleep(0.5)
    egress, read = agent.node.egress, list[object]()

    def counted(families: Collection[Family]) -> Ruleset:
        read.append(families)
        return egress(families)

    agent.node.egress = counted  # type: ignore[method-assign]
    flushed(agent)
    assert whole(agent) and not read
    agent.sleep(6.0)
    assert readyz(agent) == (200, [])


def test_a_result_from_before_a_repair_does_not_report_pods_as_cut_off() -> None:
    agent = started()
    agent.sleep(10.0)
    while agent.time.begun:
        agent.sleep(0.1)
    agent.node.other(Backend.NFT, V4, FLUSH)
    agent.loop.foreign_rules_changed()
    while not agent.time.begun:  # the evaluation begins before the event of the damage arrives
        agent.sleep(0.01)
    agent.deliver()
    agent.turn()
    assert whole(agent)
    for _ in range(100):
        assert readyz(agent)[0] == 200
        agent.sleep(0.1)
    assert not agent.events("not carried")


def test_a_check_whose_result_waits_for_a_long_pass_does_not_delay_the_next_check() -> None:
    agent = started(reading=0.002)
    agent.deliver()
    agent.sleep(40.0)  # the next evaluation that nothing requests is not due for a while
    while agent.time.begun:
        agent.sleep(0.001)
    while not agent.time.begun:
        agent.sleep(0.001)
    agent.loop.rules_changed()
    agent.time.cost = 5.0  # the xtables lock is busy
    agent.turn()
    agent.time.cost = 0.0
    agent.node.other(Backend.NFT, V4, DROP)
    agent.node.events.waiting.clear()
    agent.sleep(2.5)  # a check each second
    assert readyz(agent)[0] == 503


def test_a_cut_off_by_others_is_reported_also_while_our_rules_are_undone_all_the_time() -> None:
    agent = started()
    agent.sleep(10.0)
    agent.node.other(Backend.NFT, V4, DROP)
    for _ in range(30):
        flushed(agent)
        agent.sleep(1.0)
    assert readyz(agent)[0] == 503
    assert any("dropped" in reason for reason in agent.health.reasons(agent.time.now))


def test_a_failed_reading_means_cannot_tell_and_leaves_the_node_ready() -> None:
    agent = started(reading=0.0)
    agent.sleep(6.5)

    def fails(_: object) -> bool:
        raise KernelError("read", "the rules")

    agent.node.changed = fails  # type: ignore[method-assign,assignment]
    agent.sleep(1.0)
    del agent.node.changed
    status, why = readyz(agent)
    assert status == 200
    assert "the rules" in why[0]
    assert len(agent.events("rules not read")) == 1
    agent.sleep(2.0)
    assert readyz(agent) == (200, [])


def test_a_long_second_read_is_reported() -> None:
    agent = started(reading=8.0)
    agent.sleep(9.0)
    flushed(agent)
    agent.sleep(5.0)
    status, why = readyz(agent)
    assert status == 200
    assert [one.partition(" for ")[0] for one in why] == ["rules: being read again"]


def test_the_end_does_not_wait_for_a_reading() -> None:
    import asyncio
    import threading

    async def ends() -> list[str]:
        runtime, go, done = AsyncRuntime(), threading.Event(), list[str]()
        runtime.begin(go.wait)
        await runtime.end(lambda: done.append("kernel"), lambda: done.append("judge"))
        go.set()
        return done

    assert asyncio.run(ends()) == ["kernel"]


@pytest.mark.parametrize("patience", [30.0, 0.01], ids=["a short call", "one that waits for a lock"])
def test_a_long_reading_gives_way_to_the_thread_that_repairs_but_not_for_ever(
    patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio
    import threading

    monkeypatch.setattr(runtime_module, "_GIVES_WAY", patience)

    async def order() -> list[str]:
        runtime, repairs, go, done = AsyncRuntime(), threading.Event(), threading.Event(), list[str]()

        def repair() -> None:
            repairs.set()
            go.wait()
            done.append("repaired")

        def read() -> None:
            runtime.give_way()
            done.append("read")
            go.set()

        repairing = asyncio.ensure_future(runtime.run(repair))
        assert await asyncio.to_thread(repairs.wait, 60.0)
        reading = runtime.begin(read)
        if patience > 1:
            await asyncio.sleep(0.05)  # for a reading that gives no way
            go.set()
        await repairing
        while not reading.done():
            await runtime.wait(60.0)
        await runtime.end(lambda: None, lambda: None)
        return done

    assert asyncio.run(order()) == (["repaired", "read"] if patience > 1 else ["read", "repaired"])


def test_the_judging_thread_answers_wakes_and_ends() -> None:
    import asyncio

    async def asks() -> tuple[int, list[str]]:
        runtime, done = AsyncRuntime(), list[str]()
        answer = runtime.begin(lambda: 7)
        await runtime.wait(60.0)
        failed = runtime.begin(lambda: 1 // 0)
        await runtime.wait(60.0)
        assert isinstance(failed.exception(), ZeroDivisionError)
        await runtime.end(lambda: done.append("kernel"), lambda: done.append("judge"))
        return answer.result(), done

    answer, done = asyncio.run(asks())
    assert answer == 7
    assert sorted(done) == ["judge", "kernel"]
