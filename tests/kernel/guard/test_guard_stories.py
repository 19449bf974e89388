"""What the guard is for: restarts, absences, flushes; nothing lost. Real rules, real packets."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from tests.kernel.guard.guarded import HANG, World, nft, tables, unhurt, until, world

from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel


def restart(made: World, agent: object, name: str, number: int) -> object:
    made.end(agent, number)  # type: ignore[arg-type]
    return made.agent(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "name"),
    [
        (Backend.NFT, "flannel-0.28"),
        (Backend.NFT, "flannel-0.28-canal"),
        (Backend.LEGACY, "flannel-0.28"),
        (Backend.LEGACY, "flannel-0.26"),
        (Backend.NFTABLES, "flannel-0.26"),
    ],
)
def test_restarts_of_the_agent_lose_nothing(tmp_path: Path, backend: Backend, name: str) -> None:
    with world(tmp_path, backend=backend, family="dual") as made:
        agent = made.agent(name)
        made.guard()
        for family in Family:
            made.until_state("standing by", family)
        with made.probing() as told:
            for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
                made.end(agent, number)
                agent = made.agent(name)
        assert unhurt(told), (told, made.records("gap"))
        until(lambda: len(made.records("gap")) >= 2, "gaps in the journal")
        gaps = made.records("gap")
        assert all(gap["covered"] for gap in gaps)
        assert sum(gap.get("carried", 0) for gap in gaps) > 0, gaps  # flows that would have been lost


def test_the_same_restart_without_a_guard_loses_some(tmp_path: Path) -> None:
    with world(tmp_path, backend=Backend.LEGACY) as made:
        agent = made.agent("flannel-0.26")
        with made.probing(timeout=1.0) as told:
            made.end(agent)
            until(lambda: made.attempts()["lost"], "a loss")  # however long the machine keeps the prober waiting
            made.agent("flannel-0.26")
        assert told["lost"] > 0


def test_an_agent_that_stays_away_is_bridged_for_as_long_as_it_does(tmp_path: Path) -> None:
    with world(tmp_path, backend=Backend.NFTABLES) as made:
        agent = made.agent("flannel-0.26")
        made.guard()
        made.until_state("standing by")
        with made.probing() as told:
            made.end(agent)
            made.until_state("carrying")
            time.sleep(3)  # bench/guard.py stays away for 60 s
            assert made.side()["state"] == "carrying"
            made.agent("flannel-0.26")
            made.until_state("standing by")
        assert unhurt(told), told
        (gap,) = made.ended("gap")
        assert gap["end"] - gap["begin"] > 3e9
        assert gap["opened_by"]["comm"] == "nft"


@pytest.mark.parametrize("damage", ["iptables -F", "nft flush ruleset", "jump deleted"])
def test_foreign_flushes_are_bridged_and_named(tmp_path: Path, damage: str) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        made.guard()
        made.until_state("standing by")
        with made.probing() as told:
            if damage == "iptables -F":
                made.on_node("iptables-nft", "-t", "nat", "-F")
            elif damage == "nft flush ruleset":
                made.on_node("nft", "flush", "ruleset")
            else:
                made.on_node(
                    *["iptables-nft", "-t", "nat", "-D", "POSTROUTING", "-m", "comment", "--comment"], "flanneld masq",
                    *["-j", "FLANNEL-POSTRTG"],
                )  # fmt: skip
            made.until_state("carrying")
            until(lambda: made.counters()["carried"].packets, "flows being carried")
        assert unhurt(told), told
        assert "nft" in made.log()


def test_in_steady_state_the_counters_stand_still(tmp_path: Path) -> None:
    with world(tmp_path, pods=2, family="dual") as made:
        made.agent("flannel-0.28")
        made.guard()
        made.until_state("standing by", Family.IPV6)
        other = made.node.pods[1]
        with made.probing() as told:
            for family in Family:
                address = str(other.addresses[family])
                made.on_node("nsenter", f"--net={made.pod.namespace.net}", "ping", "-c3", "-i0.2", address)
            time.sleep(2.5)
        assert unhurt(told), told
        for family in Family:
            assert {count.packets for count in made.counters(family).values()} == {0}
        assert made.records("withdrawn") == []


def test_a_restart_of_the_guard_writes_no_rule(tmp_path: Path) -> None:
    with world(tmp_path, family="dual") as made:
        made.agent("flannel-0.28")
        first = made.guard()
        made.until_state("standing by", Family.IPV6)
        before = tables(made, handles=True)
        for number in (signal.SIGTERM, signal.SIGKILL):
            made.end(first, number)
            assert "FLANNEL-POSTRTG" in tables(made)
            first = made.guard()
            made.until_state("standing by", Family.IPV6)
            assert made.side()["protected"]
        # the same handles: not one rule was written anew
        assert tables(made, handles=True) == before
        assert made.records("followed")[2:] == []


def test_without_its_process_the_standby_goes_on_and_a_new_guard_takes_over_in_the_gap(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28", "--resync", "3600")
        guard = made.guard()
        made.until_state("standing by")
        with made.probing() as told:
            made.end(guard, signal.SIGKILL)
            made.on_node("iptables-nft", "-t", "nat", "-F", "FLANNEL-POSTRTG")
            time.sleep(0.3)
            code, words = made.command("status")
            assert code == 0, words
            assert "without its guard" in words
            assert words.startswith("protected: no guard runs now; the standby that the last one left protects")
            made.guard()
            made.until_state("carrying")
        assert unhurt(told), told


def test_nobody_can_take_the_standby_away_while_the_guard_lives(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        made.guard()
        made.until_state("standing by")
        if not made.side()["protected"]:
            pytest.skip("this kernel has no persistent owners of tables (Linux 6.9)")
        before = made.on_node("nft", "-s", "list", "table", "ip", "hitless-guard")
        nft(made, "delete table ip hitless-guard", check=False)
        nft(made, "flush table ip hitless-guard", check=False)
        made.on_node("nft", "flush", "ruleset")
        assert made.on_node("nft", "-s", "list", "table", "ip", "hitless-guard") == before


def test_a_second_guard_says_that_there_is_one(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        first = made.guard()
        code, words = made.command()
        assert code == 3
        assert str(first.pid) in words
        # one that shares no file system with the first is kept away by the kernel, before it says that it started
        begun = made.records()
        code, words = made.command("--journal", str(tmp_path / "second.jsonl"), "--run-dir", "/run/elsewhere")
        assert code == 3
        assert "another running process" in words
        assert "started" not in words
        assert not (tmp_path / "second.jsonl").exists()
        assert made.records() == begun
        made.until_state("standing by")


def test_remove_stops_the_guard_and_leaves_everything_else(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        before = tables(made)
        guard = made.guard()
        made.until_state("standing by")
        assert tables(made, own=False) == before
        code, words = made.command("remove")
        assert (code, guard.wait(timeout=30)) == (0, 0)
        assert f"pid {guard.pid}" in words
        assert tables(made) == before
        assert made.command("remove") == (0, "there was no standby\n")
        assert made.command("status")[0] == 1


def test_observe_reports_and_touches_nothing(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        agent = made.agent("flannel-0.28")
        before = tables(made)
        made.guard("--observe")
        made.until_state("watching")
        made.end(agent)
        made.agent("flannel-0.28")
        until(lambda: made.records("gap"), "the gap in the journal")
        assert tables(made) == before
        assert not made.records("gap")[0]["covered"]


def test_a_standby_that_an_earlier_guard_left_protects_while_one_only_observes(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        made.agent("flannel-0.28")
        guard = made.guard()
        made.until_state("standing by")
        guard.kill()
        guard.wait(HANG)
        made.guard("--observe")
        made.until_state("watching")
        code, words = made.command("status")
        assert (code, words.startswith("protected")) == (0, True), words
        assert "it only observes" in words and "left by an earlier guard" in words
