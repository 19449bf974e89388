"""After a gap, exactly the poisoned flows are freed, and work at their next packet."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests.kernel.agent.nodes import HANG, agent_in, plan_of
from tests.kernel.nftables.nodes import missing, programs

from hitless import lab
from hitless.errors import MissingError
from hitless.kernel.conntrack import SEEN_REPLY, SRC_NAT, Conntrack, Entry
from hitless.kernel.namespaces import Namespace, inside
from hitless.lab.building import Lab
from hitless.lab.saboteurs import FAULTS, Target
from hitless.model.families import Address, Backend, Family

pytestmark = pytest.mark.kernel

FAMILIES = (Family.IPV4, Family.IPV6)
PORT = 9000


@pytest.fixture(params=list(Backend), ids=str)
def made(request: pytest.FixtureRequest) -> Iterator[Lab]:
    programs("nft", "iptables-nft", "iptables-legacy", "ip")
    try:
        one = lab.up(plan_of(request.param, pods_per_node=2))
    except MissingError as error:
        missing(str(error))
        raise
    with one:
        yield one


def udp(namespace: Namespace, address: Address, port: int = 0) -> socket.socket:
    kind = socket.AF_INET if address.version == 4 else socket.AF_INET6
    made = inside(namespace, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    made.bind((str(address), port))
    made.settimeout(0.2)
    return made


class Echo:
    """Answers every datagram, until it is closed."""

    def __init__(self, namespace: Namespace, address: Address) -> None:
        self.socket = udp(namespace, address, PORT)
        self.open = True
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while self.open:
            try:
                data, sender = self.socket.recvfrom(100)
                self.socket.sendto(data, sender)
            except (TimeoutError, OSError):
                continue

    def close(self) -> None:
        self.open = False
        self.thread.join()
        self.socket.close()


def answered(flow: socket.socket, to: Address, tries: int = 1) -> bool:
    for _ in range(tries):
        flow.sendto(b"x", (str(to), PORT))
        try:
            flow.recvfrom(100)
            return True
        except TimeoutError:
            continue
    return False


def entries(node: Namespace, family: Family) -> dict[int, Entry]:
    """The pods' UDP flows by source port."""
    table = Conntrack(node)
    try:
        return {one.original.sport: one for one in table.dump(family) if one.original.protocol == 17}
    finally:
        table.close()


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"waited {HANG} s for {what}"
        time.sleep(0.02)


def test_poisoned_flows_are_freed_and_no_others(made: Lab) -> None:
    node = made.nodes[0]
    first, second = made.pods
    target = Target.of(made.cluster, node)
    sockets: list[socket.socket] = []
    echoes = [Echo(made.far_end.namespace, made.far_end.addresses[family][0]) for family in FAMILIES]
    # the node itself and a neighbour answer too: flows that are rightly not translated
    echoes += [Echo(node.namespace, node.addresses[family]) for family in FAMILIES]
    echoes += [Echo(second.namespace, second.addresses[family]) for family in FAMILIES]

    def flow(family: Family) -> socket.socket:
        sockets.append(udp(first.namespace, first.addresses[family]))
        return sockets[-1]

    try:
        with agent_in(made):
            pass  # the rules are there, and stay
        healthy = {family: flow(family) for family in FAMILIES}
        for family in FAMILIES:
            until(lambda f=family: answered(healthy[f], made.far_end.addresses[f][0]), "a healthy flow")  # type: ignore[misc]
        FAULTS["flush-chain"](target).act()
        poisoned = {family: [flow(family) for _ in range(5)] for family in FAMILIES}
        kept = {family: [flow(family), flow(family), flow(family)] for family in FAMILIES}
        for family in FAMILIES:
            far = made.far_end.addresses[family][0]
            assert not any(answered(one, far) for one in poisoned[family])
            assert answered(healthy[family], far)
            assert answered(kept[family][0], node.addresses[family], 3)
            assert answered(kept[family][1], second.addresses[family], 3)
            # unanswered and un-translated, to a place inside the cluster where nobody is
            kept[family][2].sendto(b"x", (str(made.plan.pod_address(family, 0, 100)), PORT))
        before = {family: entries(node.namespace, family) for family in FAMILIES}
        for family in FAMILIES:
            for one in poisoned[family]:
                assert not before[family][one.getsockname()[1]].status & (SEEN_REPLY | SRC_NAT)

        with agent_in(made) as agent:
            until(lambda: len(agent.events("healed")) >= 2, "healing")
            for family in FAMILIES:
                far = made.far_end.addresses[family][0]
                for one in poisoned[family]:
                    assert answered(one, far, 3), f"a {family.value} flow is still dead"
                assert answered(healthy[family], far)
            healed = {one["family"]: one["flows"] for one in agent.events("healed")}
        assert healed == {"ipv4": 5, "ipv6": 5}
        for family in FAMILIES:
            after = entries(node.namespace, family)
            for one in (healthy[family], *kept[family][:2]):
                number = one.getsockname()[1]
                assert after[number].key == before[family][number].key, "a healthy flow's entry was replaced"
    finally:
        for one in sockets:
            one.close()
        for echo in echoes:
            echo.close()
