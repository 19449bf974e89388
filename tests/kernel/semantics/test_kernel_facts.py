"""The facts about the kernel that the evaluator, and the project, are built on: each with a packet that shows it.

The numbers are those of docs/design (kernel facts). A kernel on which one of these fails needs another evaluator.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.kernel.semantics.wires import Arrival, Wires, need, wires
from tests.unit.semantics.random_rules import NODE_V4, POD_IN, UPLINK

from hitless.kernel.conntrack import Conntrack
from hitless.model.families import Family
from hitless.model.packets import TCP, UDP, Packet

pytestmark = pytest.mark.kernel

POD, FAR = ip_address("10.42.1.10"), ip_address("198.51.100.1")

TRACKED = "table ip tracked {\n chain user {\n  ct state invalid counter\n }\n}\n"
PRIMARY = """
table ip primary {
  chain flannel {
    ip saddr 10.42.0.0/16 ip daddr 10.42.0.0/16 return
    ip saddr 10.42.0.0/16 masquerade fully-random
  }
  chain post {
    type nat hook postrouting priority 100
    jump flannel
  }
}
"""


@pytest.fixture
def net() -> Iterator[Wires]:
    with wires() as made:
        yield made


def flow(net: Wires, protocol: int = TCP) -> Packet:
    return Packet(POD, FAR, protocol, net.ports(1), 443, iif=POD_IN, oif=UPLINK)


def fate(net: Wires, packet: Packet) -> str:
    """Send it; whether it came with the node's address (``carried``), with its own (``leaked``), or not."""
    (arrival,) = net.passed([packet])
    if arrival is None:
        return "dropped"
    return "leaked" if arrival.src == packet.src else "carried"


def nft(net: Wires, text: str) -> None:
    net.run("nft", "-f", "-", stdin=text)


def test_1_an_empty_chain_lets_new_flows_leave_with_their_own_address_and_keeps_old_ones(net: Wires) -> None:
    nft(net, TRACKED + PRIMARY)
    old = flow(net)
    assert fate(net, old) == "carried"
    nft(net, "flush chain ip primary flannel\n")
    assert fate(net, flow(net)) == "leaked"
    assert fate(net, old) == "carried"


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_2_a_flow_begun_in_a_gap_stays_broken_until_its_entry_is_deleted(net: Wires, protocol: int) -> None:
    nft(net, TRACKED + PRIMARY + "flush chain ip primary flannel\n")
    poisoned = flow(net, protocol)
    assert fate(net, poisoned) == "leaked"
    nft(net, "add rule ip primary flannel ip saddr 10.42.0.0/16 masquerade\n")
    assert fate(net, flow(net, protocol)) == "carried"
    assert fate(net, poisoned) == "leaked"
    table = Conntrack(net.node)
    try:
        mine = [entry for entry in table.dump(Family.IPV4) if entry.original.sport == poisoned.sport]
        assert [table.delete(Family.IPV4, entry) for entry in mine] == [True]
    finally:
        table.close()
    assert fate(net, poisoned) == "carried"


def test_3_without_a_user_of_conntrack_nat_chains_are_not_called(net: Wires) -> None:
    drops = "table ip n {\n chain post {\n  type nat hook postrouting priority 100\n  drop\n }\n}\n"
    nft(net, drops)
    assert fate(net, flow(net)) == "leaked"
    nft(net, TRACKED)
    assert fate(net, flow(net)) == "dropped"


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_4_a_restore_that_declares_a_chain_again_shows_no_packet_an_empty_chain(net: Wires, backend: str) -> None:
    program = f"iptables-{backend}-restore"
    need(program)
    rules = "*nat\n:FLANNEL-POSTRTG - [0:0]\n-A FLANNEL-POSTRTG -s 10.42.0.0/16 -j MASQUERADE --random-fully\n"
    net.run(program, "-w", stdin=f"{rules}-A POSTROUTING -j FLANNEL-POSTRTG\nCOMMIT\n")
    assert fate(net, flow(net)) == "carried"
    done = threading.Event()
    arrived: list[Arrival | None] = []

    def replace_rules() -> None:
        """Twenty times, and on until there was traffic beside it, whichever thread the machine keeps waiting."""
        try:
            times = 0
            while times < 20 or (len(arrived) <= 100 and times < 1000):
                net.run(program, "-w", "--noflush", stdin=f"{rules}COMMIT\n")
                times += 1
        finally:
            done.set()

    thread = threading.Thread(target=replace_rules)
    thread.start()
    try:
        while not done.is_set() and len(arrived) < 20000:
            arrived += net.passed([flow(net) for _ in range(10)])
    finally:
        thread.join()
    assert len(arrived) > 100
    assert {arrival.src if arrival is not None else "dropped" for arrival in arrived} == {NODE_V4}


@pytest.mark.parametrize("backend", ["nft", "legacy", "nftables"])
def test_7_a_second_nat_base_chain_takes_what_the_first_left_and_nothing_else(net: Wires, backend: str) -> None:
    standby = (
        "table ip standby {\n chain post {\n  type nat hook postrouting priority 120\n"
        "  ip saddr 10.42.0.0/16 counter masquerade\n }\n}\n"
    )
    if backend == "nftables":
        nft(net, TRACKED + PRIMARY)
    else:
        need(f"iptables-{backend}-restore")
        rules = "*nat\n:F - [0:0]\n-A POSTROUTING -j F\n-A F -s 10.42.0.0/16 -j MASQUERADE\nCOMMIT\n"
        net.run(f"iptables-{backend}-restore", "-w", stdin=rules)
    nft(net, standby)

    def taken() -> int:
        words = net.run("nft", "list", "chain", "ip", "standby", "post").split()
        return int(words[words.index("packets") + 1])

    assert fate(net, flow(net)) == "carried"
    assert taken() == 0
    if backend == "nftables":
        nft(net, "flush chain ip primary flannel\n")
    else:
        net.run(f"iptables-{backend}", "-w", "-t", "nat", "-F", "F")
    assert fate(net, flow(net)) == "carried"
    assert taken() == 1


def test_nat_chains_are_called_at_the_nat_position_whatever_their_priority(net: Wires) -> None:
    """A filter chain at 60 runs before a NAT chain that says 50: the NAT core stands at 100."""
    nft(
        net,
        "table ip m {\n chain marks {\n  type filter hook postrouting priority 60\n  meta mark set 1\n }\n"
        " chain post {\n  type nat hook postrouting priority 50\n  meta mark 1 masquerade\n }\n}\n",
    )
    assert fate(net, flow(net)) == "carried"


def test_a_rule_behind_the_translation_sees_the_new_source(net: Wires) -> None:
    late = (
        "table ip late {\n chain post {\n  type filter hook postrouting priority 150\n"
        "  ip saddr 10.42.0.0/16 drop\n }\n}\n"
    )
    nft(net, TRACKED + PRIMARY + late)
    assert fate(net, flow(net)) == "carried"
    nft(net, "flush chain ip primary flannel\n")
    assert fate(net, flow(net)) == "dropped"


def test_later_packets_of_a_flow_do_not_ask_the_nat_chains(net: Wires) -> None:
    nft(net, TRACKED + PRIMARY)
    begun = flow(net)
    assert fate(net, begun) == "carried"
    nft(net, "insert rule ip primary post drop\n")
    assert fate(net, begun) == "carried"
    assert fate(net, replace(begun, sport=net.ports(1))) == "dropped"
