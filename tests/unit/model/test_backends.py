"""Each backend says everything about itself, and what asks it needs no name."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from hitless.desired import desired_state
from hitless.kernel import rule_text
from hitless.model.families import Backend, Family, KernelPath
from hitless.model.state import NodeState, Place, Purpose
from hitless.plan import cleanup, plan
from hitless.sources import FamilyNetworks, SourceSnapshot

NETWORKS = {
    Family.IPV4: (ip_network("10.42.0.0/16"), ip_network("10.42.3.0/24")),
    Family.IPV6: (ip_network("fd42::/48"), ip_network("fd42:0:0:3::/64")),
}
WRITERS = {
    Backend.NFT: ("iptables-nft-restore", "ip6tables-nft-restore"),
    Backend.LEGACY: ("iptables-legacy-restore", "ip6tables-legacy-restore"),
    Backend.NFTABLES: ("nft", "nft"),
}
TOOLS = {
    Backend.NFT: ("iptables-nft-save", "ip6tables-nft-save"),
    Backend.LEGACY: ("iptables-legacy-save", "ip6tables-legacy-save"),
    Backend.NFTABLES: ("iptables-nft-save", "ip6tables-nft-save"),
}


def test_programs() -> None:
    assert {backend: tuple(backend.writer(family) for family in Family) for backend in Backend} == WRITERS
    assert {backend: tuple(backend.tool(family, "-save") for family in Family) for backend in Backend} == TOOLS


@pytest.mark.parametrize("backend", Backend)
def test_what_a_backend_says_of_itself_fits_together(backend: Backend) -> None:
    assert backend.needs
    assert backend.legacy is (backend.path is KernelPath.XTABLES)
    assert not backend.iptables.native
    assert backend.iptables.path is backend.path
    assert Backend.of(backend.path, native=backend.native).native is backend.native
    assert len({backend.table(family) for family in Family}) == (len(Family) if backend.native else 1)
    assert bool(backend.table(Family.IPV4)) is backend.native


def test_no_two_places_are_one_chain() -> None:
    places = [Place(backend, family, purpose) for backend in Backend for family in Family for purpose in Purpose]
    chains = [(place.backend.path, place.family, place.names.table, place.names.chain) for place in places]
    assert len(set(chains)) == len(places)


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("backend", Backend)
def test_what_is_planned_for_a_backend_may_be_written(backend: Backend, family: Family) -> None:
    network, subnet = NETWORKS[family]
    wanted = desired_state(SourceSnapshot({family: FamilyNetworks(network, subnet)}, masquerade=True), backend)
    made, removed = plan(wanted, NodeState({})), cleanup(wanted)
    assert made.transactions
    assert removed.transactions
    for transaction in (*made.transactions, *removed.transactions):
        assert transaction.program == backend.writer(family)
        rule_text.check(transaction.program, transaction.text)
