"""A batch of wide rule sets, asked about beside real packets and the far end's answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from random import Random

from tests.kernel.semantics.corpus import _real, _told
from tests.kernel.semantics.wide_rules import IPSETS, iptables_batch, nft_batch, sources
from tests.kernel.semantics.wires import Wires, packets
from tests.unit.semantics.random_rules import NODE_V4, NODE_V6

from hitless.kernel import nftables, xtables
from hitless.kernel.surroundings import NodeSurroundings
from hitless.model.families import Family
from hitless.model.rules import Ruleset

__all__ = ["WAYS", "compare", "empty", "prepare"]

WAYS = ("native", "nft", "legacy")
_FAR = {Family.IPV4: "198.51.100.1", Family.IPV6: "2001:db8:ffff::1"}
_EMPTY = "".join(f"*{name}\nCOMMIT\n" for name in ("raw", "mangle", "nat", "filter"))


_TRACKED = "flush ruleset\ntable inet tracked {\n chain user {\n  ct state invalid counter\n }\n}\n"


def prepare(net: Wires) -> None:
    """The ipsets that the rules name, and a user of conntrack."""
    net.run("ipset", "restore", stdin=IPSETS)
    net.run("nft", "-f", "-", stdin=_TRACKED)


def empty(net: Wires, way: str, family: Family) -> None:
    """Take a batch away."""
    if way == "native":
        net.run("nft", "-f", "-", stdin=_TRACKED)
    else:
        net.run(f"{family.iptables}-{way}-restore", "-w", stdin=_EMPTY)


def compare(net: Wires, way: str, family: Family, seed: str, tally: Counter[str]) -> Iterator[str]:
    """Load one batch, and tell of every packet that was answered for wrongly."""
    random = Random(seed)
    if way == "native":
        text = nft_batch(random, family)
        net.run("nft", "-f", "-", stdin=text)
        ruleset = nftables.read_ruleset(net.node, (family,))
    else:
        text = iptables_batch(random, family)
        net.run(f"{family.iptables}-{way}-restore", "-w", stdin=text)
        read = nftables.read_ruleset if way == "nft" else xtables.read_ruleset
        ruleset = read(net.node, (family,))
    net.fresh()
    flows = list(packets(net.ports(4 * len(sources(family))), sources(family), [ip_address(_FAR[family])]))
    node = NodeSurroundings(net.node)
    try:
        asked = Ruleset(ruleset.tables, node)
        address = NODE_V4 if family is Family.IPV4 else NODE_V6
        # packets may fill sets that others are asked about: what is true of one is asked before any is sent
        told = [_told(asked, packet, address) for packet in flows]
    finally:
        node.close()
    for packet, (said, reason), came in zip(flows, told, _real(net, flows, net.passed(flows)), strict=True):
        tally["packets"] += 1
        tally[came] += 1
        tally["cannot tell"] += said == "cannot_tell"
        if said not in ("cannot_tell", came) and not (said == "lost" and came in ("leaked", "dropped")):
            yield f"{way} {family} {seed}: said {said} ({reason}), came {came}: {packet}\n{text}"
    empty(net, way, family)
