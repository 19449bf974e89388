"""Gaps of forwarding in both backends and families: packets that stop, a record with its writer, packets that go on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.guard.guarded import HANG, World, until, world

from hitless.model.families import Backend, Family

pytestmark = pytest.mark.kernel
NETWORK = {Family.IPV4: "10.42.0.0/16", Family.IPV6: "fd42::/48"}
OUTSIDE = {Family.IPV4: "198.51.100.0/24", Family.IPV6: "2001:db8:ffff::/48"}
REASONS = {
    "accepts flushed": ("the policy of FORWARD",),
    "reject in front": ("rejects it",),
    "drop at prerouting": ("drops it", "PREROUTING"),
    "hidden from conntrack": ("conntrack",),
}
"""What cuts forwarding off, and parts of the reason that the guard gives."""


def gets_out(made: World, family: Family, wait: float = HANG) -> str:
    """The address under which a new flow of the pod arrives at the far end; empty when it does not in time."""
    with made.far_udp(family) as receiver, made.udp(family) as sender:
        receiver.settimeout(wait)
        with suppress(ConnectionRefusedError, PermissionError):  # what a REJECT may answer
            sender.send(b"out")
        try:
            return str(receiver.recvfrom(64)[1][0])
        except TimeoutError:
            return ""


def cut_off(made: World, family: Family) -> bool:
    """Whether the guard says that forwarding is cut off."""
    return bool(made.side(family)["forward_gap_since"])


def ended_after(made: World, family: Family, before: int) -> bool:
    """Whether forwarding works, and gaps have ended since there were ``before``. Legacy tables that are replaced while
    they are read are "cannot tell" for a moment, which ends a gap: on a busy machine one cause may make two."""
    return not cut_off(made, family) and len(made.ended("forward_gap")) > before


@contextmanager
def cause(made: World, backend: Backend, family: Family, word: str) -> Iterator[None]:
    """Forwarding cut by somebody, and let go."""
    program = f"{family.iptables}-{backend}"
    net, outside = NETWORK[family], OUTSIDE[family]
    if word == "accepts flushed":
        made.on_node(program, "-F", "FLANNEL-FWD")
        yield
        made.on_node(program, "-A", "FLANNEL-FWD", "-s", net, "-j", "ACCEPT")
        made.on_node(program, "-A", "FLANNEL-FWD", "-d", net, "-j", "ACCEPT")
        return
    table, rule = {
        "reject in front": ("filter", ["FORWARD", "-s", net, "-d", outside, "-j", "REJECT"]),
        "drop at prerouting": ("raw", ["PREROUTING", "-s", net, "-d", outside, "-j", "DROP"]),
        "hidden from conntrack": ("raw", ["PREROUTING", "-s", net, "-d", outside, "-j", "CT", "--notrack"]),
    }[word]
    made.on_node(program, "-t", table, "-I", *rule)
    yield
    made.on_node(program, "-t", table, "-D", *rule)


@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_whatever_cuts_forwarding_off_is_reported_and_is_no_gap_of_the_agent(tmp_path: Path, backend: Backend) -> None:
    with world(tmp_path, backend=backend, family="dual", policy="drop") as made:
        made.agent("flannel-0.28", "--resync", "3600")
        made.guard()
        for family in Family:
            made.until_state("standing by", family)
        found: dict[tuple[Family, str], list[dict[str, Any]]] = {}
        for family in Family:
            own, other = str(made.node.addresses[family]), next(each for each in Family if each is not family)
            pod = str(made.pod.addresses[family])
            for word in REASONS:
                assert gets_out(made, family) == own
                before = len(made.ended("forward_gap"))
                with cause(made, backend, family, word):
                    until(partial(cut_off, made, family), f"{word} in {family} being noticed")
                    hidden = word == "hidden from conntrack"
                    assert gets_out(made, family, wait=HANG if hidden else 0.2) == (pod if hidden else ""), word
                    assert made.side(other)["forward_gap_since"] == 0
                    assert made.side(family)["state"] == "standing by"
                until(partial(ended_after, made, family, before), f"the end of {word} in {family}")
                found[family, word] = made.ended("forward_gap")[before:]
        for (family, word), gaps in found.items():
            assert {gap["family"] for gap in gaps} == {family.value}
            assert all(part in gap["reason"] for gap in gaps for part in REASONS[word]), gaps
            assert gaps[0]["opened_by"]["pid"] and gaps[-1]["closed_by"]["pid"], gaps
        assert made.records("gap") == made.records("withdrawn") == made.records("leak") == []


def test_a_guard_that_withdrew_still_reports_forwarding_and_egress(tmp_path: Path) -> None:
    """Its last standby's pods are evaluated while rules without an exact copy are there."""
    family = Family.IPV4
    with world(tmp_path, policy="drop") as made:
        made.agent("flannel-0.28", "--resync", "3600")
        made.guard()
        made.until_state("standing by")
        own, pod = str(made.node.addresses[family]), str(made.pod.addresses[family])
        odd = ["POSTROUTING", "-m", "statistic", "--mode", "random", "--probability", "0", "-j", "ACCEPT"]
        made.on_node("iptables-nft", "-t", "nat", "-I", *odd)
        made.until_state("withdrawn")
        until(lambda: made.side()["doubt"], "the rule being one that nobody can tell about")
        with cause(made, Backend.NFT, family, "reject in front"):
            until(partial(cut_off, made, family), "the REJECT being noticed")
            assert gets_out(made, family, wait=0.2) == ""
        until(lambda: made.ended("forward_gap"), "the end of the REJECT")
        assert gets_out(made, family) == own
        chain = ["iptables-nft", "-t", "nat", "-S", "FLANNEL-POSTRTG"]
        rules = [shlex.split(line) for line in made.on_node(*chain).splitlines() if line.startswith("-A ")]
        made.on_node("iptables-nft", "-t", "nat", "-F", "FLANNEL-POSTRTG")
        until(lambda: made.side()["gap_since"], "the flush being noticed")
        assert gets_out(made, family) == pod
        for rule in rules:
            made.on_node("iptables-nft", "-t", "nat", *rule)
        until(lambda: made.ended("gap"), "the end of the gap")
        assert gets_out(made, family) == own
        (forward,), (gap,) = made.ended("forward_gap"), made.ended("gap")
        assert "rejects it" in forward["reason"] and forward["opened_by"]["pid"] and forward["closed_by"]["pid"]
        assert (gap["covered"], gap["code"]) == (False, "untranslated") and gap["opened_by"]["pid"]
        assert made.side()["state"] == "withdrawn"
