"""After a gap, exactly the poisoned flows are freed, and work at their next packet."""

from __future__ import annotations

import contextlib
import itertools
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest
from tests.kernel.agent.nodes import HANG, agent_in, plan_of
from tests.kernel.nftables.nodes import missing, programs

from hitless import lab
from hitless.errors import MissingError
from hitless.kernel import processes
from hitless.kernel.conntrack import SEEN_REPLY, SRC_NAT, Conntrack, Entry
from hitless.kernel.namespaces import Namespace, inside
from hitless.lab.building import Lab
from hitless.lab.clusters import LabNode
from hitless.lab.saboteurs import FAULTS, SabotageTarget
from hitless.model.families import Address, Backend, Family

pytestmark = pytest.mark.kernel

FAMILIES = (Family.IPV4, Family.IPV6)
PORT = 9000
numbers = itertools.count()


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
        kind = socket.AF_INET if address.version == 4 else socket.AF_INET6
        self.listener = inside(namespace, lambda: socket.socket(kind, socket.SOCK_STREAM))
        self.listener.bind((str(address), PORT))
        self.listener.listen()  # the kernel shakes hands
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
        self.listener.close()


def answered(flow: socket.socket, to: Address) -> bool:
    """Whether one datagram's own answer comes back within the socket's time."""
    word = str(next(numbers)).encode()
    flow.sendto(word, (str(to), PORT))
    with contextlib.suppress(TimeoutError):
        while flow.recvfrom(100)[0] != word:
            pass  # the late answer to an earlier one
        return True
    return False


def works(flow: socket.socket, to: Address, what: str) -> None:
    """It is answered, sooner or later: a poisoned flow that knocks again and again never is."""
    until(lambda: answered(flow, to), what)


def entries(node: Namespace) -> dict[bytes, Entry]:
    """The whole connection table, by key (the entry's id is part of it)."""
    table = Conntrack(node)
    try:
        return {one.key: one for family in FAMILIES for one in table.dump(family)}
    finally:
        table.close()


def of(sockets: list[socket.socket], table: dict[bytes, Entry]) -> set[bytes]:
    """The keys of these sockets' flows. A port alone tells none: families and kinds choose theirs by themselves."""
    flows = set()
    for one in sockets:
        host, port = one.getsockname()[:2]
        flows.add((socket.IPPROTO_UDP if one.type == socket.SOCK_DGRAM else socket.IPPROTO_TCP, ip_address(host), port))
    return {key for key, one in table.items() if (one.original.protocol, one.original.src, one.original.sport) in flows}


class Flows:
    """Sockets by what they are for, closed together."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def udp(self, namespace: Namespace, address: Address) -> socket.socket:
        self.sockets.append(udp(namespace, address))
        return self.sockets[-1]

    def tcp(self, namespace: Namespace, address: Address, to: Address) -> socket.socket:
        kind = socket.AF_INET if address.version == 4 else socket.AF_INET6
        made = inside(namespace, lambda: socket.socket(kind, socket.SOCK_STREAM))
        self.sockets.append(made)
        made.setblocking(False)
        made.bind((str(address), 0))
        made.connect_ex((str(to), PORT))
        return made

    def close(self) -> None:
        for one in self.sockets:
            one.close()


def service(node: LabNode, backend: Backend, family: Family, address: str, to: Address) -> None:
    """A Service as kube-proxy makes it: its address becomes an endpoint's."""
    kind = Backend.LEGACY if backend is Backend.LEGACY else Backend.NFT
    target = f"[{to}]:{PORT}" if to.version == 6 else f"{to}:{PORT}"
    rule = ["-d", address, "-p", "udp", "--dport", str(PORT), "-j", "DNAT", "--to-destination", target]
    processes.run([f"{family.iptables}-{kind}", "-t", "nat", "-I", "PREROUTING", *rule], namespace=node.namespace)


def exempt(node: LabNode, backend: Backend, family: Family, address: Address) -> bool:
    """Somebody's wish that flows to one address leave as they are; false where there is no way to say it."""
    if backend.native:
        return False  # an ACCEPT in iptables' chain does not keep a packet from the native one
    rule = ["-d", str(address), "-j", "ACCEPT"]
    processes.run([f"{family.iptables}-{backend}", "-t", "nat", "-I", "POSTROUTING", *rule], namespace=node.namespace)
    return True


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + HANG
    while not condition():
        assert time.monotonic() < end, f"waited {HANG} s for {what}"
        time.sleep(0.02)


SERVICE = {Family.IPV4: "10.43.200.1", Family.IPV6: "fd43::c801"}
INSIDE = {Family.IPV4: "10.43.200.2", Family.IPV6: "fd43::c802"}


