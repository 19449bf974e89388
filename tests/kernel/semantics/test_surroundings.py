"""What rules ask about the node is asked of the kernel, and a change is noticed when it is asked again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.kernel.semantics.wires import Wires, need, wires
from tests.unit.semantics.random_rules import POD_IN, UPLINK

from hitless.kernel import nftables
from hitless.kernel.surroundings import NodeSurroundings
from hitless.model.packets import TCP, Packet
from hitless.model.rules import Ruleset
from hitless.semantics import evaluate

pytestmark = pytest.mark.kernel

PACKET = Packet(ip_address("10.42.1.10"), ip_address("198.51.100.1"), TCP, 20000, 443, iif=POD_IN, oif=UPLINK)
RULES = """*nat
-A POSTROUTING -j MASQUERADE
COMMIT
*filter
-A FORWARD -m set --match-set {name} {directions} -j DROP
COMMIT
"""


@pytest.fixture
def net() -> Iterator[Wires]:
    need("ipset", "iptables-nft-restore")
    with wires() as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "directions", "member"),
    [
        ("hash:ip timeout 600", "src", "10.42.1.10"),
        ("hash:net", "dst", "198.51.100.0/24"),
        ("hash:ip,port", "dst,dst", "198.51.100.1,tcp:443"),
        ("hash:ip,port,ip", "src,dst,dst", "10.42.1.10,tcp:443,198.51.100.1"),
        ("hash:net,iface", "src,src", f"10.42.0.0/16,{POD_IN}"),
        ("bitmap:port range 0-1000", "dst", "443"),
        ("list:set", "src", "inner"),
    ],
)
def test_who_comes_into_an_ipset_is_noticed(net: Wires, kind: str, directions: str, member: str) -> None:
    net.run("ipset", "create", "inner", "hash:ip")
    net.run("ipset", "add", "inner", "10.42.1.10")
    net.run("ipset", "create", "asked", *kind.split())
    net.run("iptables-nft-restore", stdin=RULES.format(name="asked", directions=directions))
    node = NodeSurroundings(net.node)
    ruleset = Ruleset(nftables.read_ruleset(net.node).tables, node)
    try:
        assert evaluate(ruleset, PACKET).state == "carried"
        assert net.passed([PACKET]) != [None]
        assert not node.refresh()
        net.run("ipset", "add", "asked", member)
        assert node.refresh()
        outcome = evaluate(ruleset, PACKET)
        assert outcome.state == "not_carried"
        assert outcome.reason == f"FORWARD rule 1 (ip filter) drops it (-m set --match-set asked {directions})"
        assert net.passed([replace(PACKET, sport=20001)]) == [None]
    finally:
        node.close()


def test_who_comes_into_a_set_with_timeouts_is_noticed(net: Wires) -> None:
    net.run(
        "nft",
        "-f",
        "-",
        stdin="table ip t {\n set banned { type ipv4_addr; flags timeout; }\n chain f {\n"
        "  type filter hook forward priority 0;\n  ct state invalid drop\n  ip daddr @banned drop\n }\n"
        " chain p {\n  type nat hook postrouting priority 100;\n  masquerade\n }\n}\n",
    )
    node = NodeSurroundings(net.node)
    ruleset = Ruleset(nftables.read_ruleset(net.node).tables, node)
    try:
        assert evaluate(ruleset, PACKET).state == "carried"
        net.run("nft", "add element ip t banned { 198.51.100.1 timeout 1h }")
        assert node.refresh()
        assert evaluate(ruleset, PACKET).reason == "f rule 2 (ip t) drops it (ip daddr @banned)"
        assert net.passed([PACKET]) == [None]
    finally:
        node.close()
