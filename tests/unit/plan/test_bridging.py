"""While another program flushes whole tables: what carries the pods without disturbing it."""

from __future__ import annotations

import pytest
from tests.contract.adoption import carried, is_right
from tests.contract.start_states import snapshot

from hitless.agent.reconciliation import reconcile
from hitless.desired import desired_state
from hitless.model.families import Backend, Family
from hitless.plan import bridge, torn
from hitless.testing.fake_kernel import FakeKernel

IPTABLES = pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
FAMILIES = (Family.IPV4, Family.IPV6)
FLUSHES = {
    "the whole table": "*nat\n-F POSTROUTING\n-F FLANNEL-POSTRTG\nCOMMIT\n",
    "and its chains are deleted": "*nat\n-F POSTROUTING\n-F FLANNEL-POSTRTG\n-X FLANNEL-POSTRTG\nCOMMIT\n",
    "chain by chain, ours not yet": "*nat\n-F POSTROUTING\nCOMMIT\n",
}


def adopted(backend: Backend, *families: Family) -> FakeKernel:
    kernel = FakeKernel()
    assert reconcile(kernel, snapshot(*families), backend).settled
    return kernel


def is_torn(kernel: FakeKernel, backend: Backend, *families: Family) -> bool:
    return torn(desired_state(snapshot(*families), backend), kernel.observe(families))


@IPTABLES
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", FLUSHES)
def test_after_a_flush_the_pods_are_carried_without_iptables_rules(backend: Backend, family: Family, name: str) -> None:
    kernel = adopted(backend, family)
    kernel.write(backend, family, FLUSHES[name])
    assert is_torn(kernel, backend, family)
    assert carried(kernel.egress((family,)), family)[0] == "not_carried"
    result = reconcile(kernel, snapshot(family), backend, how=bridge)
    assert result.settled
    assert [one.backend for one in result.applied] == [Backend.NFTABLES]
    assert carried(kernel.egress((family,)), family)[0] == "carried"
    assert not reconcile(kernel, snapshot(family), backend, how=bridge).applied, "it stands"


@IPTABLES
@pytest.mark.parametrize("family", FAMILIES)
def test_after_the_reload_everything_is_added_before_the_bridge_is_removed(backend: Backend, family: Family) -> None:
    kernel = adopted(backend, family)
    kernel.write(backend, family, FLUSHES["and its chains are deleted"])
    kernel.write(backend, family, "*filter\n-F FORWARD\n-F FLANNEL-FWD\nCOMMIT\n")
    reconcile(kernel, snapshot(family), backend, how=bridge)
    before = len(kernel.history)
    assert reconcile(kernel, snapshot(family), backend).settled
    assert {carried(rules, family)[0] for rules in kernel.history[before:]} == {"carried"}
    is_right(kernel.observe((family,)), snapshot(family), backend)


@IPTABLES
def test_the_family_that_is_cut_off_comes_first_and_the_other_is_prepared(backend: Backend) -> None:
    for family in FAMILIES:
        kernel = adopted(backend, *FAMILIES)
        kernel.write(backend, family, FLUSHES["the whole table"])
        result = reconcile(kernel, snapshot(*FAMILIES), backend, how=bridge)
        assert [one.family for one in result.applied] == [family, *(one for one in FAMILIES if one is not family)]


@IPTABLES
@pytest.mark.parametrize("family", FAMILIES)
def test_where_forward_might_refuse_the_accepts_are_in_it_without_a_chain(backend: Backend, family: Family) -> None:
    kernel = adopted(backend, family)
    kernel.write(backend, family, "*filter\n-F FORWARD\n-F FLANNEL-FWD\n-X FLANNEL-FWD\n-A FORWARD -j DROP\nCOMMIT\n")
    result = reconcile(kernel, snapshot(family), backend, how=bridge)
    assert result.settled
    [text] = [one.text for one in result.applied if one.backend is backend]
    assert "FLANNEL-FWD" not in text and text.count("-j ACCEPT") == 2
    forward = next(held for place, held in kernel.observe((family,)).places.items() if str(place).endswith("forward"))
    assert carried(kernel.egress((family,)), family)[0] == "carried", forward
    assert not reconcile(kernel, snapshot(family), backend, how=bridge).applied
    assert reconcile(kernel, snapshot(family), backend).settled
    is_right(kernel.observe((family,)), snapshot(family), backend)


@IPTABLES
@pytest.mark.parametrize("line", ["-F FLANNEL-POSTRTG", "-I POSTROUTING 1 -j ACCEPT", "-I FLANNEL-POSTRTG 1 -j RETURN"])
def test_other_damage_is_not_a_reload(backend: Backend, line: str) -> None:
    """flannel empties its own chain at every start; an operator may delete a single rule."""
    kernel = adopted(backend, Family.IPV4)
    kernel.write(backend, Family.IPV4, f"*nat\n{line}\nCOMMIT\n")
    assert not is_torn(kernel, backend, Family.IPV4)


def test_native_tables_need_no_bridge() -> None:
    kernel = adopted(Backend.NFTABLES, Family.IPV4)
    kernel.write(Backend.NFTABLES, Family.IPV4, "delete table ip flannel-ipv4\n")
    assert not is_torn(kernel, Backend.NFTABLES, Family.IPV4)
