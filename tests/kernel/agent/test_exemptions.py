"""A rule of somebody's in flannel's own native table does what its owner wants, also after a repair: with packets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from tests.kernel.agent.nodes import HANG, agent_in, lab_with

from hitless.kernel.conntrack import SRC_NAT, Conntrack
from hitless.kernel.namespaces import inside
from hitless.lab.building import Lab
from hitless.lab.saboteurs import SabotageTarget
from hitless.model.families import Address, Backend, Family

pytestmark = pytest.mark.kernel

EXEMPT = {Family.IPV4: "203.0.113.0/24", Family.IPV6: "2001:db8:dead::/48"}
INSIDE = {Family.IPV4: ip_address("203.0.113.9"), Family.IPV6: ip_address("2001:db8:dead::9")}
OUTSIDE = {Family.IPV4: ip_address("198.51.100.77"), Family.IPV6: ip_address("2001:db8:ffff::77")}


@pytest.fixture
def made() -> Iterator[Lab]:
    with lab_with(Backend.NFTABLES) as one:
        yield one


def translated(made: Lab, family: Family, to: Address, port: int) -> bool:
    """Whether a new flow of a pod to there leaves with the node's address, as the connection table has it."""
    pod = made.pods[0]
    kind = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    with inside(pod.namespace, lambda: socket.socket(kind, socket.SOCK_DGRAM)) as flow:
        flow.sendto(b"x", (str(to), port))
    end = time.monotonic() + HANG
    while time.monotonic() < end:
        table = Conntrack(made.nodes[0].namespace)
        try:
            found = [one for one in table.dump(family) if one.original.dst == to and one.original.dport == port]
        finally:
            table.close()
        if found:
            return bool(found[0].status & SRC_NAT)
        time.sleep(0.02)
    raise AssertionError(f"no flow to {to}")


def test_an_exemption_in_the_native_table_stays_and_works_after_a_repair(made: Lab) -> None:
    target = SabotageTarget.of(made.cluster, made.nodes[0])
    with agent_in(made, "--iptables-resync=1") as agent:
        for family in Family:
            subnet = made.nodes[0].subnets[family]
            words = f"{family.nft} saddr {subnet} {family.nft} daddr {EXEMPT[family]} return"
            target.nft(f"insert rule {family.nft} flannel-{family.value} postrtg {words}\n")
        kept = "foreign rules kept"
        agent.wait(lambda: len([one for one in agent.events(kept) if "postrtg" in one["reason"]]) == 2, "notice")
        for family in Family:
            target.nft(f"add rule {family.nft} flannel-{family.value} postrtg meta mark & 0x4000 == 0x4000 return\n")
        agent.wait(lambda: agent.events("repaired"), "repair")
        agent.wait(lambda: agent.ready()[0] == 200, "ready again")
        for family in Family:
            assert translated(made, family, OUTSIDE[family], 7001)
            assert not translated(made, family, INSIDE[family], 7002)
