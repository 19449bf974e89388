"""Whose packets the watch asks about: those of this node's pods, and not of another node's."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.kernel.nftables.nodes import Node, programs
from tests.kernel.nftables.nodes import node as make_node

from hitless.kernel.rtnetlink.reader import RtnetlinkReader, names_of, unicast
from hitless.model.events import RuleState
from hitless.model.families import Family
from hitless.watch import Watch, WatchOptions
from hitless.watch.profiles import load

pytestmark = pytest.mark.kernel

WHOLE = "10.42.0.0/16"
FLANNEL = """*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -j FLANNEL-POSTRTG
{part}-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
COMMIT
"""
PART = "-A FLANNEL-POSTRTG -s 10.42.3.0/24 -d 10.42.0.0/16 -j RETURN\n"


@pytest.fixture
def node() -> Iterator[Node]:
    programs("iptables-nft-restore", "ip", "unshare")
    with make_node() as made:
        made.run("sh", "-c", "ip link add cali1 type veth peer name pod && ip link set cali1 up && ip link set pod up")
        yield made


def asked(node: Node, named: bool) -> tuple[str, str]:
    networks = (ip_network(WHOLE),) if named else ()
    options = WatchOptions(load("canal"), node.namespace, networks=networks, families=(Family.IPV4,), urgent=False)
    with Watch(options) as watch:
        [state] = [event for event in watch.once() if isinstance(event, RuleState)]
    return state.state, state.reason


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("told_by", ["rules", "routes"])
def test_a_rule_that_cuts_off_this_nodes_pods_alone_is_a_gap(node: Node, told_by: str, named: bool) -> None:
    if told_by == "routes":
        node.run("ip", "route", "add", "10.42.3.7", "dev", "cali1")
    text = FLANNEL.format(part=PART if told_by == "rules" else "")
    node.run("iptables-nft-restore", stdin=text)
    assert asked(node, named)[0] == "carried"
    node.iptables("-t", "nat", "-I", "FLANNEL-POSTRTG", "-s", "10.42.3.0/24", "-j", "RETURN")
    assert asked(node, named) == ("not_carried", "FLANNEL-POSTRTG rule 1 returns (-s 10.42.3.0/24)")


def test_a_rule_that_cuts_off_another_nodes_pods_is_none(node: Node) -> None:
    node.run("iptables-nft-restore", stdin=FLANNEL.format(part=PART))
    node.iptables("-t", "nat", "-I", "FLANNEL-POSTRTG", "-s", "10.42.0.0/24", "-j", "RETURN")
    assert asked(node, named=True)[0] == "carried"


@pytest.mark.parametrize(("family", "network"), [(Family.IPV4, "10.42.3.0/24"), (Family.IPV6, "fd42:0:0:3::/64")])
def test_routes_are_read_with_their_interfaces(node: Node, family: Family, network: str) -> None:
    node.run("ip", "route", "add", network, "dev", "cali1")
    with RtnetlinkReader(node.namespace) as reader:
        names = names_of(reader.devices())
        found = [(route.to, route.device, route.direct) for route in reader.routes(names, family, unicast)]
    assert (ip_network(network), "cali1", True) in found
