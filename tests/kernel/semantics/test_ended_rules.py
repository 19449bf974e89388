"""Rules that end early because something that they read does not exist, and conntrack templates: each with packets."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from tests.kernel.semantics.wires import Wires, need, packets, wires
from tests.unit.semantics.random_rules import POD_IN

from hitless.kernel import nftables, xtables
from hitless.kernel.surroundings import NodeSurroundings
from hitless.model.rules import Ruleset
from hitless.semantics import evaluate

pytestmark = pytest.mark.kernel

POD, FAR = ip_address("10.42.1.10"), ip_address("198.51.100.1")
PRIMARY = """
table ip tracked { chain user { ct state invalid counter; }; }
table ip primary { chain post { type nat hook postrouting priority 100; ip saddr 10.42.0.0/16 masquerade; }; }
"""
RAW = "type filter hook prerouting priority -300;"
FORWARD = "type filter hook forward priority 0;"
CARRIED, DROPPED, LEAKED, OPEN = "carried", "dropped", "leaked", "cannot_tell"
WILDCARD = f"{POD_IN[:2]}*"

NATIVE = [
    # before conntrack has seen the packet, there is no connection to read from: the rule ends
    (f"{RAW} meta mark set ct mark drop", CARRIED),
    (f"{RAW} meta mark set ct mark & 0xff drop", CARRIED),
    (f"{RAW} meta mark set jhash ct mark mod 2 drop", CARRIED),
    (f"{RAW} ct mark {{ 5, * }} drop", CARRIED),
    (f"{RAW} ct mark != {{ 5, 6 }} drop", CARRIED),
    (f"{RAW} ct state vmap {{ new : accept, * : drop }}", DROPPED),
    (f"{RAW} ct mark set meta mark drop", DROPPED),
    (f"{FORWARD} meta mark set ct mark drop", DROPPED),
    # a packet without a socket, or of another protocol than the option that the rule changes
    (f"{FORWARD} ip protocol icmp tcp option maxseg size set 1300 drop", CARRIED),
    (f"{FORWARD} ip protocol udp reset tcp option sack-perm drop", CARRIED),
    # templates: a NOTRACK after one has no effect (before one it has in xtables only), and rules see a new connection
    (f"{RAW} ct zone set 7; notrack", CARRIED),
    (f"{RAW} ct zone set 7; ct state invalid drop", CARRIED),
    (f"{RAW} ct zone set 7; ct state new drop", DROPPED),
    (f"{RAW} notrack; ct zone set 7", CARRIED),
    # names of interfaces with a wildcard
    (f'{FORWARD} iifname {{ "{WILDCARD}", "other0" }} drop', DROPPED),
    (f'{FORWARD} iifname != {{ "{WILDCARD}", "other0" }} drop', CARRIED),
    (f'{FORWARD} iifname vmap {{ "{WILDCARD}" : drop, "other0" : accept }}', DROPPED),
    (f"{FORWARD} meta l4proto 1-17 drop", DROPPED),
]
LEGACY = [
    ("-A PREROUTING -j CT --zone 7\n-A PREROUTING -j CT --notrack", CARRIED),
    ("-A PREROUTING -j CT --ctevents new\n-A PREROUTING -j CT --notrack", CARRIED),
    ("-A PREROUTING -j CT --notrack\n-A PREROUTING -j CT --zone 7", LEAKED),
    ("-A PREROUTING -j CT --zone 7\n-A PREROUTING -m conntrack --ctstate INVALID -j DROP", CARRIED),
    ("-A PREROUTING -j CT --zone 7\n-A PREROUTING -m conntrack --ctstate NEW -j DROP", DROPPED),
]


@pytest.fixture(scope="module")
def net() -> Iterator[Wires]:
    with wires() as made:
        yield made


def answers(net: Wires) -> list[tuple[str, str]]:
    """The evaluator's answer for a pod's packets, and what happened to them."""
    tables = (*nftables.read_ruleset(net.node).tables, *xtables.read_ruleset(net.node).tables)
    flows = list(packets(net.ports(4), [POD], [FAR]))
    node = NodeSurroundings(net.node)
    try:
        outcomes = [evaluate(Ruleset(tables, node), packet) for packet in flows]
    finally:
        node.close()
    found = []
    for packet, outcome, arrival in zip(flows, outcomes, net.passed(flows), strict=True):
        real = DROPPED if arrival is None else LEAKED if arrival.src == packet.src else CARRIED
        answer = outcome.state if outcome.state != "not_carried" else DROPPED if outcome.dropped else LEAKED
        found.append((answer, real))
    return found


def load(net: Wires, text: str = "") -> None:
    net.run("nft", "-f", "-", stdin=f"flush ruleset\n{PRIMARY}{text}")


@pytest.mark.parametrize(("rules", "expected"), NATIVE)
def test_a_native_rule_ends_as_in_the_kernel(net: Wires, rules: str, expected: str) -> None:
    load(net, f"table ip t {{ chain c {{ {rules}; }}; }}\n")
    assert set(answers(net)) == {(expected, expected)}


@pytest.mark.parametrize("backend", ["nft", "legacy"])
@pytest.mark.parametrize(("rules", "expected"), LEGACY)
def test_a_conntrack_template_of_iptables_is_followed(net: Wires, backend: str, rules: str, expected: str) -> None:
    need(f"iptables-{backend}-restore")
    load(net)
    try:
        net.run(f"iptables-{backend}-restore", "-w", "--noflush", stdin=f"*raw\n{rules}\nCOMMIT\n")
        assert set(answers(net)) == {(expected, expected)}
    finally:
        net.run(f"iptables-{backend}-restore", "-w", stdin="*raw\nCOMMIT\n")


def test_what_is_read_from_a_template_is_not_known(net: Wires) -> None:
    """xtables reads the template's mark, nft none."""
    load(net, f"table ip t {{ chain c {{ {RAW} ct zone set 7; ct mark 0 drop; }}; }}\n")
    assert set(answers(net)) == {(OPEN, CARRIED)}


def test_a_zone_is_known_once_conntrack_has_seen_the_packet(net: Wires) -> None:
    load(net, f"table ip t {{ chain c {{ {RAW} ct zone set 7; }}; chain d {{ {FORWARD} ct zone 7 drop; }}; }}\n")
    assert set(answers(net)) == {(DROPPED, DROPPED)}
