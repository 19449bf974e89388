"""Primary + guard translates exactly what the whole primary alone would.

HITLESS_GUARD_CASES sets how many rule sets are tried (bench/guard.py runs 100,000 evaluations and more).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from random import Random

import pytest
from tests.unit.guard.flannels import NETWORK, OTHER, SUBNET, damaged, random_primary
from tests.unit.semantics.random_rules import POD_IN, UPLINK

from hitless.guard import primaries
from hitless.guard.rule_copy import Unclear
from hitless.guard.standby_rules import learn
from hitless.model.families import Family
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP, Packet
from hitless.model.rules import Ruleset
from hitless.semantics import evaluate

CASES = int(os.environ.get("HITLESS_GUARD_CASES", "40"))
SEED = int(os.environ.get("HITLESS_SEED", "1"))

_OUTSIDE = {
    Family.IPV4: [ip_address(text) for text in ("198.51.100.1", "203.0.113.9", "10.7.0.1", "224.0.0.9")],
    Family.IPV6: [ip_address(text) for text in ("2001:db8:ffff::1", "2001:db8:eeee::9", "fd77::1", "ff05::9")],
}


def flows(random: Random, family: Family, count: int) -> Iterator[Packet]:
    pods = [SUBNET[family][10], SUBNET[family][0x20], NETWORK[family][0x1234], OTHER[family][7]]
    everywhere = [*pods, *_OUTSIDE[family]]
    echo = ICMP if family is Family.IPV4 else ICMPV6
    for _ in range(count):
        protocol = random.choice((TCP, TCP, UDP, echo))
        sport, dport = (
            (0, 0) if protocol == echo else (random.choice((1024, 40000)), random.choice((53, 80, 443, 8080)))
        )
        yield Packet(
            random.choice(everywhere if random.random() < 0.3 else pods),
            random.choice(everywhere),
            protocol,
            sport,
            dport,
            iif=POD_IN,
            oif=random.choice((UPLINK, "eth0")),
            mark=random.choice((0, 0, 0x1, 0x4000, 0x10000)),
        )


def compare(seed: str, family: Family, tally: Counter[str], packets: int = 16) -> None:
    """One random primary: whole, and damaged, with its standby, against the whole alone."""
    random = Random(seed)
    whole = random_primary(random, family)
    try:
        standby = learn(whole, family, primaries.load("flannel"), uplink=UPLINK)
    except Unclear:
        tally["refused"] += 1
        return
    tally["exempted" if not standby.places else "learned"] += 1
    left = damaged(random, whole)
    guard = standby.ruleset().tables
    for packet in flows(random, family, packets):
        alone = evaluate(whole, packet, ("postrouting",))
        beside = evaluate(Ruleset((*whole.tables, *guard)), packet, ("postrouting",))
        hurt = evaluate(left, packet, ("postrouting",))
        bridged = evaluate(Ruleset((*left.tables, *guard)), packet, ("postrouting",))
        tally["evaluations"] += 2
        tally[alone.state] += 1
        if "cannot_tell" in (alone.state, hurt.state):
            continue
        said = f"{seed}: {packet}\n{whole}\n{standby}\n{standby.left_out}"
        assert beside.state == alone.state, f"beside the whole primary: {beside.reason}; {said}"
        assert beside.translation == alone.translation, said
        if hurt.state == "carried" or hurt.dropped is not None:
            continue  # what is left of the primary, or another base chain, decides by itself: the standby is not asked
        if standby.left_out and alone.state == "carried" and bridged.state != "carried":
            tally["left out"] += 1  # less than the primary is allowed where it was said so
            continue
        assert bridged.state == alone.state, f"{alone.reason}, bridged: {bridged.reason}; {left}\n{said}"
        if alone.translation is not None and bridged.translation is not None:
            assert bridged.translation.action == alone.translation.action, said
            tally["bridged"] += 1


def run(cases: int) -> Counter[str]:
    tally: Counter[str] = Counter()
    for case in range(cases):
        for family in Family:
            compare(f"{SEED} {case} {family}", family, tally)
    return tally


@pytest.mark.slow
def test_primary_and_guard_translate_exactly_what_the_whole_primary_would() -> None:
    tally = run(CASES)
    assert tally["evaluations"] > CASES * 16, tally
    # a comparison that compared one kind of thing only is no proof
    assert tally["bridged"] > 0.05 * tally["evaluations"], tally
    assert tally["not_carried"] > 0.05 * tally["evaluations"], tally
    assert tally["refused"] < 0.7 * 2 * CASES, tally
