"""Every kind of condition says everything about itself, and what it says of telling packets apart is true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import product

import pytest
from tests.unit.model.kinds import KINDS

from hitless.model import rules
from hitless.model.families import Address, Network
from hitless.model.matches import Distinctions
from hitless.model.packets import ICMP, TCP, UDP, Packet
from hitless.model.rules import Match
from hitless.semantics.properties import PROPERTIES, EvaluationContext
from hitless.semantics.walk_state import WalkState

ABSTRACT = sorted(name for name, each in vars(Match).items() if getattr(each, "__isabstractmethod__", False))
PODS, FAR = ip_network("10.42.0.0/24"), ip_network("203.0.113.0/25")
SOURCES = [ip_address(each) for each in ("10.42.0.5", "10.42.0.6", "10.42.1.7")]
DESTINATIONS = [ip_address(each) for each in ("203.0.113.9", "203.0.113.200")]


class Large:
    """A set that is asked, not listed."""

    def __repr__(self) -> str:
        return "Large()"  # a test's name: the same in every process that runs some of the tests

    def covers(self, address: Address) -> bool:
        return address in PODS

    def networks(self) -> Iterator[Network]:
        yield PODS

    def __len__(self) -> int:
        return 100_000


FEW = frozenset({PODS, ip_network("203.0.113.9/32")})
SAMPLES: tuple[Match, ...] = (
    rules.Source(PODS),
    rules.Destination(FAR),
    rules.Destination(ip_network("10.42.0.6/32")),
    rules.InInterface("veth1"),
    rules.InInterface("veth+"),
    rules.OutInterface("eth0"),
    rules.OutInterface("ve+"),
    rules.Mark(1),
    rules.ConnMark(0),
    rules.Protocol(UDP),
    rules.SourcePort(40000, 40001),
    rules.DestinationPort(443, 443),
    rules.Ports("src", ((40000, 40000), (50000, 50000))),
    rules.Ports("either", ((443, 443), (40001, 40001))),
    rules.TcpFlags(0x17, 2),
    rules.IcmpType(8),
    rules.CtState(frozenset({"NEW"})),
    rules.AddrType("dst", frozenset({"UNICAST"})),
    rules.ReversePath(),
    rules.SetMember("few", "src", FEW),
    rules.SetMember("few", "dst", FEW),
    rules.SetMember("large", "src", Large()),
    rules.SetMember("#3", "src"),
    *(rules.Property(name, ((0, 1 << 16),)) for name in sorted(PROPERTIES)),
    *(rules.Property(name, ((40000, 40000), (443, 443))) for name in sorted(PROPERTIES)),
    rules.Property("of a later kernel", ((0, 0),)),
    rules.AnyOf(((rules.Source(PODS), rules.DestinationPort(443, 443)), (rules.InInterface("veth9"),))),
    rules.Element("ip", "t", "s", ("source", "dport")),
    rules.Comment("why"),
    rules.Opaque("-m limit --limit 1/day"),
)


def test_every_kind_has_a_sample_and_no_kind_inherits_an_answer() -> None:
    assert {type(each) for each in SAMPLES} == KINDS
    assert ABSTRACT == ["check", "distinguishes_flows", "distinguishes_pods", "iptables", "native", "nft"]
    for kind in KINDS:
        assert [name for name in ABSTRACT if name not in vars(kind)] == [], f"{kind.__name__} inherits these"


def checked(step: Match, packet: Packet) -> bool | None:
    hook = "prerouting" if not packet.oif else "forward"
    return step.check(EvaluationContext(packet, WalkState(packet.mark, 0, None, packet.state), hook, Node(), "eth0"))


class Node:
    """Answers by the address or interface that it is asked about, so that a condition that asks is seen to do so."""

    version = 1

    def index(self, interface: str) -> int | None:
        return len(interface)

    def group(self, interface: str) -> int | None:
        return int(interface == "veth1")

    def kind(self, interface: str) -> str | None:
        return interface

    def address(self, interface: str, family: object) -> Address | None:
        return None

    def set_name(self, number: int) -> str | None:
        return None

    def in_set(self, number: int, directions: object, packet: Packet) -> bool | None:
        return packet.src == SOURCES[0]

    def has_element(self, family: str, table: str, name: str, key: tuple[bytes, ...]) -> bool | None:
        return key[0] == SOURCES[0].packed

    def ipsec(self) -> bool | None:
        return False

    def quota(self, account: str) -> bool | None:
        return False

    def recent(self, name: str, address: str) -> bool | None:
        return address == str(SOURCES[0])


def key(by: Distinctions, packet: Packet, *, flows: bool) -> tuple[object, ...]:
    """Equal for packets that agree in all by which a condition tells them apart."""
    if by.alone or (flows and by.members):
        return (packet,)
    ends = (packet.src, packet.dst)
    found: tuple[object, ...] = tuple(end in each for each in by.networks for end in ends)
    found += tuple(each.covers(end) for each in by.members for end in ends)
    if flows:  # each passes the same two interfaces
        compared_parts = (("protocol", by.protocol), ("sport", by.sport), ("dport", by.dport))
        return found + tuple(getattr(packet, name) for name, part in compared_parts if part)
    links = (packet.iif, packet.oif)
    return found + tuple(
        link.startswith(name[:-1]) if name.endswith("+") else link == name for name in by.interfaces for link in links
    )


def disagreeing(step: Match, by: Distinctions, packets: list[Packet], *, flows: bool) -> list[Packet]:
    """The packets that get another answer than one that is alike."""
    groups: dict[tuple[object, ...], list[tuple[Packet, bool | None]]] = {}
    for packet in packets:
        groups.setdefault(key(by, packet, flows=flows), []).append((packet, checked(step, packet)))
    return [packet for group in groups.values() for packet, answer in group if answer != group[0][1]]


def both_ways(step: Match) -> list[Match]:
    """The condition and its opposite, if it has one."""
    return [step, replace(step, negated=True)] if hasattr(step, "negated") else [step]  # type: ignore[type-var]


@pytest.mark.parametrize("step", SAMPLES, ids=repr)
def test_flows_that_a_condition_does_not_tell_apart_get_the_same_answer(step: Match) -> None:
    packets = [
        Packet(source, far, protocol, sport, dport, "veth1", "eth0")
        for source, far, protocol in product(SOURCES, DESTINATIONS, (TCP, UDP, ICMP))
        for sport, dport in product((40000, 50000), (443, 53))
    ]
    for each in both_ways(step):
        assert disagreeing(each, each.distinguishes_flows(), packets, flows=True) == []


@pytest.mark.parametrize("step", SAMPLES, ids=repr)
def test_pods_that_a_condition_does_not_tell_apart_get_the_same_answer(step: Match) -> None:
    for each, protocol, far in product(both_ways(step), (TCP, UDP, ICMP), DESTINATIONS):
        pods = list(product(SOURCES, ("veth1", "veth2", "cali3")))
        out = [Packet(pod, far, protocol, 40000, 443, link, "eth0") for pod, link in pods]
        back = [
            Packet(far, pod, protocol, 443, 40000, "eth0", link, state="ESTABLISHED", reply=True) for pod, link in pods
        ]
        for packets in (out, back):
            assert disagreeing(each, each.distinguishes_pods(), packets, flows=False) == []
