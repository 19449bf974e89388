"""Rules as users write them, and their form in the model.

``recorded_rules.json`` holds what the kernel kept of each (nft 1.0.6, iptables 1.8.9, Linux 6.18; made by
tools/record_rules.py); the kernel tests write them again and read them live.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from hitless.kernel import netlink
from hitless.kernel.nftables.sets import SetState
from hitless.model.families import Network
from hitless.model.rules import (
    Accept,
    AddrType,
    AnyOf,
    Comment,
    ConnMark,
    CtState,
    Destination,
    DestinationPort,
    Dnat,
    Drop,
    Element,
    Goto,
    IcmpType,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    MoveMark,
    NoTrack,
    Opaque,
    OutInterface,
    Ports,
    Property,
    Protocol,
    Reject,
    Return,
    ReversePath,
    SetMark,
    SetMember,
    SetProperty,
    Silent,
    Snat,
    Source,
    SourcePort,
    Step,
    TcpFlags,
)

RECORDED = Path(__file__).with_name("recorded_rules.json")

V4, V6 = Source(ip_network("0.0.0.0/0")), Source(ip_network("::/0"))
TCP, UDP, ICMP = Protocol(6), Protocol(17), Protocol(1)


def net(text: str) -> Network:
    return ip_network(text)


def states(*names: str, negated: bool = False) -> CtState:
    return CtState(frozenset(names), negated)


def members(direction: str, *networks: str, name: str = "", negated: bool = False) -> SetMember:
    return SetMember(name, direction, frozenset(map(ip_network, networks)), negated)


@dataclass(frozen=True)
class Sample:
    """A rule in a table of ``family``; ``chain`` says which kind of hook it needs."""

    text: str
    expected: tuple[tuple[Step, ...], ...]
    family: str = "ip"
    chain: str = "f"


def nft(text: str, *expected: tuple[Step, ...], family: str = "ip", chain: str = "f") -> Sample:
    return Sample(text, expected, family, chain)


TABLE = """
table {family} t {{
  set wide {{ type ipv4_addr; flags interval; elements = {{ 10.0.0.0/8, 192.168.1.4-192.168.1.7 }} }}
  set short {{ type ipv4_addr; timeout 1h; }}
  set empty {{ type ipv4_addr; }}
  map fate {{ type ipv4_addr . inet_proto . inet_service : verdict;
             elements = {{ 10.43.0.1 . tcp . 80 : drop, 10.43.0.2 . udp . 53 : goto g }} }}
  map nothing {{ type inet_service : verdict; }}
  set pairs {{ type ipv4_addr . inet_service; flags interval; elements = {{ 10.0.0.0/24 . 1-1024 }} }}
  chain g {{ }}
  chain f {{ type filter hook forward priority 0; }}
  chain n {{ type nat hook postrouting priority 100; }}
  chain d {{ type nat hook prerouting priority -100; }}
}}
"""

NFT = [
    nft("accept", (Accept(),)),
    nft("drop", (Drop(),)),
    nft("return", (Return(),)),
    nft("jump g", (Jump("g"),)),
    nft("goto g", (Goto("g"),)),
    nft("counter", ()),
    nft('log prefix "x" accept', (Silent('log prefix "x"'), Accept())),
    nft('ip saddr 10.42.0.0/16 accept comment "why"', (Comment("why"), Source(net("10.42.0.0/16")), Accept())),
    nft("ip saddr 10.42.3.0/25 drop", (Source(net("10.42.3.0/25")), Drop())),
    nft("ip daddr != 224.0.0.0/4 drop", (Destination(net("224.0.0.0/4"), True), Drop())),
    nft("ip daddr 192.0.2.1 drop", (Destination(net("192.0.2.1/32")), Drop())),
    nft(
        "ip saddr 10.0.0.1 ip daddr 10.0.0.2 drop",
        (Source(net("10.0.0.1/32")), Destination(net("10.0.0.2/32")), Drop()),
    ),
    nft("ip daddr & 0.0.0.7 == 1 drop", (Property("bits of the destination", ((1, 1),), 7), Drop())),
    nft('iifname "cali*" oifname "eth0" drop', (InInterface("cali+"), OutInterface("eth0"), Drop())),
    nft('iifname != "lo" drop', (InInterface("lo", True), Drop())),
    nft("meta iif lo drop", (InInterface("lo"), Drop())),
    nft("meta mark 0x4000 return", (Mark(0x4000), Return())),
    nft("meta mark & 0x4000 == 0x4000 return", (Mark(0x4000, 0x4000), Return())),
    nft("meta mark & 0xff != 0x1 return", (Mark(1, 0xFF, True), Return())),
    nft("meta mark set 0x5", (SetMark(5),)),
    nft("meta mark set mark xor 0x4000", (SetMark(0x4000, 0),)),
    nft("meta mark set mark and 0xffff0000", (SetMark(0, 0xFFFF),)),
    nft("meta mark set mark or 0x10", (SetMark(0x10, 0x10),)),
    nft("meta mark set ct mark", (Property("connection", ((1, 1),)), MoveMark(restore=True))),
    nft("ct mark 1 drop", (ConnMark(1), Drop())),
    nft("ct state established,related accept", (states("ESTABLISHED", "RELATED"), Accept())),
    nft("ct state != new accept", (states("NEW", negated=True), Accept())),
    nft("ct state invalid drop", (states("INVALID"), Drop())),
    nft("ct status dnat accept", (states("DNAT"), Accept())),
    nft("ct status assured accept", (Property("ct status", ((0, 0),), 4, True), Accept())),
    nft("fib daddr type local drop", (AddrType("dst", frozenset({"LOCAL"})), Drop())),
    nft("fib saddr . iif oif 0 drop", (ReversePath(True), Drop())),
    nft("fib saddr . iif oif missing drop", (ReversePath(True), Drop())),
    nft("fib saddr . mark . iif oif exists accept", (ReversePath(), Accept())),
    nft("fib daddr . iif oif 0 drop", (Property("route", ((0, 0),)), Drop())),
    nft("udp dport 53 notrack", (UDP, DestinationPort(53, 53), NoTrack())),
    nft("tcp dport 443 drop", (TCP, DestinationPort(443, 443), Drop())),
    nft("tcp dport 1000-2000 drop", (TCP, DestinationPort(1000, 2000), Drop())),
    nft("udp sport != 53 drop", (UDP, SourcePort(53, 53, True), Drop())),
    nft("udp dport != 5-7 drop", (UDP, DestinationPort(5, 7, True), Drop())),
    nft("tcp sport 5 tcp dport 6 drop", (TCP, SourcePort(5, 5), DestinationPort(6, 6), Drop())),
    nft("tcp dport { 80, 443, 8000-8099 } drop", (TCP, Ports("dst", ((80, 80), (443, 443), (8000, 8099))), Drop())),
    nft("tcp dport != { 80, 443 } drop", (TCP, Ports("dst", ((80, 80), (443, 443)), True), Drop())),
    nft("tcp flags syn / syn,ack drop", (TCP, TcpFlags(0x12, 0x02), Drop())),
    nft("icmp type echo-request drop", (ICMP, IcmpType(8), Drop())),
    nft("meta l4proto { tcp, udp } drop", (AnyOf(((TCP,), (UDP,))), Drop())),
    nft("meta l4proto != { tcp, udp } drop", (AnyOf(((TCP,), (UDP,)), True), Drop())),
    nft("th dport 53 drop", (Property("transport dport", ((53, 53),)), Drop())),
    nft("ip saddr { 10.1.0.0/16, 10.2.0.0/16 } drop", (members("src", "10.1.0.0/16", "10.2.0.0/16"), Drop())),
    nft(
        "ip saddr != { 10.1.0.0/16, 10.2.0.0/16 } drop",
        (members("src", "10.1.0.0/16", "10.2.0.0/16", negated=True), Drop()),
    ),
    nft("ip daddr @wide drop", (members("dst", "10.0.0.0/8", "192.168.1.4/30", name="wide"), Drop())),
    nft("ip daddr @short drop", (Element("ip", "t", "short", ("destination",)), Drop())),
    nft("ip daddr @empty drop", (members("dst", name="empty"), Drop())),
    nft(
        "ip saddr . tcp dport @pairs drop",
        (TCP, AnyOf(((Source(net("10.0.0.0/24")), DestinationPort(1, 1024)),), name="pairs"), Drop()),
    ),
    nft(
        "ip daddr . meta l4proto . th dport vmap @fate",
        (Destination(net("10.43.0.1/32")), TCP, DestinationPort(80, 80), Drop()),
        (Destination(net("10.43.0.2/32")), UDP, DestinationPort(53, 53), Goto("g")),
    ),
    nft(
        "ct state vmap { established : accept, invalid : drop, new : jump g }",
        (states("INVALID"), Drop()),
        (states("ESTABLISHED"), Accept()),
        (states("NEW"), Jump("g")),
    ),
    nft("tcp dport vmap @nothing", (TCP, AnyOf(()))),
    nft("limit rate 5/second drop", (Opaque("limit rate 5/second burst 5 packets"), Drop())),
    nft("meta skuid 5 drop", (Property("socket user", ((5, 5),)), Drop())),
    nft("numgen random mod 2 0 drop", (Property("random number", ((0, 0),)), Drop())),
    nft("tcp option maxseg size set 1400", (Protocol(6), SetProperty("tcp option"))),
    nft("ip ttl set 5", (SetProperty("ttl"),)),
    nft("reject", (Reject("icmp port-unreachable"),)),
    nft("tcp dport 1 reject with tcp reset", (TCP, DestinationPort(1, 1), Reject("tcp reset"))),
    nft("masquerade", (Masquerade(),), chain="n"),
    nft("masquerade fully-random", (Masquerade(random_fully=True),), chain="n"),
    nft("masquerade random,persistent", (Masquerade(random=True, persistent=True),), chain="n"),
    nft("meta l4proto tcp masquerade to :1024-2000", (TCP, Masquerade(ports=(1024, 2000))), chain="n"),
    nft("snat to 192.0.2.1", (Snat(ip_address("192.0.2.1"), ip_address("192.0.2.1")),), chain="n"),
    nft(
        "snat to 192.0.2.1-192.0.2.9 fully-random",
        (Snat(ip_address("192.0.2.1"), ip_address("192.0.2.9"), True),),
        chain="n",
    ),
    nft("dnat to 10.0.0.1", (Dnat("10.0.0.1"),), chain="d"),
    nft("tcp dport 80 redirect to :8080", (TCP, DestinationPort(80, 80), Dnat("redirect:8080")), chain="d"),
    nft("ip6 saddr fd42::/48 drop", (Source(net("fd42::/48")), Drop()), family="ip6"),
    nft("ip6 daddr != ff00::/8 drop", (Destination(net("ff00::/8"), True), Drop()), family="ip6"),
    nft(
        "ip6 daddr fd42::1 tcp dport 5 drop",
        (Destination(net("fd42::1/128")), TCP, DestinationPort(5, 5), Drop()),
        family="ip6",
    ),
    nft("masquerade fully-random", (Masquerade(random_fully=True),), family="ip6", chain="n"),
    nft("snat to fd42::1", (Snat(ip_address("fd42::1"), ip_address("fd42::1")),), family="ip6", chain="n"),
    nft("ip saddr 10.0.0.0/8 drop", (V4, Source(net("10.0.0.0/8")), Drop()), family="inet"),
    nft("ip6 saddr fd42::/48 drop", (V6, Source(net("fd42::/48")), Drop()), family="inet"),
    nft("meta nfproto ipv6 drop", (V6, Drop()), family="inet"),
    nft("tcp dport 80 drop", (TCP, DestinationPort(80, 80), Drop()), family="inet"),
    nft(
        "ip daddr @wide drop", (V4, members("dst", "10.0.0.0/8", "192.168.1.4/30", name="wide"), Drop()), family="inet"
    ),
]

FLANNEL = Comment("flanneld masq")


def iptables(text: str, *expected: tuple[Step, ...], family: str = "ip", table: str = "nat") -> Sample:
    return Sample(text, expected, family, table)


IPTABLES = [
    iptables(
        '-m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN',
        (Mark(0x4000, 0x4000), FLANNEL, Return()),
    ),
    iptables(
        '-s 10.42.1.0/24 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN',
        (Source(net("10.42.1.0/24")), Destination(net("10.42.0.0/16")), FLANNEL, Return()),
    ),
    iptables(
        '-s 10.42.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully',
        (Source(net("10.42.0.0/16")), Destination(net("224.0.0.0/4"), True), FLANNEL, Masquerade(random_fully=True)),
    ),
    iptables(
        '! -s fd42::/48 -d fd42:0:0:1::/64 -m comment --comment "flanneld masq" -j RETURN',
        (Source(net("fd42::/48"), True), Destination(net("fd42:0:0:1::/64")), FLANNEL, Return()),
        family="ip6",
    ),
    iptables(
        "-i cali+ ! -o eth0 -p tcp -m tcp --dport 80 -j ACCEPT",
        (InInterface("cali+"), OutInterface("eth0", True), TCP, DestinationPort(80, 80), Accept()),
        table="filter",
    ),
    iptables(
        "-p udp -m multiport --dports 53,5353 -j DROP",
        (UDP, Ports("dst", ((53, 53), (5353, 5353))), Drop()),
        table="filter",
    ),
    iptables(
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        (states("RELATED", "ESTABLISHED"), Accept()),
        table="filter",
    ),
    iptables("-j MARK --set-xmark 0x4000/0x4000", (SetMark(0x4000, 0x4000),), table="filter"),
    iptables("-j LOG", (Silent("-j LOG"),), table="filter"),
    iptables(
        "-m statistic --mode random --probability 0.5 -j DROP",
        (Opaque("-m statistic --mode random --probability 0.50000000000"), Drop()),
        table="filter",
    ),
]


def identity(sample: Sample) -> str:
    return f"{sample.family} {sample.chain} {sample.text}"


def recorded(sample: Sample) -> tuple[bytes, dict[str, SetState]]:
    """What the kernel kept: the rule's message, and the sets of its table."""
    data = json.loads(RECORDED.read_text())
    found = data["rules"][identity(sample)]
    sets: dict[str, SetState] = {}
    for head, elements in found["sets"]:
        state = SetState.read(netlink.attributes(bytes.fromhex(head), 4))
        for each in elements:
            state.apply(bytes.fromhex(each))
        sets[state.name] = state
    return bytes.fromhex(found["rule"]), sets
