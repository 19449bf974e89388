"""The guard's loop in virtual time: order, records, failures, death, and what is due when."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.unit.guard.flannels import NETWORK, flannel_rules, nat
from tests.unit.guard.worlds import CARRIED, LEAKED, Death, Guarded, World

from hitless.errors import HitlessError, KernelError
from hitless.guard.metrics import render
from hitless.guard.primaries import load
from hitless.guard.rule_copy import Unclear
from hitless.guard.running import drive
from hitless.guard.standby_rules import learn
from hitless.guard.standby_table import found_in
from hitless.guard.statements import Statement
from hitless.guard.status import GuardStatus
from hitless.model.events import Writer
from hitless.model.families import Family
from hitless.model.rules import Chain, Drop, Hook, Opaque, Return, Rule, Source, Table
from hitless.observe import LocalPod

V4, V6 = Family.IPV4, Family.IPV6
OFF = Statement(False, "flanneld runs with --ip-masq=false")


def standby(world: World, family: Family) -> tuple[object, ...]:
    """What stands in the kernel for a family."""
    there = found_in(world.ruleset(), family, "eth0")
    return there.standby.chains if there is not None and there.standby is not None else ()


def learned(family: Family) -> tuple[object, ...]:
    return learn(nat(family), family, load("flannel"), uplink="eth0").chains


def begun(world: World, folder: Path, *, observe: bool = False) -> Guarded:
    made = Guarded(world, folder, observe=observe)
    made.loop.begin()
    return made


def flush(world: World, family: Family) -> None:
    world.commit(family, nat(family, chain=()).tables)


def test_it_stands_by_for_both_families_and_says_so(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    assert all(standby(world, family) == learned(family) for family in Family)
    assert [record["type"] for record in made.journal] == ["started", "followed", "followed"]
    assert {f: s["state"] for f, s in made.reporter.status["families"].items()} == {  # type: ignore[attr-defined]
        "ipv4": "standing by", "ipv6": "standing by",
    }  # fmt: skip
    made.run(30)
    assert world.writes == 1, "nothing differs, nothing is written"


def test_a_gap_is_bridged_counted_and_written_with_its_authors(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(5)
    world.at(world.seconds + 1, lambda: flush(world, V4))
    world.at(world.seconds + 1.2, lambda: world.traffic(V4, CARRIED, 7))
    world.at(world.seconds + 1.5, lambda: world.commit(V4, nat(V4).tables, Writer(8, "iptables")))
    made.run(5)
    (gap,) = made.records("gap")
    assert (gap["family"], gap["covered"], gap["carried"]) == ("ipv4", True, 7)
    assert (gap["code"], gap["end"] - gap["begin"]) == ("untranslated", 500_000_000)
    assert (gap["opened_by"]["comm"], gap["closed_by"]["comm"]) == ("flanneld", "iptables")
    assert not made.records("withdrawn")


def test_flows_are_freed_when_a_gap_ends_and_again_a_little_later(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(2)
    flush(world, V4)
    made.run(0.5)
    world.poisoned[V4] = 3
    world.commit(V4, nat(V4).tables)
    made.run(0.05)
    world.poisoned[V4] = 2
    made.run(3)
    assert [(one["flows"], one["after"]) for one in made.records("healed")] == [(3, "gap"), (2, "again")]
    assert made.records("gap")[0]["healed"] == 3
    assert made.reporter.numbers[V4].healed == 5


def test_flows_that_could_not_be_looked_for_when_a_gap_ended_are_freed_a_little_later(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(2)
    world.poisoned[V4], world.failing_reads = 3, 1
    made.loop._healing.heal(made.loop.sides[V4], "gap")
    assert world.poisoned[V4] == 3
    made.run(3)
    assert world.poisoned[V4] == 0 and [one["flows"] for one in made.records("healed")] == [3]


def test_a_long_gap_is_reported_while_it_goes_on_and_at_the_end_of_the_guard(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(2)
    flush(world, V4)
    made.run(15)
    assert [gap["open"] for gap in made.records("gap")] == [True]
    made.loop.end()
    assert [gap["open"] for gap in made.records("gap")] == [True, True]
    assert standby(world, V4) == learned(V4), "the kernel keeps it"


def test_a_guard_that_starts_in_a_gap_learns_from_what_the_last_one_left(tmp_path: Path) -> None:
    world = World()
    begun(world, tmp_path / "a").run(2)
    flush(world, V4)
    writes = world.writes
    made = begun(world, tmp_path / "b")
    assert made.reporter.status["families"]["ipv4"]["state"] == "carrying"  # type: ignore[index]
    assert world.writes == writes, "adopted without a write"
    assert made.records("started")[0]["found"] == "standby for ipv4, ipv6"


def test_masquerading_that_is_switched_off_is_followed_and_comes_back(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(2)
    world.said = OFF
    flush(world, V4)
    made.run(3)
    assert standby(world, V4) == ()
    assert [one["code"] for one in made.records("withdrawn")] == ["switched_off"]
    world.said = None
    made.run(8)
    assert standby(world, V4) == learned(V4)
    assert made.records("followed")[-1]["code"] == "statement_ended"


def test_a_statement_that_whole_rules_contradict_is_of_another_time(tmp_path: Path) -> None:
    world = World(said=OFF)
    heard: list[float] = []

    def stated(spoken: float) -> Statement | None:
        heard.append(spoken)
        return OFF

    world.stated = stated  # type: ignore[method-assign]
    made = begun(world, tmp_path)
    flush(world, V4)
    made.run(3)
    assert heard[0] == 0.0 and heard[-1] == pytest.approx(world.wall() - world.seconds, abs=1)


def test_a_refusal_changes_nothing(tmp_path: Path) -> None:
    odd = (Rule((Opaque("recent"), Return())), *flannel_rules(V6))
    world = World()
    world.others[V6] = nat(V6, chain=odd).tables
    made = Guarded(world, tmp_path)
    with pytest.raises(Unclear, match="nothing was changed"):
        drive(made.loop, lambda: False)
    assert world.writes == 0 and made.journal == []
    assert made.reporter.ended == ""


def test_what_cannot_be_written_at_the_start_ends_the_guard(tmp_path: Path) -> None:
    world = World(failing_writes=1)
    with pytest.raises(KernelError):
        begun(world, tmp_path)


def test_what_cannot_be_written_later_is_tried_again_and_gaps_meanwhile_are_not_covered(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(2)
    world.failing_writes = 3
    more = Rule((Source(NETWORK[V4]), Return()))
    world.commit(V4, nat(V4, chain=(more, *flannel_rules(V4))).tables)
    made.run(0.5)
    assert made.reporter.problem
    assert [line["code"] for line in made.logged if line["level"] == "error"] == ["standby_not_written"]
    made.run(5)
    assert made.reporter.problem == "" and world.failing_writes == 0


def test_a_standby_that_somebody_takes_away_is_back_and_who_it_was_is_named(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(2)
    world.vandal(V4)
    made.run(1)
    assert standby(world, V4) == learned(V4)
    (note,) = made.records("note")
    assert note["text"] == "nft took the standby away; it is back"
    world.vandal(V4)
    flush(world, V4)
    world.commit(V4, nat(V4).tables)
    made.run(1)
    assert made.records("gap")[-1]["covered"] is False


def test_a_leak_lists_its_flows_and_is_healed(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(2)
    world.traffic(V4, LEAKED, 4)
    made.run(2)
    (leak,) = made.records("leak")
    assert (leak["packets"], leak["flows"]) == (4, ["udp 10.42.1.7:2 -> 198.51.100.1:53"])
    assert made.reporter.numbers[V4].leaked == 4


def test_a_standby_that_translates_beside_whole_rules_withdraws_for_good(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(5)
    world.traffic(V4, CARRIED, 5)
    made.run(5)
    (one,) = made.records("withdrawn")
    assert (one["family"], one["code"]) == ("ipv4", "contradicted")
    assert standby(world, V4) == () and standby(world, V6) == learned(V6)
    world.commit(V4, nat(V4, front=(Rule((Source(NETWORK[V4]), Return())),)).tables)
    made.run(60)
    assert standby(world, V4) == ()


def test_forwarding_that_drops_is_reported_and_never_bridged(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(2)
    drop = Table("ip", "filter", {"FORWARD": Chain("FORWARD", (Rule((Drop(),)),), Hook("filter", "forward", 0))})
    world.commit(V4, (*nat(V4).tables, drop))
    made.run(12)
    world.commit(V4, nat(V4).tables)
    made.run(1)
    assert [(one["open"], one["code"]) for one in made.records("forward_gap") if one.get("open")] == [(True, "dropped")]
    assert len(made.records("forward_gap")) == 2 and not made.records("gap")
    world.commit(V4, (*nat(V4).tables, drop))
    made.run(1)
    made.loop.end()
    assert made.records("forward_gap")[-1]["open"] is True


ODD = nat(V4, front=(Rule((Opaque("statistic"), Return())),)).tables
REFUSING = Table("ip", "filter", {"FORWARD": Chain("FORWARD", (Rule((Drop(),)),), Hook("filter", "forward", 0))})


def facts(made: Guarded, family: Family = V4) -> dict[str, Any]:
    """What ``status`` shows of a family."""
    found: dict[str, Any] = made.reporter.status["families"][family.value]  # type: ignore[index]
    return found


def withdrawn(world: World, folder: Path) -> Guarded:
    """A guard that withdrew long ago, as the rules have no exact copy."""
    made = begun(world, folder)
    made.run(2)
    world.commit(V4, ODD)
    made.run(30)
    assert facts(made)["code"] == "withdrawn" and standby(world, V4) == ()
    return made


def test_a_guard_that_withdrew_still_reports_what_becomes_of_forwarding_and_egress(tmp_path: Path) -> None:
    world = World()
    made = withdrawn(world, tmp_path)
    assert facts(made)["doubt"].startswith("10.42.0.0/16: ")
    assert "cannot tell" in {line["event"] for line in made.logged}
    begin = world.now()
    world.commit(V4, (*ODD, REFUSING))
    made.run(15)
    assert (facts(made)["forward_gap_since"], facts(made)["gap_since"]) == (begin, 0)
    assert 'hitless_guard_forward_gap_open{family="ipv4"} 1' in render(made.reporter)
    assert [gap["open"] for gap in made.records("forward_gap")] == [True]
    world.commit(V4, ODD)
    made.run(1)
    ended = made.records("forward_gap")[-1]
    assert (ended["begin"], ended["code"], ended.get("open")) == (begin, "dropped", None)
    assert (facts(made)["forward_gap_since"], facts(made, V6)["forward_gaps"]) == (0, 0)
    assert facts(made)["code"] == "withdrawn" and standby(world, V4) == ()


def test_a_gap_beside_rules_without_an_exact_copy_is_reported_by_the_guard_that_withdrew(tmp_path: Path) -> None:
    world = World()
    made = withdrawn(world, tmp_path)
    front = (Rule((Opaque("statistic"), Return())),)
    begin = world.now()
    world.commit(V4, nat(V4, chain=(), front=front).tables)
    made.run(3)
    assert (facts(made)["gap_since"], facts(made)["code"]) == (begin, "withdrawn")
    text = GuardStatus("unprotected", made.reporter.status).text()
    assert "the primary does not carry pods' new flows since 2023-11-14 22:13:52.000Z, and no standby does" in text
    world.commit(V4, nat(V4, front=front).tables)
    made.run(1)
    (gap,) = made.records("gap")
    assert (gap["begin"], gap["covered"], gap["code"]) == (begin, False, "untranslated")


def test_rules_that_go_after_a_withdrawal_are_a_gap_until_the_agent_says_that_it_masquerades_no_more(
    tmp_path: Path,
) -> None:
    world = World()
    made = withdrawn(world, tmp_path)
    begin = world.now()
    flush(world, V4)
    made.run(3)
    assert (facts(made)["gap_since"], facts(made)["code"]) == (begin, "gap")
    assert 'hitless_guard_gap_open{family="ipv4"} 1' in render(made.reporter)
    world.said = OFF
    made.run(5)
    (gap,) = made.records("gap")
    assert (gap["begin"], gap["covered"]) == (begin, False)
    assert (facts(made)["gap_since"], facts(made)["why_code"]) == (0, "switched_off")
    world.commit(V4, (*nat(V4, chain=()).tables, REFUSING))
    made.run(1)
    assert facts(made)["forward_gap_since"] and not facts(made)["gap_since"]
    world.said = None
    made.run(5)
    assert facts(made)["gap_since"]
    world.commit(V4, nat(V4).tables)
    made.run(2)
    assert standby(world, V4) == learned(V4)
    assert (facts(made)["gap_since"], facts(made)["forward_gap_since"]) == (0, 0)


def test_forwarding_is_watched_while_masquerading_is_switched_off(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    made.run(2)
    world.said = OFF
    flush(world, V4)
    made.run(3)
    world.commit(V4, (*nat(V4, chain=()).tables, REFUSING))
    made.run(3)
    assert facts(made)["forward_gap_since"] and not facts(made)["gap_since"]
    assert facts(made)["code"] == "withdrawn"
    world.commit(V4, nat(V4, chain=()).tables)
    made.run(3)
    assert (len(made.records("forward_gap")), len(made.records("gap"))) == (1, 0)


def test_other_pods_are_asked_about_and_those_that_a_policy_keeps_in_are_counted(tmp_path: Path) -> None:
    world = World(families=(V4,))
    made = begun(world, tmp_path)
    made.run(2)
    exempt = Rule((Source(ip_network("10.42.1.9/32")), Return()))
    world.commit(V4, nat(V4, chain=(exempt, *flannel_rules(V4))).tables)
    world.node = replace(
        world.node, pods=(LocalPod(ip_address("10.42.1.7"), "veth1"), LocalPod(ip_address("10.42.1.9"), "veth2"))
    )
    world.other_pods = {V4}
    made.run(300)
    (partly,) = made.records("partly")
    assert (partly["pods"], partly["pods_not_carried"]) == (2, 1)


def test_lost_events_are_counted_and_a_connection_table_that_cannot_be_read_costs_one_healing(tmp_path: Path) -> None:
    world = World()
    made = begun(world, tmp_path)
    before = made.reporter.counts["lost_events"]
    world.event(lost=True)
    world.failing_reads = 2
    flush(world, V4)
    made.run(1)
    world.commit(V4, nat(V4).tables)
    made.run(5)
    assert made.reporter.counts["lost_events"] == before + 1
    assert any(line["code"] == "flows_not_read" for line in made.logged)
    assert len(made.records("gap")) == 1


def test_a_guard_that_observes_writes_nothing_and_frees_nothing(tmp_path: Path) -> None:
    world = World(poisoned={V4: 3})
    made = begun(world, tmp_path, observe=True)
    made.run(2)
    flush(world, V4)
    made.run(2)
    assert made.reporter.status["families"]["ipv4"]["state"] == "gap"  # type: ignore[index]
    world.commit(V4, nat(V4).tables)
    made.run(2)
    assert (world.writes, world.poisoned[V4]) == (0, 3)
    assert made.records("gap")[0]["covered"] is False
    assert made.records("leak")


def test_rules_that_come_later_are_waited_for(tmp_path: Path) -> None:
    world = World()
    world.others = dict.fromkeys(Family, ())
    made = begun(world, tmp_path)
    assert [line["code"] for line in made.logged if line["event"] == "waiting"] == ["waiting"]
    world.at(3, lambda: world.commit(V4, nat(V4).tables))
    made.run(5)
    assert standby(world, V4) == learned(V4)


def test_it_ends_in_order_when_it_is_asked_to(tmp_path: Path) -> None:
    world, readied = World(), []
    made = Guarded(world, tmp_path)
    drive(made.loop, lambda: world.seconds > 5, lambda: readied.append(world.seconds))
    assert readied == [0.0]
    assert not (tmp_path / "state.json").exists()
    assert made.logged[-1]["code"] == "guard_stopped"
    assert standby(world, V4) == learned(V4)


def test_a_loop_that_fails_leaves_behind_why(tmp_path: Path) -> None:
    world = World()
    made = Guarded(world, tmp_path)

    def broken() -> None:
        raise ValueError("unheard of")

    world.at(2, broken)
    with pytest.raises(HitlessError, match="unheard of"):
        drive(made.loop, lambda: False)
    assert "unheard of" in (tmp_path / "state.json").read_text()


@pytest.mark.parametrize("call", range(1, 40, 3))
def test_death_at_any_call_leaves_what_stood_and_the_next_guard_goes_on(call: int, tmp_path: Path) -> None:
    world = World()
    world.die_at = call
    world.at(1, lambda: flush(world, V4))
    world.at(2, lambda: world.commit(V4, nat(V4).tables))
    made = Guarded(world, tmp_path / "a")
    with pytest.raises(Death):
        made.loop.begin()
        made.run(30)
        raise Death
    before = dict(world.written)
    again = begun(world, tmp_path / "b")
    if before:
        assert world.written.keys() == set(Family)
    again.run(15)
    assert all(standby(world, family) == learned(family) for family in Family)
