"""Legacy tables read from a real kernel: what iptables-legacy wrote, and nothing made by looking."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.kernel.semantics.wires import need
from tests.kernel.xtables.nodes import a_node, on

from hitless.kernel import xtables
from hitless.kernel.namespaces import Namespace
from hitless.model.families import Family
from hitless.model.rules import (
    AddrType,
    Comment,
    CtState,
    Destination,
    Dnat,
    Hook,
    IcmpType,
    Jump,
    Mark,
    Masquerade,
    MoveMark,
    Opaque,
    OpaqueAction,
    OutInterface,
    Ports,
    Property,
    Protocol,
    Reject,
    Return,
    SetMark,
    SetMember,
    Silent,
    Snat,
    Source,
    SourcePort,
    Step,
    TcpFlags,
)

pytestmark = pytest.mark.kernel


@pytest.fixture
def node() -> Iterator[Namespace]:
    need("iptables-legacy", "ip6tables-legacy")
    with a_node() as made:
        yield made


def names(node: Namespace) -> str:
    return (
        Path(f"/proc/{node.pid}/net/ip_tables_names").read_text()
        + Path(f"/proc/{node.pid}/net/ip6_tables_names").read_text()
    )


def test_reading_and_polling_make_no_table(node: Namespace) -> None:
    assert names(node) == ""
    assert xtables.read_ruleset(node).tables == ()
    with xtables.Poller(node) as poller:
        assert poller.snapshot().ruleset.tables == ()
        assert poller.wait(0.05) is None
    assert names(node) == ""


def test_tables_that_are_there_are_read_in_the_asked_family_only(node: Namespace) -> None:
    on(node, "iptables-legacy", "-t", "nat", "-N", "A")
    on(node, "ip6tables-legacy", "-P", "FORWARD", "DROP")
    found = xtables.read_ruleset(node).tables
    assert [(table.family, table.name) for table in found] == [("ip", "nat"), ("ip6", "filter")]
    assert [table.name for table in xtables.read_ruleset(node, (Family.IPV6,)).tables] == ["filter"]
    assert found[1].chains["FORWARD"].hook == Hook("filter", "forward", 0, "drop")
    assert set(found[0].chains) == {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING", "A"}


V4_RULES: list[tuple[str, str, tuple[Step, ...]]] = [
    ("nat POSTROUTING", '-m comment --comment "flanneld masq" -j A', (Comment("flanneld masq"), Jump("A"))),
    ("nat A", "-m mark --mark 0x4000/0x4000 -j RETURN", (Mark(0x4000, 0x4000), Return())),
    (
        "nat A",
        "-s 10.42.0.0/16 ! -d 224.0.0.0/4 -o eth+ -j MASQUERADE --random-fully",
        (
            Source(ip_network("10.42.0.0/16")),
            Destination(ip_network("224.0.0.0/4"), negated=True),
            OutInterface("eth+"),
            Masquerade(random_fully=True),
        ),
    ),
    (
        "nat A",
        "-p tcp --sport 3 -j SNAT --to-source 192.0.2.1-192.0.2.9",
        (Protocol(6), SourcePort(3, 3), Snat(ip_address("192.0.2.1"), ip_address("192.0.2.9"))),
    ),
    ("nat A", "-j MARK --xor-mark 0x4000", (SetMark(0x4000, 0),)),
    (
        "nat PREROUTING",
        "-p udp -m addrtype --dst-type LOCAL -m multiport --dports 53,80:90 -j DNAT --to-destination 10.42.1.2:53",
        (
            Protocol(17),
            AddrType("dst", frozenset({"LOCAL"})),
            Ports("dst", ((53, 53), (80, 90))),
            Dnat("10.42.1.2:53"),
        ),
    ),
    ("nat PREROUTING", "-p tcp -j REDIRECT --to-ports 15001", (Protocol(6), Dnat("redirect:15001"))),
    (
        "filter FORWARD",
        "-m conntrack ! --ctstate NEW,DNAT -j REJECT --reject-with icmp-net-prohibited",
        (CtState(frozenset({"NEW", "DNAT"}), negated=True), Reject("icmp-net-prohibited")),
    ),
    ("filter FORWARD", "-p tcp ! --syn -j LOG", (Protocol(6), TcpFlags(0x17, 2, negated=True), Silent("-j LOG"))),
    (
        "filter FORWARD",
        "-p icmp --icmp-type echo-request -j NFQUEUE",
        (Protocol(1), IcmpType(8), OpaqueAction("-j NFQUEUE --queue-num 0")),
    ),
    (
        "filter FORWARD",
        "-m state --state NEW -j CONNMARK --restore-mark",
        (CtState(frozenset({"NEW"})), MoveMark(restore=True)),
    ),
    (
        "filter FORWARD",
        "-m iprange --dst-range 10.0.0.0-10.0.0.255",
        (SetMember("range 10.0.0.0-10.0.0.255", "dst", frozenset({ip_network("10.0.0.0/24")})),),
    ),
    ("filter FORWARD", "-m limit --limit 3/s", (Opaque("-m limit --limit 3/second --limit-burst 5"),)),
    (
        "filter FORWARD",
        "-m conntrack --ctorigdst 10.1.1.1",
        (Property("ct destination original", ((0x0A010101, 0x0A010101),), 0xFFFFFFFF),),
    ),
]


@pytest.mark.parametrize(("where", "text", "steps"), V4_RULES, ids=[text[:40] for _, text, _ in V4_RULES])
def test_a_rule_of_iptables_is_read_as_what_it_says(
    node: Namespace, where: str, text: str, steps: tuple[Step, ...]
) -> None:
    table, chain = where.split()
    user = ":A - [0:0]\n" if table == "nat" else ""
    on(node, "iptables-legacy-restore", "-w", stdin=f"*{table}\n{user}-A {chain} {text}\nCOMMIT\n")
    (read,) = xtables.read_ruleset(node, (Family.IPV4,)).tables
    assert [rule.steps for rule in read.chains[chain].rules] == [steps]
