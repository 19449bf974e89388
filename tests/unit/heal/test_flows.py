"""Which connection table entries are poisoned: exactly those, and none that a rule or the network leaves alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.start_states import NETWORKS, our_text

from hitless.heal import heal, poisoned
from hitless.heal.flow_groups import Grouping
from hitless.kernel.addresses import Paths
from hitless.kernel.conntrack import SEEN_REPLY, SRC_NAT, Entry, Flow
from hitless.model.families import Backend, Family
from hitless.model.packets import Packet
from hitless.model.rules import (
    Accept,
    AddrType,
    Chain,
    Destination,
    DestinationPort,
    OutInterface,
    Ports,
    Property,
    Protocol,
    Return,
    Rule,
    Ruleset,
    Source,
    SourcePort,
)
from hitless.model.rules import (
    Table as RuleTable,
)
from hitless.semantics import Outcome, evaluate
from hitless.semantics.properties import PROPERTIES
from hitless.testing.fake_kernel import FakeKernel

POD, FAR, NODE = ip_address("10.42.1.7"), ip_address("198.51.100.1"), ip_address("192.0.2.10")
PATHS = Paths(((ip_network("10.42.1.7/32"), "cali1"), (ip_network("0.0.0.0/0"), "eth0")))


def entry(
    dst: str = "198.51.100.1", *, src: str = "10.42.1.7", reply_src: str = "", reply_dst: str = "", status: int = 8,
    protocol: int = 17, sport: int = 1000, dport: int = 53,
) -> Entry:  # fmt: skip
    original = Flow(ip_address(src), ip_address(dst), protocol, sport, dport)
    reply = Flow(ip_address(reply_src or dst), ip_address(reply_dst or src), protocol, dport, sport)
    return Entry(original, reply, status, 0, f"{dst}{sport}".encode())


class Table:
    def __init__(self, *entries: Entry) -> None:
        self.entries = list(entries)

    def dump(self, family: Family, *, without: int = 0) -> Iterator[Entry]:
        return iter([one for one in self.entries if not one.status & without])

    def delete_all(self, family: Family, entries: Sequence[Entry]) -> Sequence[Entry]:
        self.entries = [one for one in self.entries if one not in entries]
        return entries


def rules(*extra: str) -> FakeKernel:
    kernel = FakeKernel()
    for text in our_text(Backend.NFT, Family.IPV4):
        kernel.write(Backend.NFT, Family.IPV4, text)
    for line in extra:
        kernel.write(Backend.NFT, Family.IPV4, f"*nat\n{line}\nCOMMIT\n")
    return kernel


def healed(kernel: FakeKernel, *entries: Entry) -> list[Entry]:
    """The entries that healing takes away."""
    table = Table(*entries)
    networks = NETWORKS[Family.IPV4]
    count = heal(
        table, Family.IPV4, (networks.subnet,), (networks.network,),
        lambda: frozenset({NODE}), kernel.ruleset, lambda: PATHS,
    )  # fmt: skip
    gone = [one for one in entries if one not in table.entries]
    assert count == len(gone)
    return gone


def test_a_flow_to_the_outside_that_was_bound_without_translation_is_freed() -> None:
    dead = entry()
    assert healed(rules(), dead) == [dead]


def test_through_a_service_the_place_where_it_really_went_counts() -> None:
    inside = entry("10.43.0.10", reply_src="10.42.2.9")
    outside = entry("10.43.0.11", reply_src="203.0.113.5")
    assert healed(rules(), inside, outside) == [outside]


@pytest.mark.parametrize(
    "healthy",
    [
        entry(status=8 | SEEN_REPLY),
        entry(status=8 | SRC_NAT, reply_dst="192.0.2.10"),
        entry(reply_dst="192.0.2.10"),
        entry("10.42.2.9"),
        entry("192.0.2.10"),
        entry("224.0.0.251"),
        entry("169.254.169.254"),
        entry(src="10.42.2.7"),
        entry(src="192.0.2.10"),
    ],
    ids=["answered", "translated", "reply elsewhere", "to a pod", "to the node", "multicast", "link-local",
         "another node's pod", "the node's own"],
)  # fmt: skip
def test_everything_else_is_left_alone(healthy: Entry) -> None:
    assert healed(rules(), healthy) == []


def test_what_a_rule_exempts_on_purpose_is_left_alone() -> None:
    exempt, dead = entry("192.168.7.7"), entry("192.168.8.8")
    kernel = rules("-I FLANNEL-POSTRTG 1 -d 192.168.7.0/24 -j RETURN")
    assert healed(kernel, exempt, dead) == [dead]


def test_an_exemption_by_port_tells_flows_apart() -> None:
    kernel = rules("-I POSTROUTING 1 -p udp -m udp --dport 53 -j ACCEPT")
    to_dns, other = entry(dport=53, sport=1), entry(dport=54, sport=2)
    tcp = entry(dport=53, sport=3, protocol=6)
    assert healed(kernel, to_dns, other, tcp) == [other, tcp]


def test_while_the_rules_are_gone_nothing_is_touched() -> None:
    kernel = rules("-F FLANNEL-POSTRTG")
    assert healed(kernel, entry()) == []


def test_one_evaluation_serves_all_flows_that_no_rule_tells_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Packet] = []

    def counting(rules: Ruleset, packet: Packet, hooks: Sequence[str]) -> Outcome:
        asked.append(packet)
        return evaluate(rules, packet, hooks=hooks)

    monkeypatch.setattr("hitless.heal.flows.evaluate", counting)
    many = [entry(sport=number) for number in range(1, 500)]
    assert len(list(poisoned(many, frozenset(), rules().ruleset(), PATHS))) == 499
    assert len(asked) < 5


def test_flows_to_many_places_are_one_case_while_no_rule_asks_where_to(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Packet] = []

    def counting(rules: Ruleset, packet: Packet, hooks: Sequence[str]) -> Outcome:
        asked.append(packet)
        return evaluate(rules, packet, hooks=hooks)

    monkeypatch.setattr("hitless.heal.flows.evaluate", counting)
    many = [entry(f"198.51.{high}.{low}") for high in range(20) for low in range(1, 40)]
    assert len(list(poisoned(many, frozenset(), rules().ruleset(), PATHS))) == len(many)
    assert len(asked) < 6


ASKING = (
    Rule((Protocol(6), Destination(ip_network("198.51.100.0/24")), Return())),
    Rule((Protocol(17), DestinationPort(53, 53), Return())),
    Rule((Protocol(17), SourcePort(1000, 1003), Accept())),
    Rule((Ports("either", ((80, 81), (1004, 1004))), Return())),
    Rule((Source(ip_network("10.42.1.7/32")), OutInterface("eth1"), Accept())),
    Rule((Destination(ip_network("203.0.113.0/25"), negated=True), Source(ip_network("10.42.1.8/32")), Accept())),
    Rule((AddrType("dst", frozenset({"LOCAL"})), Return())),
)


def asking(first: Iterable[int], inner: Iterable[int]) -> Ruleset:
    """Our rules, with rules that ask about flows in front, of the base chain and of ours."""
    found = []
    for table in rules().ruleset().tables:
        chains = dict(table.chains)
        for name, picked in (("POSTROUTING", first), ("FLANNEL-POSTRTG", inner)):
            if name in chains:
                more = tuple(ASKING[number] for number in sorted(picked))
                chains[name] = replace(chains[name], rules=(*more, *chains[name].rules))
        found.append(replace(table, chains=chains))
    return Ruleset(tuple(found))


@given(
    first=st.sets(st.integers(0, len(ASKING) - 1), max_size=3),
    inner=st.sets(st.integers(0, len(ASKING) - 1), max_size=3),
    flows=st.lists(
        st.tuples(
            st.sampled_from(["198.51.100.1", "198.51.101.1", "203.0.113.5", "203.0.113.200", "10.42.9.9"]),
            st.sampled_from(["10.42.1.7", "10.42.1.8"]), st.sampled_from([6, 17]), st.sampled_from([1000, 1003, 1004]),
            st.sampled_from([53, 80]),
        ),
        max_size=12,
    ),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_flows_evaluated_in_groups_get_the_same_result_as_one_by_one(
    first: set[int], inner: set[int], flows: list[tuple[str, str, int, int, int]]
) -> None:
    paths = Paths((*PATHS.routes, (ip_network("203.0.113.0/24"), "eth1")))
    ruleset = asking(first, inner)
    entries = [entry(to, src=src, protocol=kind, sport=sport, dport=dport) for to, src, kind, sport, dport in flows]
    alone = [one for one in entries for _ in poisoned([one], frozenset(), ruleset, paths)]
    assert list(poisoned(entries, frozenset(), ruleset, paths)) == alone


PROPERTY_VALUES = {
    "bits of the destination": int(ip_address("198.51.100.1")),
    "bits of the source": int(POD),
    "ct destination original": int(ip_address("198.51.100.1")),
    "ct destination reply": int(POD),
    "ct dport original": 53,
    "ct source original": int(POD),
    "ct source reply": int(ip_address("198.51.100.1")),
    "ct sport original": 1000,
    "ct sport reply": 53,
    "transport dport": 53,
    "transport sport": 1000,
    "protocol": 17,
    "ct protocol": 17,
}


@pytest.mark.parametrize("name", [*sorted(PROPERTIES), "recent guests source listed", "of a later kernel"])
@pytest.mark.parametrize("negated", [False, True])
def test_no_property_of_an_address_or_a_port_merges_flows(name: str, negated: bool) -> None:
    """Flows that a property tells apart are judged apart, whatever the property is called."""
    value = PROPERTY_VALUES.get(name, 0)
    rule = Rule((Property(name, ((value, value),), negated=negated), Return()))
    tables = []
    for table in rules().ruleset().tables:
        chains = dict(table.chains)
        if "POSTROUTING" in chains:
            chains["POSTROUTING"] = replace(chains["POSTROUTING"], rules=(rule, *chains["POSTROUTING"].rules))
        tables.append(replace(table, chains=chains))
    entries = [
        entry(to, src=src, protocol=kind, sport=sport, dport=dport)
        for to in ("198.51.100.1", "198.51.100.2")
        for src in ("10.42.1.7", "10.42.1.8")
        for kind in (6, 17)
        for sport in (1000, 1001)
        for dport in (53, 54)
    ]
    for order in (entries, entries[::-1]):
        alone = [one for one in order for _ in poisoned([one], frozenset(), Ruleset(tuple(tables)), PATHS)]
        assert list(poisoned(order, frozenset(), Ruleset(tuple(tables)), PATHS)) == alone


def test_a_property_that_is_not_known_makes_every_flow_a_case_of_its_own() -> None:
    grouping = Grouping(
        Ruleset((RuleTable("ip", "nat", {"C": Chain("C", (Rule((Property("of a later kernel", ((1, 1),)),)),))}),)),
        PATHS,
    )
    assert grouping.key(entry(sport=1)) == grouping.key(entry(sport=2))
    assert grouping.learn([("ip", "nat", "C")])
    assert grouping.key(entry(sport=1)) != grouping.key(entry(sport=2))
    assert grouping.key(entry("198.51.100.1")) != grouping.key(entry("198.51.100.2"))
