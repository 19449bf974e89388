"""The lab with an overlay: what is planned, told to agents, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hitless.cli.lab_agents import orders
from hitless.errors import InputError
from hitless.kernel.namespaces import HERE
from hitless.lab import overlays, placeholders, teams, topology
from hitless.lab.agents import AGENTS, of_command
from hitless.lab.clusters import LabNode
from hitless.lab.plans import LabPlan, LeaseStore, OverlayType, Stack, Wiring
from hitless.model.families import Family

plans = st.builds(
    LabPlan,
    nodes=st.integers(1, 5),
    family=st.sampled_from(list(Stack)),
    overlay=st.sampled_from(["", "vxlan", "wireguard"]),
    wiring=st.sampled_from(list(Wiring)),
)


def node_of(plan: LabPlan, index: int = 0) -> LabNode:
    addresses = MappingProxyType({family: plan.node_address(family, index) for family in plan.families})
    subnets = MappingProxyType({family: plan.subnet(family, index) for family in plan.families})
    return LabNode(plan.node_name(index), index, HERE, Path("/"), (), addresses, subnets)


@given(plans)
def test_every_node_stands_in_the_underlay_beside_its_own_gateway(plan: LabPlan) -> None:
    for family in plan.families:
        seen = []
        for i in range(plan.nodes):
            link = plan.uplink_network(family, i)
            assert link.subnet_of(plan.underlay(family))  # type: ignore[arg-type]
            assert plan.node_address(family, i) in link
            assert plan.gateway(family, i) in link
            seen += [plan.node_address(family, i), link if plan.wiring == Wiring.ROUTED else i]
        assert len(set(seen)) == len(seen), "two nodes share an address, or a network of a routed underlay"


@given(plans)
def test_pod_networks_of_other_nodes_are_routed_by_the_lab_only_without_an_overlay(plan: LabPlan) -> None:
    text = topology.underlay(plan, lambda i: f"/n{i}", "/far")
    text += "".join(topology.node(plan, i, lambda p: f"/p{p}") for i in range(plan.nodes))
    others = [plan.subnet(family, i) for family in plan.families for i in range(plan.nodes) if plan.nodes > 1]
    assert all((f"route add {subnet} via" in text) != bool(plan.overlay) for subnet in others)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"overlay": "ipip"}, "--overlay"),
        ({"wiring": "l3"}, "--underlay"),
        ({"overlay": "host-gw", "wiring": "routed"}, "without a router"),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, str], word: str) -> None:
    with pytest.raises(InputError, match=word):
        LabPlan(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", list(Stack))
@pytest.mark.parametrize("overlay", list(OverlayType))
def test_the_network_configuration_lets_node0_have_the_first_subnet(family: Stack, overlay: OverlayType) -> None:
    plan = LabPlan(family=family, overlay=overlay)
    conf = json.loads(overlays.net_conf(plan))
    assert conf["Backend"] == {"Type": overlay}
    assert (conf["EnableIPv4"], conf["EnableIPv6"]) == tuple(each in plan.families for each in Family)
    for stem, each in (("", Family.IPV4), ("IPv6", Family.IPV6)):
        wanted = str(plan.subnet(each, 0).network_address) if each in plan.families else None
        assert conf.get(f"{stem}SubnetMin") == wanted


def test_words_in_braces_are_filled_in_and_other_braces_stay() -> None:
    plan = LabPlan(nodes=2, family=Stack.DUAL, overlay=OverlayType.VXLAN, leases=LeaseStore.ETCD)
    agent = of_command("x -etcd-endpoints={etcd} -iface={iface} {node} {public_ip} {subnet} '{\"a\": {}}' {other}")
    assert agent.command(plan, node_of(plan, 1)) == (
        "x", "-etcd-endpoints=http://192.0.2.1:2379", "-iface=eth0", "node1", "192.0.2.11",
        "10.42.1.0/24,fd42:0:0:1::/64", '{"a": {}}', "{other}",
    )  # fmt: skip


def test_on_a_routed_underlay_each_node_reaches_etcd_at_its_own_gateway() -> None:
    plan = LabPlan(nodes=3, overlay=OverlayType.VXLAN, wiring=Wiring.ROUTED, leases=LeaseStore.ETCD)
    found = [placeholders.fill(["{etcd}"], plan, node_of(plan, i))[0] for i in range(3)]
    assert found == [f"http://198.18.{i}.1:2379" for i in range(3)]


def test_a_lab_without_ipv4_reaches_its_etcd_by_ipv6() -> None:
    plan = LabPlan(nodes=2, family=Stack.IPV6, overlay=OverlayType.VXLAN, leases=LeaseStore.ETCD)
    assert placeholders.fill(["{etcd}"], plan, node_of(plan))[0] == f"http://[{plan.gateway(Family.IPV6, 0)}]:2379"


def test_one_agent_that_names_etcd_decides_for_all() -> None:
    assert placeholders.lease_source(["a {lease_dir}", "b {etcd}"]) is LeaseStore.ETCD
    assert placeholders.lease_source(["a {lease_dir}"]) is LeaseStore.DIRECTORY


def test_our_own_agent_is_told_where_the_leases_are() -> None:
    def line(**more: object) -> str:
        plan = LabPlan(nodes=2, **more)  # type: ignore[arg-type]
        return " ".join(AGENTS["hitless"].command(plan, node_of(plan)))

    assert "--lease-dir=/run/hitless-shared/leases" in line(overlay="vxlan")
    assert "--etcd-endpoints=http://192.0.2.1:2379" in line(overlay="vxlan", leases="etcd")
    assert "lease" not in line()
    assert "etcd" not in line()


def test_agents_are_given_to_nodes_by_name() -> None:
    plan = LabPlan(nodes=3, overlay=OverlayType.VXLAN)
    found = orders(["hitless"], ["node1=/bin/sleep 9"], ["node1=file:/run/x"], plan)
    assert [(one.node, one.name, one.command, one.ready) for one in found] == [
        ("", "hitless", "", "started"),
        ("node1", "", "/bin/sleep 9", "file:/run/x"),
    ]


@pytest.mark.parametrize(
    ("agents", "commands", "ready", "word"),
    [
        (["node3=hitless"], [], [], r"--agent: there is no node3 in this lab .expected node0 to node2."),
        (["hitless", "adopter"], [], [], "twice for all nodes"),
        (["node1=hitless"], ["node1=/bin/true"], [], "exclude each other for node1"),
        (["hitless"], [], ["started"], "--ready: is for an agent of your own"),
        (["hitless"], ["node1=/bin/true"], ["node2=started"], "node2 has no agent of your own"),
        ([], ["/no/such/program"], [], "is not a program"),
        (["node1=flannel-9"], [], [], "is not an agent"),
    ],
)
def test_what_contradicts_itself_is_refused(
    agents: list[str], commands: list[str], ready: list[str], word: str
) -> None:
    with pytest.raises(InputError, match=word):
        orders(agents, commands, ready, LabPlan(nodes=3, overlay=OverlayType.VXLAN))


def test_words_for_leases_are_refused_where_the_lab_routes_itself() -> None:
    with pytest.raises(InputError, match=r"\{etcd\} is for labs with an overlay"):
        orders([], ["/bin/echo {etcd}"], [], LabPlan())


def test_a_node_in_front_is_told_from_a_command_with_an_equals_sign() -> None:
    assert teams.split("node12=prog -a=b") == ("node12", "prog -a=b")
    assert teams.split("env A=b prog") == ("", "env A=b prog")
