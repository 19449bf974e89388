"""A node with many Services: the short way through their rules says what the long one says."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from tests.kernel.nftables.nodes import Node
from tests.kernel.watch.watched import Host

from hitless.kernel import nftables, xtables
from hitless.model.families import Backend, Family
from hitless.model.packets import Packet
from hitless.model.rules import Ruleset, Table
from hitless.semantics import evaluate, witnesses

pytestmark = pytest.mark.kernel

SERVICES = 700  # more than are spelt out of a map


def kube_proxy(family: Family) -> str:
    lines = ["*nat", ":KUBE-SERVICES - [0:0]", ":KUBE-SVC - [0:0]", "-A PREROUTING -j KUBE-SERVICES"]
    base, pod = ("10.43", "10.42.0.9") if family is Family.IPV4 else ("fd43:", "[fd42::9]")
    for number in range(SERVICES):
        address = f"{base}.{number // 250}.{number % 250 + 1}" if family is Family.IPV4 else f"fd43::{number + 1:x}"
        lines.append(f"-A KUBE-SERVICES -d {address} -p tcp -m tcp --dport 80 -j KUBE-SVC")
    lines += [
        f"-A KUBE-SERVICES ! -d {address} -p tcp -m tcp --dport 8081 -j KUBE-SVC",
        "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-SVC",
        f"-A KUBE-SVC -p tcp -j DNAT --to-destination {pod}:8080",
        "COMMIT",
    ]
    return "\n".join(lines) + "\n"


def plain(ruleset: Ruleset) -> Ruleset:
    """The same rules, all decoded."""
    return Ruleset(tuple(Table(t.family, t.name, dict(t.chains), t.legacy) for t in ruleset.tables))


def flows(family: Family) -> list[tuple[Packet, str]]:
    """Packets to the outside and to Services, and what must be said of each."""
    network = ip_network("10.42.0.0/16" if family is Family.IPV4 else "fd42::/48")
    (out,) = witnesses(network, protocols=(6,), iif="cali1", oif="eth0")
    service, other = ("10.43.2.7", "10.43.9.9") if family is Family.IPV4 else ("fd43::7", "fd43::9999")
    src = out.src
    return [
        (out, "carried"),
        (Packet(src, out.dst, 6, dport=8081, iif="cali1"), "cannot_tell"),
        (Packet(src, ip_address(service), 6, dport=80, iif="cali1"), "cannot_tell"),
        (Packet(src, ip_address(service), 6, dport=81, iif="cali1"), "carried"),
        (Packet(src, ip_address(other), 6, dport=80, iif="cali1"), "carried"),
    ]


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("backend", [Backend.NFT, Backend.LEGACY])
def test_sorting_rules_by_destination_changes_no_answer(node: Node, family: Family, backend: Backend) -> None:
    host = Host(node, family, backend)
    host.restore(kube_proxy(family))
    host.fill()
    read = nftables.read_ruleset if backend is Backend.NFT else xtables.read_ruleset
    for packet, state in flows(family):
        short = evaluate(read(node.namespace, (family,)), packet)
        whole = evaluate(plain(read(node.namespace, (family,))), packet)
        assert (short.state, short.reason) == (state, whole.reason), packet
        assert short.chains == whole.chains


def test_a_map_of_more_services_than_are_spelt_out_is_asked_for_one_destination(node: Node) -> None:
    host = Host(node, Family.IPV4, Backend.NFT)
    host.fill()
    addresses = [f"10.43.{number // 250}.{number % 250 + 1}" for number in range(SERVICES)]
    assert node.nft(f"""
        table ip kube-proxy {{
          set cluster-ips {{ type ipv4_addr; elements = {{ {", ".join(addresses)} }} }}
          map service-ips {{ type ipv4_addr . inet_proto . inet_service : verdict;
            elements = {{ {", ".join(f"{each} . tcp . 80 : goto svc" for each in addresses)} }} }}
          chain svc {{ ip protocol tcp dnat to 10.42.0.9:8080; }}
          chain services {{ ip daddr . meta l4proto . th dport vmap @service-ips; }}
          chain pre {{ type nat hook prerouting priority dstnat; jump services; }}
          chain onward {{ type filter hook forward priority filter; ip daddr @cluster-ips drop; }}
        }}""")
    ruleset = nftables.read_ruleset(node.namespace, (Family.IPV4,))
    out, service = flows(Family.IPV4)[0][0], flows(Family.IPV4)[2][0]
    assert evaluate(ruleset, out).state == "carried"
    found = evaluate(ruleset, service)
    assert (found.state, found.reason.startswith("svc rule 1 sends it on")) == ("cannot_tell", True)
    assert node.nft("add element ip kube-proxy service-ips { 198.51.100.77 . tcp . 443 : goto svc }")
    assert evaluate(nftables.read_ruleset(node.namespace, (Family.IPV4,)), out).state == "cannot_tell"
