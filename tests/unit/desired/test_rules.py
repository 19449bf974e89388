"""The desired rules, judged by what they do to packets and not by their text."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from tests.contract.start_states import NETWORKS, SAMPLES, snapshot

from hitless.desired import desired_state
from hitless.model.families import Backend, Family, Network
from hitless.model.packets import Packet
from hitless.model.rules import Ruleset
from hitless.model.state import NodeState
from hitless.plan import plan
from hitless.semantics import evaluate
from hitless.sources import FamilyNetworks, SourceSnapshot
from hitless.testing.fake_kernel import FakeKernel

EVERY = [(backend, family) for backend in Backend for family in Family]


def rules(backend: Backend, family: Family, wanted: SourceSnapshot | None = None) -> Ruleset:
    kernel = FakeKernel()
    for transaction in plan(desired_state(wanted or snapshot(family), backend), NodeState()).transactions:
        kernel.apply(transaction)
    return kernel.ruleset()


def at(network: Network, number: int) -> str:
    return str(network[number])


def packet(family: Family, src: str, dst: str, mark: int = 0) -> Packet:
    networks = NETWORKS[family]
    places = {
        "pod": at(networks.subnet, 9),
        "other pod": at(networks.network, 0x909),
        "node": "192.0.2.10" if family is Family.IPV4 else "2001:db8:0:1::10",
        "outside": "198.51.100.1" if family is Family.IPV4 else "2001:db8:ffff::1",
        "multicast": str(family.multicast[9]),
    }
    return Packet(ip_address(places[src]), ip_address(places[dst]), mark=mark)


@pytest.mark.parametrize(("backend", "family"), EVERY)
@pytest.mark.parametrize(
    ("src", "dst", "mark", "translated"),
    [
        ("pod", "outside", 0, True),
        ("other pod", "outside", 0, True),
        ("pod", "other pod", 0, False),
        ("other pod", "pod", 0, False),
        ("outside", "pod", 0, False),
        ("node", "pod", 0, False),
        ("node", "other pod", 0, True),
        ("outside", "other pod", 0, True),
        ("node", "outside", 0, False),
        ("pod", "multicast", 0, False),
        ("pod", "outside", 0x4000, False),
        ("pod", "outside", 0xC001, False),
        ("pod", "outside", 0x8000, True),
    ],
)
def test_what_is_translated(backend: Backend, family: Family, src: str, dst: str, mark: int, translated: bool) -> None:
    outcome = evaluate(rules(backend, family), packet(family, src, dst, mark), hooks=("postrouting",))
    assert (outcome.state == "carried") is translated, outcome.reason


@pytest.mark.parametrize("family", list(Family))
def test_flannels_native_rules_have_the_two_defects_that_are_fixed_here(family: Family) -> None:
    kernel = FakeKernel()
    networks = NETWORKS[family]
    text = (SAMPLES / "0.28-nftables.nft").read_text()
    for word, value in (
        ("NETWORK", networks.network), ("SUBNET", networks.subnet), ("MULTICAST", family.multicast),
        ("FAMILY", family.nft), ("TABLE", f"flannel-{family.value}"),
    ):  # fmt: skip
        text = text.replace(word, str(value))
    kernel.write(Backend.NFTABLES, family, text)
    marked = evaluate(kernel.ruleset(), packet(family, "pod", "outside", 0xC001), hooks=("postrouting",))
    assert marked.state == "carried", "kube-proxy's mark beside another bit"
    host = evaluate(kernel.ruleset(), packet(family, "node", "other pod"), hooks=("postrouting",))
    assert host.state == "not_carried", "the host towards pods of other nodes"


def test_forwarding_from_and_to_pods_is_accepted_whatever_the_policy() -> None:
    kernel = FakeKernel()
    kernel.write(Backend.NFT, Family.IPV4, "*filter\n-A FORWARD -d 203.0.113.9/32 -j DROP\nCOMMIT\n")
    for transaction in plan(desired_state(snapshot(Family.IPV4), Backend.NFT), NodeState()).transactions:
        kernel.apply(transaction)
    assert evaluate(kernel.ruleset(), packet(Family.IPV4, "pod", "outside")).state == "carried"


@pytest.mark.parametrize("backend", list(Backend))
def test_pods_in_a_draining_network_are_carried_too(backend: Backend) -> None:
    old = ip_network("10.99.0.0/16")
    networks = FamilyNetworks(NETWORKS[Family.IPV4].network, NETWORKS[Family.IPV4].subnet, (old,))
    wanted = replace(snapshot(Family.IPV4), networks={Family.IPV4: networks})
    made = rules(backend, Family.IPV4, wanted)
    outside = ip_address("198.51.100.1")
    assert evaluate(made, Packet(ip_address("10.99.1.7"), outside)).state == "carried"
    among = Packet(ip_address("10.99.1.7"), ip_address("10.99.1.8"))
    assert evaluate(made, among, hooks=("postrouting",)).state == "not_carried"


def test_what_is_not_asked_for_is_not_named() -> None:
    off = replace(snapshot(*Family), masquerade=False, forward=False)
    assert desired_state(off, Backend.NFT).places == {}
