"""Every kind of step has words, in both tools' languages, and no words are Python's."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network
from typing import get_args

import pytest
from tests.unit.model import kinds

from hitless.model import notation, rules
from hitless.model.rules import Action, Rule, Step

NET, ADDRESS = ip_network("10.42.0.0/16"), ip_address("192.0.2.1")
SAMPLES: dict[type, tuple[Step, str, str]] = {
    type(step): (step, iptables, nft)
    for step, iptables, nft in (
        (rules.Source(NET, True), "! -s 10.42.0.0/16", "ip saddr != 10.42.0.0/16"),
        (rules.Destination(NET), "-d 10.42.0.0/16", "ip daddr 10.42.0.0/16"),
        (rules.InInterface("cali+"), "-i cali+", 'iifname "cali*"'),
        (rules.OutInterface("eth0", True), "! -o eth0", 'oifname != "eth0"'),
        (rules.Mark(0x80, 0x80), "-m mark --mark 0x80/0x80", "meta mark & 0x00000080 == 0x00000080"),
        (rules.ConnMark(1, negated=True), "-m connmark ! --mark 0x1", "ct mark != 0x00000001"),
        (rules.Protocol(6), "-p tcp", "meta l4proto tcp"),
        (rules.SourcePort(1, 9), "-m tcp --sport 1:9", "th sport 1-9"),
        (rules.DestinationPort(53, 53, True), "-m tcp ! --dport 53", "th dport != 53"),
        (
            rules.Ports("dst", ((80, 80), (443, 444))),
            "-m multiport --dports 80,443:444",
            "th dport { 80, 443-444 }",
        ),
        (
            rules.TcpFlags(0x17, 2),
            "-m tcp --tcp-flags FIN,SYN,RST,ACK SYN",
            "tcp flags & (fin | syn | rst | ack) == syn",
        ),
        (rules.IcmpType(8), "-m icmp --icmp-type 8", "icmp type 8"),
        (
            rules.CtState(frozenset({"ESTABLISHED", "RELATED"})),
            "-m conntrack --ctstate RELATED,ESTABLISHED",
            "ct state established,related",
        ),
        (rules.AddrType("src", frozenset({"LOCAL"})), "-m addrtype --src-type LOCAL", "fib saddr type local"),
        (rules.ReversePath(True), "-m rpfilter --invert", "fib saddr . iif oif missing"),
        (rules.SetMember("pods", "src", frozenset({NET})), "-m set --match-set pods src", "ip saddr @pods"),
        (rules.Property("packet type", ((1, 1),), text="text as it is"), "text as it is", "text as it is"),
        (rules.AnyOf((), text="text as it is"), "text as it is", "text as it is"),
        (rules.Element("ip", "t", "s", ("source",), text="text as it is"), "text as it is", "text as it is"),
        (rules.Comment("why"), '-m comment --comment "why"', 'comment "why"'),
        (rules.Opaque("-m limit --limit 1/day"), "-m limit --limit 1/day", "-m limit --limit 1/day"),
        (rules.Accept(), "-j ACCEPT", "accept"),
        (rules.Drop(), "-j DROP", "drop"),
        (rules.Reject("tcp-reset"), "-j REJECT --reject-with tcp-reset", "reject with tcp-reset"),
        (rules.Return(), "-j RETURN", "return"),
        (rules.Jump("C"), "-j C", "jump C"),
        (rules.Goto("C"), "-g C", "goto C"),
        (
            rules.Masquerade(random_fully=True, ports=(1, 9)),
            "-j MASQUERADE --to-ports 1-9 --random-fully",
            "masquerade to :1-9 fully-random",
        ),
        (
            rules.Snat(ADDRESS, ADDRESS, persistent=True),
            "-j SNAT --to-source 192.0.2.1 --persistent",
            "snat ip to 192.0.2.1 persistent",
        ),
        (rules.Dnat("10.0.0.1:80"), "-j DNAT --to-destination 10.0.0.1:80", "dnat to 10.0.0.1:80"),
        (rules.NoTrack(), "-j CT --notrack", "notrack"),
        (rules.SetMark(0x1, 0x1), "-j MARK --set-xmark 0x1/0x1", "meta mark set meta mark & 0xfffffffe | 0x00000001"),
        (rules.SetConnMark(0x2), "-j CONNMARK --set-xmark 0x2/0xffffffff", "ct mark set 0x00000002"),
        (
            rules.MoveMark(True, 0xFF, 0xF0),
            "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xf0",
            "meta mark set ct mark & 0x000000f0",
        ),
        (rules.UnknownMark(text="-j HMARK"), "-j HMARK", "-j HMARK"),
        (rules.SetProperty("ttl", "ip ttl set 5"), "ip ttl set 5", "ip ttl set 5"),
        (rules.ConntrackTemplate(7, text="-j CT --zone 7"), "-j CT --zone 7", "-j CT --zone 7"),
        (rules.Silent("-j LOG"), "-j LOG", "-j LOG"),
        (
            rules.OneOf((), text="numgen random mod 2 vmap @m"),
            "numgen random mod 2 vmap @m",
            "numgen random mod 2 vmap @m",
        ),
        (rules.OpaqueAction("-j NFQUEUE"), "-j NFQUEUE", "-j NFQUEUE"),
    )
}
KINDS = {*kinds.KINDS, *get_args(Action)}


def test_every_kind_of_step_has_a_sample() -> None:
    assert SAMPLES.keys() == KINDS


@pytest.mark.parametrize("kind", sorted(SAMPLES, key=str))
def test_a_step_is_told_as_its_tool_writes_it(kind: type) -> None:
    step, iptables, nft = SAMPLES[kind]
    assert notation.rule(Rule((step,)), iptables=True) == iptables
    assert notation.rule(Rule((step,)), iptables=False) == nft
    assert not re.search(rf"{kind.__name__}\(|frozenset|Network", iptables + nft)


@pytest.mark.parametrize(
    ("steps", "iptables", "nft"),
    [
        (
            (rules.Protocol(17), rules.DestinationPort(53, 53), rules.Source(NET), rules.Comment("dns"), rules.Drop()),
            '-s 10.42.0.0/16 -p udp -m udp --dport 53 -m comment --comment "dns" -j DROP',
            'udp dport 53 ip saddr 10.42.0.0/16 drop comment "dns"',
        ),
        (  # of an inet table, which says the family first; and tcp twice, as xtables' match says it again
            (
                rules.Source(ip_network("0.0.0.0/0")),
                rules.Source(NET),
                rules.Protocol(6),
                rules.Protocol(6),
                rules.TcpFlags(2, 2),
                rules.DestinationPort(80, 80),
            ),
            "-s 10.42.0.0/16 -p tcp -m tcp --tcp-flags SYN SYN --dport 80",
            "ip saddr 10.42.0.0/16 tcp flags & (syn) == syn tcp dport 80",
        ),
        ((rules.Source(ip_network("::/0")), rules.Drop()), "-s ::/0 -j DROP", "meta nfproto ipv6 drop"),
        ((rules.Protocol(58), rules.IcmpType(128)), "-p ipv6-icmp -m icmp6 --icmpv6-type 128", "icmpv6 type 128"),
    ],
)
def test_a_whole_rule_is_told_in_its_tool_s_order_and_says_nothing_twice(
    steps: tuple[Step, ...], iptables: str, nft: str
) -> None:
    assert notation.rule(Rule(steps), iptables=True) == iptables
    assert notation.rule(Rule(steps), iptables=False) == nft


def test_an_ipset_is_told_by_its_name_where_somebody_knows_it() -> None:
    rule = Rule((rules.SetMember("#3", "dst,dst"), rules.Accept()))
    assert notation.rule(rule, iptables=True) == "-m set --match-set #3 dst,dst -j ACCEPT"
    named = notation.rule(rule, iptables=True, names={3: "KUBE-CLUSTER-IP"}.get)
    assert named == "-m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT"
