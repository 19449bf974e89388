"""Which packets are asked about, and what counts as an answer."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.kernel.nftables import TableChange
from hitless.model.families import Backend
from hitless.model.headers import PacketHeader
from hitless.model.links import Device
from hitless.model.rules import (
    Accept,
    Chain,
    Destination,
    Drop,
    Hook,
    InInterface,
    Jump,
    Masquerade,
    Opaque,
    Protocol,
    Return,
    Rule,
    Ruleset,
    Source,
    Step,
    Table,
)
from hitless.observe import Asking, NodeView, find, matching
from hitless.observe.judging import Judge
from hitless.watch import load
from hitless.watch.feeds import _changed, _compared
from hitless.watch.networks import pod_networks

NETWORK = ip_network("10.42.0.0/16")


def rule(*steps: Step) -> Rule:
    return Rule(steps)


def nat(*rules: Rule) -> Table:
    post = Chain("POSTROUTING", (rule(Jump("FLANNEL-POSTRTG")),), Hook("nat", "postrouting", 100))
    return Table("ip", "nat", {"POSTROUTING": post, "FLANNEL-POSTRTG": Chain("FLANNEL-POSTRTG", rules)})


def forward(*rules: Rule) -> Table:
    chains = {"FORWARD": Chain("FORWARD", rules, Hook("filter", "forward", 0))}
    return Table("ip", "filter", chains)


MASQUERADE = rule(Source(NETWORK), Destination(ip_network("224.0.0.0/4"), True), Masquerade())


def judge(*interfaces: str) -> Judge:
    links = {name: Device(name, "veth", carrier=True) for name in (*interfaces, "e")}
    asking = Asking(NETWORK, protocols=(6, 17, 1), links=("v+", "cali+"))
    return Judge(NETWORK, find(asking, NodeView(links), lambda *_: "e"))


def test_the_worst_answer_of_all_packets_counts() -> None:
    assert judge("v").answer(Ruleset((nat(MASQUERADE),))).state == "carried"
    answer = judge("v").answer(Ruleset((nat(rule(Protocol(17), Return()), MASQUERADE),)))
    assert answer.state == "not_carried"
    assert "udp to 198.51.100" in answer.reason
    answer = judge("v").answer(Ruleset((nat(rule(Protocol(1), Opaque("?"), Return()), MASQUERADE),)))
    assert answer.state == "cannot_tell"
    assert "icmp to" in answer.reason


def test_a_no_is_worse_than_a_cannot_tell() -> None:
    rules = nat(rule(Protocol(6), Opaque("?"), Return()), rule(Protocol(1), Return()), MASQUERADE)
    assert judge("v").answer(Ruleset((rules,))).state == "not_carried"


def test_one_destination_that_is_cut_off_is_a_no() -> None:
    for half in ("0.0.0.0/1", "128.0.0.0/1"):
        cut = nat(rule(Destination(ip_network(half)), Return()), MASQUERADE)
        assert judge("v").answer(Ruleset((cut,))).state == "not_carried"


def test_one_pod_that_is_cut_off_is_no_gap_and_all_of_them_are_one() -> None:
    one = forward(rule(InInterface("cali1"), Drop()), rule(InInterface("cali2"), Accept()))
    everyone = forward(rule(InInterface("cali+"), Drop()))
    asked = judge("cali1", "cali2")
    assert asked.answer(Ruleset((nat(MASQUERADE), one))).state == "carried"
    counted = asked.count(Ruleset((nat(MASQUERADE), one)))
    assert (counted.state, counted.pods, counted.kept) == ("carried", 2, 1)
    assert "1 of 2 pods is kept in by FORWARD" in counted.partly
    assert judge("cali1", "cali2").answer(Ruleset((nat(MASQUERADE), everyone))).state == "not_carried"


def test_a_no_depends_on_the_chains_of_all_pods_that_were_asked_about() -> None:
    chains = {
        "FORWARD": Chain(
            "FORWARD",
            (rule(InInterface("cali1"), Jump("one")), rule(InInterface("cali2"), Jump("two"))),
            Hook("filter", "forward", 0),
        ),
        "one": Chain("one", (rule(Drop()),)),
        "two": Chain("two", (rule(Drop()),)),
    }
    answer = judge("cali1", "cali2").answer(Ruleset((nat(MASQUERADE), Table("ip", "filter", chains))))
    assert {("ip", "filter", "one"), ("ip", "filter", "two")} <= answer.chains


def test_an_answer_names_the_chains_that_took_part_and_no_others() -> None:
    answer = judge("v").answer(Ruleset((nat(MASQUERADE), forward())))
    assert answer.chains == {
        ("ip", "nat", "POSTROUTING"),
        ("ip", "nat", "FLANNEL-POSTRTG"),
        ("ip", "filter", "FORWARD"),
    }


def test_no_packet_is_no_answer() -> None:
    witnesses = replace(find(Asking(NETWORK), NodeView(), lambda *_: ""), packets=())
    assert Judge(NETWORK, witnesses).answer(Ruleset(())).state == "cannot_tell"


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["cali+", "veth+"], ["cali1", "cali2", "veth0"]),
        (["veth+"], ["veth0"]),
        (["eth0"], ["eth0"]),
        (["eth"], []),
        ([], []),
    ],
)
def test_interfaces_are_found_by_pattern_in_the_order_of_the_patterns(patterns: list[str], found: list[str]) -> None:
    assert matching(["lo", "eth0", "veth0", "cali1", "cali2"], patterns) == found


def test_pod_networks_are_the_sources_that_the_profiles_chains_masquerade() -> None:
    rules = nat(
        rule(Source(ip_network("10.42.1.0/24")), Return()),
        MASQUERADE,
        rule(Source(NETWORK, True), Destination(NETWORK), Masquerade()),
        rule(Masquerade()),
    )
    elsewhere = Table("ip", "nat2", {"FLANNEL-POSTRTG": Chain("FLANNEL-POSTRTG", (MASQUERADE,))})
    assert pod_networks(Ruleset((rules, elsewhere)), load("canal")) == {NETWORK: "FLANNEL-POSTRTG"}


def test_a_legacy_change_is_told_by_the_chains_that_are_followed() -> None:
    before, after = nat(MASQUERADE, rule(Return())), nat(rule(Drop()), MASQUERADE)
    change = _compared(("ip", "nat"), before, after, ["FLANNEL-POSTRTG", "POSTROUTING", "gone"], [])
    assert (change.backend, change.added, change.removed) == (Backend.LEGACY, 1, 1)
    assert change.chains == {"FLANNEL-POSTRTG"}
    assert change.summary == "FLANNEL-POSTRTG: -1 +1 rules"
    assert _compared(("ip", "nat"), before, after, [], []).summary == "table replaced"
    swapped = _compared(("ip", "nat"), before, nat(rule(Return()), MASQUERADE), ["FLANNEL-POSTRTG"], [])
    assert swapped.summary == "FLANNEL-POSTRTG: reordered"
    assert swapped.chains == {"FLANNEL-POSTRTG"}


def test_a_legacy_change_that_no_packet_to_the_far_ends_can_meet_is_told_as_none() -> None:
    class Sorted(dict[str, Chain]):
        """A lazy table's chains, as far as rules for a destination go."""

        def hooks(self) -> tuple[()]:
            return ()

        def rules_for(self, name: str, header: PacketHeader) -> list[tuple[int, Rule]]:
            destination = ip_address(header.destination or b"")
            return [
                (number, each)
                for number, each in enumerate(self[name].rules, 1)
                if not any(isinstance(step, Destination) and destination not in step.network for step in each.steps)
            ]

    def services(*addresses: str) -> Table:
        rules = [rule(Destination(ip_network(address)), Return()) for address in addresses]
        return Table("ip", "nat", Sorted({"KUBE-SERVICES": Chain("KUBE-SERVICES", (*rules, rule(Return())))}))

    far = [PacketHeader(4, 6, None, ip_address(each).packed) for each in ("198.51.100.77", "8.8.8.8")]
    two, three = services("10.43.0.1", "10.43.0.2"), services("10.43.0.1", "10.43.0.2", "10.43.0.3")
    assert not _compared(("ip", "nat"), two, three, ["KUBE-SERVICES"], far).chains
    own = _compared(("ip", "nat"), two, services("10.43.0.1", "8.8.8.8"), ["KUBE-SERVICES"], far)
    assert own.chains == {"KUBE-SERVICES"}
    assert own.summary == "KUBE-SERVICES: +1 rule"


