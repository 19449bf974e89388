from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.errors import InputError
from hitless.lab import topology
from hitless.lab.plans import LabPlan, Stack, check_name
from hitless.model.families import Backend, Family

plans = st.builds(
    LabPlan,
    nodes=st.integers(1, 5),
    pods_per_node=st.integers(0, 5),
    family=st.sampled_from(list(Stack)),
    backend=st.sampled_from(list(Backend)),
    far_addresses=st.integers(1, 5),
)


def everything(plan: LabPlan) -> str:
    texts = [topology.underlay(plan, lambda i: f"/n{i}", "/far"), topology.far_end(plan)]
    for i in range(plan.nodes):
        texts.append(topology.node(plan, i, lambda p: f"/p{p}"))
        texts += [topology.pod(plan, i, p) for p in range(plan.pods_per_node)]
    return "".join(texts)


@given(plans)
def test_no_two_places_share_an_address(plan: LabPlan) -> None:
    for family in plan.families:
        addresses = [plan.gateway(family), *plan.far(family)]
        for i in range(plan.nodes):
            addresses.append(plan.node_address(family, i))
            addresses += [plan.pod_address(family, i, p) for p in range(plan.pods_per_node)]
        assert len(set(addresses)) == len(addresses)


@given(plans)
def test_every_pod_lives_in_its_nodes_subnet_and_that_in_the_network(plan: LabPlan) -> None:
    for family in plan.families:
        for i in range(plan.nodes):
            subnet = plan.subnet(family, i)
            assert subnet.network_address in plan.network(family)
            assert subnet.broadcast_address in plan.network(family)
            assert all(plan.pod_address(family, i, p) in subnet for p in range(plan.pods_per_node))


@given(plans)
def test_interface_names_fit_the_kernel_and_differ(plan: LabPlan) -> None:
    names = [plan.pod_interface(i, p) for i in range(plan.nodes) for p in range(plan.pods_per_node)]
    assert len(set(names)) == len(names)
    assert all(len(name) == 15 and name.startswith("cali") for name in names)


@given(plans)
def test_the_far_end_has_one_route_and_it_leads_to_the_underlay(plan: LabPlan) -> None:
    routes = [line for line in topology.far_end(plan).splitlines() if line.startswith("route")]
    assert [line.split()[2] for line in routes] == [str(plan.underlay(family)) for family in plan.families]


@given(plans)
def test_a_lab_of_one_family_never_mentions_the_other(plan: LabPlan) -> None:
    text = everything(plan)
    if Family.IPV6 not in plan.families:
        assert "fd42" not in text
        assert "2001:db8" not in text
    if Family.IPV4 not in plan.families:
        assert "10.42." not in text
        assert "192.0.2." not in text


def test_the_address_plan_is_the_documented_one() -> None:
    plan = LabPlan(nodes=3, family="dual")
    assert str(plan.subnet(Family.IPV4, 2)) == "10.42.2.0/24"
    assert str(plan.subnet(Family.IPV6, 2)) == "fd42:0:0:2::/64"
    assert str(plan.far(Family.IPV4)[0]) == "198.51.100.1"
    assert str(plan.far(Family.IPV6)[0]) == "2001:db8:ffff::1"
    assert str(plan.pod_address(Family.IPV4, 0, 0)) == "10.42.0.2"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nodes", 0),
        ("nodes", 101),
        ("pods_per_node", -1),
        ("services", 5001),
        ("far_addresses", 0),
        ("family", "ipx"),
        ("forward_policy", "reject"),
    ],
)
def test_an_impossible_plan_is_refused_with_the_field_and_what_was_expected(field: str, value: object) -> None:
    flag = {"pods_per_node": "pods"}.get(field, field).replace("_", "-")
    with pytest.raises(InputError, match=rf"^--{flag}: .*expected"):
        LabPlan(**{field: value})  # type: ignore[arg-type]  # that is what is being tried


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a/b", "../x", "a" * 33, "ä"])
def test_a_lab_name_that_could_not_be_a_file_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        check_name(name)
