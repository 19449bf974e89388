"""The agent's loop in virtual time: repair, retries, fights, reloads, healing, what others' rules do, and the end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest
from tests.contract.start_states import NETWORKS, our_text, snapshot
from tests.unit.agent.virtual import Agent, Time

from hitless.agent.reconciliation import plan_pass
from hitless.errors import KernelError, MissingError, ProgramError
from hitless.kernel.conntrack import Entry
from hitless.kernel.iptables import LockBusy
from hitless.model.families import Backend, Family
from hitless.model.rules import Ruleset
from hitless.plan import PlannedTransaction
from hitless.testing.fake_node import FakeNode

V4 = Family.IPV4
WANTED = snapshot(V4)
FLUSH = "*nat\n-F FLANNEL-POSTRTG\nCOMMIT\n"
FOREIGN = "*filter\n-I FORWARD 1 -s 10.42.0.0/16 -j DROP\nCOMMIT\n"


def started(backend: Backend = Backend.NFT, *, whole: bool = False) -> Agent:
    node = FakeNode()
    if whole:
        for text in our_text(backend, V4):
            node.write(backend, V4, text)
    agent = Agent(node, Time(), WANTED, backend=backend)
    agent.turn()
    return agent


def whole(agent: Agent, backend: Backend = Backend.NFT) -> bool:
    return not plan_pass(agent.node, WANTED, backend).transactions


@pytest.mark.parametrize("backend", list(Backend))
def test_an_empty_node_gets_its_rules_and_is_ready(backend: Backend) -> None:
    agent = started(backend)
    assert whole(agent, backend)
    assert agent.ready()
    assert [one["backend"] for one in agent.events("ready")] == [backend.value]
    assert agent.metrics.value("hitless_agent_passes_total") == 1


def test_a_whole_node_is_not_written_to() -> None:
    agent = started(whole=True)
    commits = agent.node.commits
    agent.sleep(300.0)
    assert agent.node.commits == commits
    assert agent.metrics.value("hitless_agent_passes_total") == pytest.approx(61, abs=2)
    assert agent.metrics.value("hitless_agent_commands_total") == 0


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_damage_is_repaired_when_its_event_arrives_and_reported_once_with_its_writer(backend: Backend) -> None:
    agent = started(backend)
    agent.deliver()
    agent.sleep(6.0)
    agent.node.other(backend, V4, FLUSH, name="firewalld", pid=9)
    agent.time.now += 0.05
    agent.deliver()
    agent.turn()
    assert whole(agent, backend)
    (repaired,) = agent.events("repaired")
    assert repaired["writer"] == "firewalld (pid 9)"
    if backend is Backend.NFT:
        assert repaired["milliseconds"] == 0.0  # from the event's arrival
    (gap,) = agent.events("gap")
    assert gap["writer"] == "firewalld (pid 9)" and gap["opened_by"] == {"pid": 9, "comm": "firewalld"}
    assert gap["end"] - gap["begin"] == pytest.approx(gap["milliseconds"] * 1e6, abs=10_000)
    assert gap["end"] == pytest.approx(agent.time.wall() * 1e9, abs=1e8)
    assert (gap["networks"], gap["reason_code"], gap["code"]) == ([str(NETWORKS[V4].network)], "untranslated", "gap")
    assert "open" not in gap  # it is repaired
    agent.sleep(20.0)
    assert len(agent.events("repaired")) == 1
    assert agent.metrics.total("hitless_agent_repairs_total") == 1


def test_a_gap_that_takes_several_tries_is_one_and_no_fight() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    agent.node.fail_next(ProgramError(("iptables-nft-restore",), 2, "refused"), 5)
    agent.node.other(Backend.NFT, V4, FLUSH, name="firewalld", pid=9)
    agent.deliver()
    agent.sleep(30.0)
    assert whole(agent)
    first, last = agent.events("gap")
    assert (first.get("open"), last.get("open")) == (True, None) and first["begin"] == last["begin"]
    assert agent.metrics.total("hitless_agent_gaps_total") == 1
    lasted = (last["end"] - last["begin"]) / 1e9
    assert lasted > 1.0 and agent.metrics.total("hitless_agent_gap_seconds_total") == pytest.approx(lasted, abs=1e-5)
    assert not agent.events("fight")


def test_a_gap_that_another_program_repairs_is_over() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    agent.node.fail_next(ProgramError(("iptables-nft-restore",), 2, "refused"), 9)
    agent.node.other(Backend.NFT, V4, FLUSH, name="firewalld", pid=9)
    agent.deliver()
    agent.turn()
    assert agent.metrics.total("hitless_agent_gaps_total") == 0  # it goes on
    agent.node.heal_faults()
    for one in plan_pass(agent.node, WANTED, Backend.NFT).transactions:
        agent.node.other(Backend.NFT, V4, one.text, name="flanneld", pid=10)
    agent.sleep(6.0)
    assert [gap.get("open") for gap in agent.events("gap")] == [True, None]
    assert agent.metrics.total("hitless_agent_gaps_total") == 1 and not agent.events("repaired")


def test_damage_without_an_event_is_found_by_the_next_comparison() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    agent.node.other(Backend.NFT, V4, FLUSH)
    agent.node.events.waiting.clear()
    agent.sleep(6.0)
    assert whole(agent)
    (repaired,) = agent.events("repaired")
    assert repaired["writer"] == "unknown"


def test_damage_whose_event_is_read_after_the_pass_lasts_as_long_as_the_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    run = agent.time.run

    async def late(action: Callable[[], Any]) -> Any:
        result = await run(action)
        agent.time.now += 0.01  # until the event loop has its turn
        return result

    agent.time.cost = 0.02
    monkeypatch.setattr(agent.time, "run", late)
    agent.node.other(Backend.NFT, V4, FLUSH, name="fw", pid=9)
    agent.sleep(6.0)  # the event arrives only now: the pass was due anyway
    (gap,) = agent.events("gap")
    assert gap["milliseconds"] >= 0 and gap["begin"] <= gap["end"] and gap["opened_by"]["pid"] == 9
    assert agent.events("repaired")[0]["milliseconds"] >= 0
    assert agent.metrics.total("hitless_agent_gap_seconds_total") >= 0
    assert agent.metrics.value("hitless_agent_repair_seconds_sum") >= 0


def test_lost_events_request_a_pass() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    agent.node.other(Backend.NFT, V4, FLUSH)
    agent.node.events.lose()
    agent.deliver()
    agent.turn()
    assert whole(agent)
    assert "dropped events" in agent.events("repaired")[0]["writer"]
    agent.sleep(6.0)
    assert agent.metrics.value("hitless_agent_lost_events_total") == 1


def test_a_busy_lock_is_retried_soon_and_reported() -> None:
    node = FakeNode()
    node.fail_next(LockBusy(("iptables-restore",), 4, "another app is holding the lock"), 6)
    agent = Agent(node, Time(), WANTED, backend=Backend.NFT)
    agent.turn()
    assert not agent.ready()
    assert any("xtables lock" in reason for reason in agent.health.reasons(agent.time.now))
    agent.sleep(4.0)  # six tries, half a second apart
    assert whole(agent)
    assert agent.ready()
    assert {one["kind"] for one in agent.events("not applied")} == {"lock"}


def test_what_fails_for_good_is_tried_more_and_more_seldom_and_events_do_not_shorten_that() -> None:
    node = FakeNode()
    node.fail_next(ProgramError(("iptables-restore",), 2, "no chain, target or match"), 10_000)
    agent = Agent(node, Time(), WANTED, backend=Backend.NFT)
    for _ in range(600):
        agent.loop.rules_changed()
        agent.sleep(0.1)
    passes = agent.metrics.value("hitless_agent_passes_total")
    assert 8 <= passes <= 14
    node.heal_faults()
    agent.sleep(11.0)
    assert whole(agent)
    assert agent.ready()


def test_a_reading_that_fails_makes_the_node_not_ready_until_one_works() -> None:
    agent = started()
    agent.deliver()
    agent.node.fail_reads(KernelError("read", "chain"), 2)
    agent.loop.rules_changed()
    agent.turn()
    assert not agent.ready()
    agent.sleep(3.0)
    assert agent.ready()
    assert agent.events("rules not read")


def test_damage_that_a_failed_reading_kept_from_sight_is_reported_all_the_same() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    agent.node.other(Backend.NFT, V4, FLUSH, name="fw", pid=7)
    agent.node.fail_reads(KernelError("read", "chain"))
    agent.deliver()
    agent.turn()
    agent.sleep(2.0)
    assert whole(agent)
    assert [one["writer"] for one in agent.events("repaired")] == ["fw (pid 7)"]


def test_a_fight_is_reported_once_and_slowed_down() -> None:
    agent = started()
    agent.deliver()
    for _ in range(40):
        agent.node.other(Backend.NFT, V4, FLUSH, name="other", pid=5)
        agent.deliver()
        agent.sleep(0.05)
    assert len(agent.events("fight")) == 1
    assert agent.events("repairs slowed down")
    assert agent.health.fighting
    agent.sleep(90.0)
    assert whole(agent)
    assert agent.ready()
    assert not agent.health.fighting


def test_others_rules_make_the_node_not_ready_and_ready_again_and_both_are_logged_once() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    agent.node.other(
        Backend.NFTABLES, V4, "add table ip fw\nadd chain ip fw f { type filter hook forward priority 5 ; }\n"
    )
    agent.node.other(Backend.NFTABLES, V4, "add rule ip fw f ip saddr 10.42.0.0/16 accept\n")
    agent.node.other(Backend.NFT, V4, FOREIGN)
    agent.deliver()
    agent.sleep(1.0)
    assert not agent.ready()
    assert any("dropped" in reason for reason in agent.health.reasons(agent.time.now))
    agent.sleep(30.0)
    assert len(agent.events("not carried")) == 1
    agent.node.other(Backend.NFT, V4, "*filter\n-D FORWARD 1\nCOMMIT\n")
    agent.deliver()
    agent.sleep(1.0)
    assert agent.ready()
    assert len(agent.events("carried again")) == 1


def test_after_a_failed_evaluation_the_next_one_succeeds() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.5)
    agent.node.fail_reads(KernelError("read", "the rules"), 2)
    agent.sleep(1.2)
    agent.sleep(3.0)
    assert agent.ready()
    assert len(agent.events("rules not read")) == 1


def test_after_a_flush_a_separate_table_carries_the_pods_until_the_others_are_left_alone() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    agent.node.other(Backend.NFT, V4, "*nat\n-F POSTROUTING\n-F FLANNEL-POSTRTG\nCOMMIT\n")
    agent.node.other(Backend.NFT, V4, "*filter\n-F FORWARD\n-F FLANNEL-FWD\nCOMMIT\n")
    agent.deliver()
    agent.turn()
    assert not whole(agent)
    assert not agent.ready()
    assert any("a separate table masquerades" in reason for reason in agent.health.reasons(agent.time.now))
    agent.sleep(3.0)
    assert whole(agent)
    assert agent.ready()


def test_after_a_repair_flows_are_freed_at_once_and_twice_again() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    before = agent.node.flows.dumps
    agent.node.other(Backend.NFT, V4, FLUSH)
    agent.deliver()
    agent.sleep(1.0)
    assert agent.node.flows.dumps == before + 3


def test_flows_are_freed_of_the_family_that_was_repaired_and_of_no_other() -> None:
    agent = Agent(FakeNode(), Time(), snapshot(*Family), backend=Backend.NFT)
    agent.turn()
    agent.deliver()
    agent.sleep(6.0)
    before = agent.node.flows.dumps  # one for each family
    agent.node.other(Backend.NFT, Family.IPV6, FLUSH)
    agent.deliver()
    agent.sleep(1.0)
    assert agent.node.flows.dumps == before + 3


@pytest.mark.parametrize("running", [False, True], ids=["at the start", "after damage"])
@pytest.mark.parametrize("refused", list(Family))
def test_flows_of_both_families_are_freed_after_a_repair_in_two_passes(refused: Family, running: bool) -> None:
    agent, healed = Agent(FakeNode(), Time(), snapshot(*Family), backend=Backend.NFT), set[Family]()
    if running:
        agent.turn()
        agent.deliver()
        agent.sleep(6.0)
        for family in Family:
            agent.node.other(Backend.NFT, family, FLUSH)
        agent.deliver()
    apply, dump, failures = agent.node.apply, agent.node.flows.dump, [1]

    def refuses_once(transaction: PlannedTransaction) -> None:
        if transaction.family is refused and failures:
            failures.pop()
            raise LockBusy(("iptables-restore",), 4, "another app is holding the lock")
        apply(transaction)

    def recorded(family: Family, *, without: int = 0) -> Iterator[Entry]:
        healed.add(family)
        return dump(family, without=without)

    agent.node.apply, agent.node.flows.dump = refuses_once, recorded  # type: ignore[method-assign]
    agent.sleep(3.0)
    assert not failures
    assert not plan_pass(agent.node, snapshot(*Family), Backend.NFT).transactions
    assert healed == set(Family)


@pytest.mark.parametrize("step", [-3600.0, 3600.0], ids=["back", "forward"])
def test_a_gap_lasts_as_long_as_it_lasts_also_when_the_clock_is_set_meanwhile(step: float) -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    agent.node.fail_next(LockBusy(("iptables-restore",), 4, "another app is holding the lock"), 5)
    agent.node.other(Backend.NFT, V4, FLUSH)
    agent.deliver()
    agent.turn()
    (still_open,) = agent.events("gap")
    assert still_open["open"]
    agent.time.since_1970 += step
    agent.sleep(3.0)
    assert whole(agent)
    closed = agent.events("gap")[-1]
    assert 0 < closed["milliseconds"] <= 3000
    assert closed["end"] - closed["begin"] == pytest.approx(closed["milliseconds"] * 1e6, abs=10_000)
    assert closed["end"] == pytest.approx(agent.time.wall() * 1e9, abs=3.1e9)
    seconds = agent.metrics.total("hitless_agent_gap_seconds_total")
    assert seconds == pytest.approx(closed["milliseconds"] / 1e3, abs=1e-5)


def test_a_node_on_which_nothing_changes_is_evaluated_every_half_minute() -> None:
    agent = started(whole=True)
    agent.sleep(60.0)
    everything, judged = agent.node.everything, list[object]()

    def counted(families: Collection[Family]) -> Ruleset:
        judged.append(families)
        return everything(families)

    agent.node.everything = counted  # type: ignore[method-assign]
    agent.sleep(300.0)
    assert 8 <= len(judged) <= 10
    agent.node.other(Backend.NFT, V4, FOREIGN)  # a change is noticed all the same
    agent.deliver()
    agent.sleep(1.5)
    assert not agent.ready()


def test_a_new_configuration_is_taken_up_at_once() -> None:
    agent = started()
    agent.loop.desire(snapshot(*Family), native=False)
    agent.turn()
    assert not plan_pass(agent.node, snapshot(*Family), Backend.NFT).transactions
    agent.loop.desire(snapshot(*Family), native=True)
    assert not agent.events("repaired")


def test_without_a_configuration_nothing_is_done() -> None:
    agent = Agent(FakeNode(), Time(), None)
    agent.sleep(7200.0)
    assert agent.node.commits == 0
    assert not agent.ready()


def test_the_end_changes_nothing() -> None:
    agent = started()
    commits = agent.node.commits
    agent.loop.stop()
    agent.turn()
    assert agent.over
    assert agent.time.ended
    assert agent.node.commits == commits


def test_a_missing_random_fully_is_reported_once() -> None:
    node = FakeNode(random_fully=False)
    agent = Agent(node, Time(), WANTED, backend=Backend.NFT)
    agent.sleep(30.0)
    assert len(agent.events("random-fully unsupported")) == 1
    assert agent.ready()


def test_an_unexpected_error_does_not_end_the_loop() -> None:
    agent = started()
    agent.worker.run_pass = None  # type: ignore[method-assign,assignment]  # a defect
    agent.loop.rules_changed()
    agent.turn()
    assert not agent.ready()
    del agent.worker.run_pass
    agent.sleep(5.0)
    assert agent.ready()


def test_the_backend_is_the_kubelets_unless_the_configuration_says_native() -> None:
    agent = Agent(FakeNode(detected=Backend.LEGACY), Time(), WANTED)
    agent.turn()
    assert whole(agent, Backend.LEGACY)
    agent.sleep(70.0)  # asked again, and no other hint came
    assert [one["backend"] for one in agent.events("backend")] == ["legacy"]
    agent.loop.desire(WANTED, native=True)
    agent.sleep(1.0)
    assert whole(agent, Backend.NFTABLES)
    assert [one["backend"] for one in agent.events("backend")] == ["legacy", "nftables"]


def test_refusals_in_new_legacy_tables_are_reported_after_the_next_comparison() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(32.0)  # the last evaluation that nothing requested has just ended
    assert agent.ready() and agent.node.legacy is None
    agent.node.other(Backend.LEGACY, V4, FOREIGN)
    agent.sleep(6.0)  # a comparison each five seconds
    assert not agent.ready()
    assert agent.events("not carried")


def test_failed_healing_is_reported_and_ends_nothing() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)

    def fails(*_: object, **__: object) -> Iterator[Entry]:
        raise KernelError("read", "connections")

    agent.node.flows.dump = fails  # type: ignore[method-assign]
    agent.node.other(Backend.NFT, V4, FLUSH)
    agent.deliver()
    agent.sleep(1.0)
    assert agent.events("cannot heal")
    assert (
        agent.metrics.value("hitless_agent_errors_total", kind="heal") == 4
    )  # behind the repair, and three times more
    assert agent.ready()


def test_where_nft_is_missing_flushed_rules_are_put_back_at_once() -> None:
    agent = started()
    agent.deliver()
    agent.sleep(6.0)
    apply = agent.node.apply

    def without_nft(transaction: PlannedTransaction) -> None:
        if transaction.backend.native:
            raise MissingError("there is no nft", remedy="install nftables")
        apply(transaction)

    agent.node.apply = without_nft  # type: ignore[method-assign]
    agent.node.other(Backend.NFT, V4, "*nat\n-F POSTROUTING\n-F FLANNEL-POSTRTG\nCOMMIT\n")
    agent.node.other(Backend.NFT, V4, "*filter\n-F FORWARD\n-F FLANNEL-FWD\nCOMMIT\n")
    agent.deliver()
    agent.turn()
    assert whole(agent)
    assert len(agent.events("reload not bridged")) == 1