def test_a_legacy_table_that_comes_or_goes_changes_its_hooks() -> None:
    assert _compared(("ip", "filter"), None, forward(), [], []).hooks == {"forward"}
    assert _compared(("ip", "nat"), nat(), None, ["FLANNEL-POSTRTG"], []).hooks == {"postrouting"}


@pytest.mark.parametrize(
    ("family", "table", "backend"),
    [(2, "nat", Backend.NFT), (10, "filter", Backend.NFT), (1, "nat", Backend.NFTABLES), (2, "mine", Backend.NFTABLES)],
)
def test_the_backend_is_known_by_family_and_name_of_the_table(family: int, table: str, backend: Backend) -> None:
    assert _changed(TableChange((family, table))).backend is backend


@pytest.mark.slow
@given(st.lists(st.sampled_from(["accept", "drop", "return"]), max_size=8))
def test_counting_changed_rules_does_not_depend_on_their_order(names: list[str]) -> None:
    steps: dict[str, Step] = {"accept": Accept(), "drop": Drop(), "return": Return()}
    rules = [rule(steps[name]) for name in names]
    change = _compared(("ip", "nat"), nat(*rules), nat(*reversed(rules)), ["FLANNEL-POSTRTG"], [])
    assert (change.added, change.removed) == (0, 0)
