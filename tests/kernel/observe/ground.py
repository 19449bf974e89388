"""A node with three pods and a far end that answers: what rules do to real packets, and what each observer reports."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal

from tests.kernel.nftables.nodes import HANG, Node
from tests.kernel.nftables.nodes import node as bare

from hitless.guard import primaries
from hitless.guard.places import Places
from hitless.guard.side import Side
from hitless.kernel import nftables, xtables
from hitless.kernel.namespaces import inside
from hitless.model.events import RuleState
from hitless.model.families import Address, Family, Network
from hitless.model.rules import Ruleset
from hitless.observe.rules import Observation
from hitless.watch import Watch, WatchOptions, load

Shape = Literal["bridge", "links"]

WHOLE = {Family.IPV4: "10.42.0.0/16", Family.IPV6: "fd42::/48"}
PART = {Family.IPV4: "10.42.0.0/24", Family.IPV6: "fd42::/64"}
PODS = {Family.IPV4: ["10.42.0.7", "10.42.0.8", "10.42.0.9"], Family.IPV6: ["fd42::7", "fd42::8", "fd42::9"]}
FAR = {Family.IPV4: "198.51.100.77", Family.IPV6: "2001:db8:ffff::77"}
_PORT = 443
_NOTHING = 0.15  # seconds in which an answer that is not expected would have come

_NODE = """
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0
ip link add eth0 type veth peer name eth0 netns {far}
ip link set eth0 up
ip addr add 192.0.2.2/24 dev eth0
ip addr add 2001:db8:0:1::2/64 dev eth0 nodad
nsenter -t {far} -n sh -e -c '
  ip link set lo up; ip link set eth0 up
  ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8:0:1::1/64 dev eth0 nodad
  ip addr add 198.51.100.77/32 dev lo; ip addr add 2001:db8:ffff::77/128 dev lo nodad'
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8:0:1::1
"""
_BRIDGE = """
ip link add cni0 type bridge
ip link set cni0 up
ip addr add 10.42.0.1/24 dev cni0
ip addr add fd42::1/64 dev cni0 nodad
"""
_PORT_OF_BRIDGE = """
ip link add veth{number} type veth peer name eth0 netns {pod}
ip link set veth{number} master cni0 up
"""
_LINK = """
ip link add cali{number} type veth peer name eth0 netns {pod}
ip link set cali{number} up
ip addr add 10.42.0.1/32 dev cali{number}
ip addr add fd42::1/128 dev cali{number} nodad
ip route add 10.42.0.{number}/32 dev cali{number}
ip -6 route add fd42::{number}/128 dev cali{number}
"""
_POD = """
nsenter -t {pod} -n sh -e -c '
  ip link set lo up; ip link set eth0 up
  ip addr add 10.42.0.{number}/24 dev eth0; ip addr add fd42::{number}/64 dev eth0 nodad
  ip route add default via 10.42.0.1 dev eth0 onlink; ip -6 route add default via fd42::1 dev eth0'
"""


@dataclass
class Ground:
    """``answered`` sends real packets; ``watched`` and ``guarded`` give the observers' reports."""

    node: Node
    pods: Sequence[Node]
    far: Node
    shape: Shape
    _ports: Iterator[int] = field(default_factory=lambda: iter(range(20000, 60000)))

    def interface(self, number: int) -> str:
        """The interface that a pod's packets come in by."""
        return "cni0" if self.shape == "bridge" else f"cali{7 + number}"

    def answered(self, family: Family, expected: Sequence[bool]) -> list[bool]:
        """Which pods' new flows are answered."""
        number = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        asking: list[socket.socket] = []
        found = [False] * len(self.pods)
        with selectors.DefaultSelector() as ready, ExitStack() as open_:
            for index, pod in enumerate(self.pods):
                made = inside(pod.namespace, lambda: socket.socket(number, socket.SOCK_DGRAM))
                open_.enter_context(made)
                made.bind((PODS[family][index], next(self._ports)))
                made.sendto(b"out", (FAR[family], _PORT))
                asking.append(made)
                ready.register(made, selectors.EVENT_READ, index)
            while ready.get_map():
                missing = [key.data for key in ready.get_map().values()]
                wait = HANG if any(expected[index] for index in missing) else _NOTHING
                if not (events := ready.select(wait)):
                    break
                for key, _ in events:
                    found[key.data] = True
                    ready.unregister(key.fileobj)
        return found

    def watched(self, family: Family, profile: str, network: Network | None = None, **more: object) -> RuleState:
        networks = (network,) if network is not None else ()
        options = WatchOptions(load(profile), self.node.namespace, networks, families=(family,), urgent=False, **more)  # type: ignore[arg-type]  # a test's
        with Watch(options) as watch:
            [state] = [event for event in watch.once() if isinstance(event, RuleState)]
        return state

    def guarded(self, family: Family, standing: Ruleset, profile: str = "flannel", uplink: str = "") -> Side:
        """A guard's side that has seen ``standing`` first and then the present rules, and counted all pods."""
        around = Places(self.node.namespace, (family,), uplink)
        try:
            side = Side.of(family, primaries.load(profile), (), around, None)
            now = self.ruleset()
            for t, ruleset in enumerate((standing, now), 1):
                side.see(Observation(t, t, ruleset), 0.0, lambda: None)
            side.count(now)
        finally:
            around.close()
        return side

    def ruleset(self) -> Ruleset:
        read = nftables.read_ruleset(self.node.namespace), xtables.read_ruleset(self.node.namespace)
        return Ruleset(tuple(table for each in read for table in each.tables))


@contextmanager
def ground(shape: Shape) -> Iterator[Ground]:
    with ExitStack() as made:
        node, far, *pods = [made.enter_context(bare()) for _ in range(5)]
        script = _NODE.format(far=far.namespace.pid) + (_BRIDGE if shape == "bridge" else "")
        for number, pod in enumerate(pods, 7):
            script += (_PORT_OF_BRIDGE if shape == "bridge" else _LINK).format(number=number, pod=pod.namespace.pid)
            script += _POD.format(number=number, pod=pod.namespace.pid)
        node.run("sh", "-e", "-c", script)
        made.enter_context(_answering(far))
        yield Ground(node, pods, far, shape)


@contextmanager
def _answering(far: Node) -> Iterator[None]:
    """The far end sends every datagram back."""
    servers = {family: inside(far.namespace, lambda family=family: _server(family)) for family in Family}  # type: ignore[misc]
    ending, end = socket.socketpair()

    def serve() -> None:
        with selectors.DefaultSelector() as ready:
            for each in (*servers.values(), ending):
                ready.register(each, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is ending:
                        return
                    assert isinstance(key.fileobj, socket.socket)
                    data, witnesses = key.fileobj.recvfrom(64)
                    with suppress(OSError):  # a pod's own address: there is no route to it
                        key.fileobj.sendto(data, witnesses)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.close()
        thread.join()
        for each in (*servers.values(), ending):
            each.close()


def _server(family: Family) -> socket.socket:
    made = socket.socket(socket.AF_INET if family is Family.IPV4 else socket.AF_INET6, socket.SOCK_DGRAM)
    made.bind((FAR[family], _PORT))
    return made


def addresses(found: Mapping[Family, Sequence[str]]) -> dict[Family, list[Address]]:
    return {family: [ip_address(each) for each in texts] for family, texts in found.items()}
