"""Primary + guard against the whole primary alone, with the kernel as the judge: random rules, the same real packets.

HITLESS_GUARD_PACKET_CASES sets how many rule sets are tried (bench/guard.py: more), HITLESS_SEED where they begin.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest
from tests.kernel.semantics.test_packets_agree import DESTINATIONS, SOURCES
from tests.kernel.semantics.wires import Wires, need, packets, wires
from tests.unit.guard.flannels import NETWORK, SUBNET, damaged, random_primary
from tests.unit.semantics.random_rules import UPLINK, iptables_text, nft_text

from hitless.guard import primaries
from hitless.guard.rule_copy import Unclear
from hitless.guard.standby_rules import learn
from hitless.guard.standby_table import StandbyTable
from hitless.kernel import nftables, xtables
from hitless.kernel.conntrack import Conntrack
from hitless.kernel.nftables.owned import OwnedTables
from hitless.model.families import Family
from hitless.model.packets import Packet
from hitless.model.rules import Ruleset
from hitless.model.standby import TABLE

pytestmark = pytest.mark.kernel

CASES = int(os.environ.get("HITLESS_GUARD_PACKET_CASES", "12"))
SEED = int(os.environ.get("HITLESS_SEED", "1"))


@pytest.fixture
def clean() -> Iterator[Wires]:
    with wires() as made:
        yield made


def writer(whole: Ruleset, family: Family) -> str:
    """Whose rules they are: flannel's own nftables table, iptables-legacy's or iptables-nft's."""
    if any(table.name == f"flannel-{family}" for table in whole.tables):
        return "native"
    return "legacy" if any(table.legacy for table in whole.tables) else "nft"


def load(net: Wires, family: Family, whole: Ruleset, ruleset: Ruleset) -> None:
    """Write a rule set in place of the last one; ``whole`` tells by which program."""
    program = writer(whole, family)
    if program == "native":
        net.run("nft", "-f", "-", stdin=nft_text(ruleset.tables, family))
    else:
        net.run(f"{family.iptables}-{program}-restore", "-w", stdin=iptables_text(ruleset.tables, family))


def clear(net: Wires, family: Family) -> None:
    """No rules of anybody, so that a case begins with nothing."""
    net.run("nft", "flush", "ruleset")
    net.run(f"{family.iptables}-legacy-restore", "-w", stdin=iptables_text((), family))


def fates(net: Wires, family: Family, flows: list[Packet]) -> list[str]:
    """What the kernel does to each flow as a new one: carried, leaked or dropped."""
    table = Conntrack(net.node)
    try:
        for entry in list(table.dump(family)):
            table.delete(family, entry)
    finally:
        table.close()
    found = []
    for packet, arrival in zip(flows, net.passed(flows), strict=True):
        found.append("dropped" if arrival is None else "leaked" if arrival.src == packet.src else "carried")
    return found


def compare(net: Wires, seed: str, family: Family, tally: Counter[str]) -> None:
    """One random primary: whole; whole with the guard; damaged; damaged with the guard."""
    random = Random(seed)
    whole = random_primary(random, family)
    left = damaged(random, whole)
    clear(net, family)
    load(net, family, whole, whole)
    legacy = writer(whole, family) == "legacy"
    read = xtables.read_ruleset(net.node, (family,), ("nat",)) if legacy else nftables.read_ruleset(net.node, (family,))
    try:
        standby = learn(read, family, primaries.load("flannel"), uplink=UPLINK)
    except Unclear:
        tally["refused"] += 1
        return
    flows = list(packets(net.ports(16), SOURCES[family], DESTINATIONS[family]))
    alone = fates(net, family, flows)
    standing = StandbyTable((family,), net.node)
    try:
        standing.install({family: standby})
        beside = fates(net, family, flows)
        counted = standing.counters(family)
        load(net, family, whole, left)
        bridged = fates(net, family, flows)
    finally:
        standing.close()
        held = OwnedTables(TABLE, net.node)
        held.remove()
        held.close()
    hurt = fates(net, family, flows)
    said = f"{seed}\n{whole}\n{standby}"
    assert beside == alone, f"beside the whole primary: {list(zip(flows, alone, beside, strict=True))}; {said}"
    assert counted["carried"].packets == 0, f"beside the whole primary the standby translated {counted}; {said}"
    for packet, before, without, now in zip(flows, alone, hurt, bridged, strict=True):
        tally["flows"] += 1
        tally[f"whole: {before}"] += 1
        if without == "carried" or without == "dropped":
            tally["decided by others"] += 1
            continue
        if standby.left_out and before == "carried" and now != "carried":
            tally["left out"] += 1
            continue
        assert now == before, f"damaged with the guard: {now}, whole: {before}; {packet}; {left}\n{said}"
        tally["bridged"] += before == "carried"


def run(net: Wires, cases: int) -> Counter[str]:
    tally: Counter[str] = Counter()
    for case in range(cases):
        for family in Family:
            compare(net, f"{SEED} packets {case} {family}", family, tally)
    return tally


def test_with_the_guard_real_packets_fare_as_with_the_whole_primary(clean: Wires) -> None:
    need("iptables-legacy-restore", "iptables-nft-restore", "ip6tables-legacy-restore", "ip6tables-nft-restore", "nft")
    assert SUBNET[Family.IPV4].subnet_of(NETWORK[Family.IPV4])  # type: ignore[arg-type]
    tally = run(clean, CASES)
    # a comparison of one kind of thing only is no proof
    assert tally["bridged"] > 0.1 * tally["flows"], tally
    assert tally["whole: leaked"] > 0.02 * tally["flows"], tally
    assert tally["refused"] < 1.4 * CASES, tally