def test_poisoned_flows_are_freed_and_no_others(made: Lab) -> None:
    node, backend = made.nodes[0], made.plan.backend
    first, second = made.pods
    # unanswered entries must not end by themselves on a busy machine: that would look like a touch
    lasting = [f"net.netfilter.nf_conntrack_{name}=600" for name in ("udp_timeout", "udp_timeout_stream")]
    processes.run(["sysctl", "-q", "-w", *lasting], namespace=node.namespace)
    target, flows = SabotageTarget.of(made.cluster, node), Flows()
    far = {family: made.far_end.addresses[family][0] for family in FAMILIES}
    nobody = {family: made.plan.pod_address(family, 0, 100) for family in FAMILIES}
    exempted = [family for family in FAMILIES if exempt(node, backend, family, made.far_end.addresses[family][1])]
    for family in FAMILIES:
        service(node, backend, family, SERVICE[family], far[family])
        service(node, backend, family, INSIDE[family], nobody[family])
    echoes = [Echo(made.far_end.namespace, far[family]) for family in FAMILIES]
    # the node itself and a neighbour answer too: flows that are rightly not translated
    echoes += [Echo(node.namespace, node.addresses[family]) for family in FAMILIES]
    echoes += [Echo(second.namespace, second.addresses[family]) for family in FAMILIES]
    try:
        with agent_in(made):
            pass  # the rules are there, and stay
        healthy = {family: flows.udp(first.namespace, first.addresses[family]) for family in FAMILIES}
        for family in FAMILIES:
            works(healthy[family], far[family], "a healthy flow")
        FAULTS["flush-chain"](target).act()
        poisoned: dict[Family, list[tuple[socket.socket, Address]]] = {}
        connecting: list[socket.socket] = []
        for family in FAMILIES:
            mine = first.addresses[family]
            poisoned[family] = [(flows.udp(first.namespace, mine), far[family]) for _ in range(5)]
            poisoned[family].append((flows.udp(first.namespace, mine), ip_address(SERVICE[family])))
            assert not any(answered(one, to) for one, to in poisoned[family])
            connecting += [flows.tcp(first.namespace, mine, far[family]) for _ in range(2)]
            # right as they are: answered ones, and ones that nobody answers but that no rule would translate either
            works(healthy[family], far[family], "a flow from before")
            works(flows.udp(first.namespace, mine), node.addresses[family], "a flow to the node")
            works(flows.udp(first.namespace, mine), second.addresses[family], "a flow to a neighbour")
            works(flows.udp(node.namespace, node.addresses[family]), far[family], "a flow of the node")
            unanswered = [str(nobody[family]), INSIDE[family], "224.0.0.251" if family is Family.IPV4 else "ff05::fb"]
            if family in exempted:
                unanswered.append(str(made.far_end.addresses[family][1]))
            for place in unanswered:
                flows.udp(first.namespace, mine).sendto(b"x", (place, PORT))
            flows.udp(node.namespace, node.addresses[family]).sendto(b"x", (str(far[family]), PORT + 1))
        cut_off = [*connecting, *(one for pairs in poisoned.values() for one, _ in pairs)]
        until(lambda: len(of(cut_off, entries(node.namespace))) == 16, "the last one's first packet")
        before = entries(node.namespace)
        sick = of(cut_off, before)
        assert len(sick) == 16 and not any(before[key].status & (SEEN_REPLY | SRC_NAT) for key in sick)

        with agent_in(made) as agent:
            until(lambda: len(agent.events("healed")) >= 2, "healing")
            after = entries(node.namespace)
            assert before.keys() - after.keys() <= sick, "a connection was touched that is none of ours"
            for family in FAMILIES:
                for one, to in poisoned[family]:
                    works(one, to, f"a {family.value} flow to {to} that is still dead")
                works(healthy[family], far[family], "a flow from before")
            until(lambda: len(select.select([], connecting, [], 0)[1]) == len(connecting), "each TCP connect")
            assert not any(one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for one in connecting)
            until(lambda: sum(said["flows"] for said in agent.events("healed")) >= 16, "word of each")
        healed: dict[str, int] = {}
        for said in agent.events("healed"):
            healed[said["family"]] = healed.get(said["family"], 0) + said["flows"]
        assert healed == {"ipv4": 8, "ipv6": 8}
        now = entries(node.namespace)
        assert before.keys() - now.keys() <= sick, "a connection was touched that is none of ours"
        # a flow that was freed and goes on may get its entry's memory again, and with it the same number
        assert all(now[key].status & SRC_NAT for key in sick & now.keys())
    finally:
        flows.close()
        for echo in echoes:
            echo.close()
