"""Nodes on one network, each with a pod, built of namespaces; agents are started in them by their command line."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kernel.agent.nodes import Logged, readyz
from tests.kernel.nftables.nodes import Node, missing, node, programs

from hitless.kernel import processes
from hitless.kernel.namespaces import Namespace

HANG = 60.0  # nothing here takes a tenth of it
HITLESS = (sys.executable, "-P", "-m", "hitless", "agent")


def conf(backend: dict[str, object] | None = None, *, dual: bool = True) -> str:
    text: dict[str, object] = {"Network": "10.42.0.0/16", "Backend": backend or {"Type": "vxlan"}}
    if dual:
        text |= {"EnableIPv6": True, "IPv6Network": "fd42::/48"}
    return json.dumps(text)


@dataclass
class Member:
    """A node of the ground: number ``number`` (from 1), with its pod."""

    number: int
    node: Node
    pod: Node
    agents: list[OverlayAgent] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"node{self.number}"

    @property
    def namespace(self) -> Namespace:
        return self.node.namespace

    def address(self, version: int) -> str:
        return f"192.0.2.{self.number}" if version == 4 else f"fd00::{self.number}"

    def pod_address(self, version: int) -> str:
        return f"10.42.{self.number}.5" if version == 4 else f"fd42:0:0:{self.number}::5"

    def ip(self, words: str) -> str:
        return self.node.run("ip", *words.split())

    def state(self) -> list[str]:
        """Everything that the overlay may write, as ip prints it; without what counts or ages."""
        found: list[str] = []
        for words in (
            "-d -o link show type vxlan", "-o addr show", "route show table main", "-6 route show table main",
            "neigh show nud permanent", "-6 neigh show nud permanent",
        ):  # fmt: skip
            found += self.ip(words).splitlines()
        found += self.node.run("bridge", "fdb", "show").splitlines()
        return sorted(line.replace(" tentative", "") for line in found if "fe80:" not in line)  # those are the kernel's


@dataclass
class Ground:
    """``directory``: where the nodes' leases are."""

    members: list[Member]
    directory: Path
    switch: Node

    def start(
        self, member: Member, *more: str, backend: dict[str, object] | None = None, dual: bool = True
    ) -> OverlayAgent:
        agent = OverlayAgent(self, member, conf(backend, dual=dual), more)
        member.agents.append(agent)
        return agent

    def start_with(self, member: Member, net_conf: str, *more: str) -> OverlayAgent:
        """The same with a whole net-conf.json."""
        agent = OverlayAgent(self, member, net_conf, more)
        member.agents.append(agent)
        return agent

    def reached(self, one: Member, other: Member, version: int, tries: int = 1) -> bool:
        """Whether a pod's question to another node's pod is answered."""
        words = ("ping", f"-{version}", "-c1", "-W1", other.pod_address(version))
        return any("1 received" in one.pod.run(*words, check=False) for _ in range(tries))

    def all_reach(self, versions: Sequence[int] = (4, 6)) -> None:
        for one in self.members:
            for other in self.members:
                for version in versions:
                    assert self.reached(one, other, version, 5), f"{one.name} to {other.name}, IPv{version}"


class OverlayAgent(Logged):
    """``hitless agent`` with leases in the shared directory; ``said`` is its log."""

    hang = HANG

    def __init__(self, ground: Ground, member: Member, net_conf: str, more: Sequence[str]) -> None:
        self.member = member
        number = member.number
        command = [
            *HITLESS, f"--net-config={net_conf}", f"--lease-dir={ground.directory}", f"--node-name={member.name}",
            "--subnet-file=/run/subnet.env", "--healthz-port=10990", *more,
        ]  # fmt: skip
        if not any(word.startswith("--node-subnet") for word in more):
            command.append(f"--node-subnet=10.42.{number}.0/24,fd42:0:0:{number}::/64")
        super().__init__(processes.start(processes.command_in(member.namespace, command), stderr=subprocess.PIPE))

    def wait_ready(self, peers: int) -> None:
        self.wait(lambda: self.events("ready"), "the rules")
        self.wait(lambda: self.metric("hitless_overlay_peers") == peers, f"{peers} peers")
        self.wait(lambda: readyz(self.member.namespace)[0] == 200, "readiness")

    def series(self, name: str) -> list[str]:
        """The metric's series with their labels."""
        try:
            _, body = readyz(self.member.namespace, "metrics")
        except OSError:
            return []
        return [
            line.rpartition(" ")[0] for line in body["text"].splitlines() if line.startswith((f"{name} ", f"{name}{{"))
        ]

    def metric(self, name: str) -> float:
        try:
            _, body = readyz(self.member.namespace, "metrics")
        except OSError:  # it does not listen yet
            return 0.0
        for line in body["text"].splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        return 0.0


def batch(place: Node, lines: str) -> None:
    """Commands for ip, in one process."""
    place.run("ip", "-batch", "-", stdin=lines)


def _pid(place: Node) -> int:
    assert place.namespace.pid is not None
    return place.namespace.pid


@contextlib.contextmanager
def ground(directory: Path, count: int = 2) -> Iterator[Ground]:
    """Nodes 192.0.2.N on one bridge, in both families, and their pods as Calico connects them."""
    programs("ip", "bridge", "ping", "nft", "iptables-nft")
    with contextlib.ExitStack() as stack:
        switch = stack.enter_context(node())
        batch(switch, "link add br0 type bridge\nlink set br0 up\n")
        members: list[Member] = []
        for number in range(1, count + 1):
            made, pod = stack.enter_context(node()), stack.enter_context(node())
            members.append(Member(number, made, pod))
            _connect(switch, members[-1])
        found = Ground(members, directory, switch)
        try:
            probe = members[0].node.run(
                "ip", "link", "add", "probe", "type", "vxlan", "id", "77", "dstport", "4789", check=False
            )
            if probe or not members[0].ip("-o link show type vxlan"):
                missing("this kernel has no vxlan")
            members[0].ip("link del probe")
            yield found
        finally:
            for member in members:
                for agent in member.agents:
                    agent.end()


def connect(switch: Node, number: int, place: Node) -> None:
    """The node's outer interface, with its addresses and default routes."""
    batch(
        switch,
        f"link add p{number} type veth peer name eth0 address 02:00:00:00:99:{number:02x} netns {_pid(place)}\n"
        f"link set p{number} master br0\nlink set p{number} up\n",
    )
    batch(
        place,
        f"addr add 192.0.2.{number}/24 dev eth0\naddr add fd00::{number}/64 dev eth0 nodad\nlink set eth0 up\n"
        "route add default via 192.0.2.254\nroute add default via fd00::ff\n",
    )


def _connect(switch: Node, member: Member) -> None:
    number, pod = member.number, _pid(member.pod)
    connect(switch, number, member.node)
    batch(
        member.node,
        f"link add cali1 type veth peer name eth0 netns {pod}\nlink set cali1 up\n"
        "addr add 169.254.1.1/32 dev cali1\naddr add fe80::1/64 dev cali1 nodad\n"
        f"route add 10.42.{number}.5 dev cali1\nroute add fd42:0:0:{number}::5 dev cali1\n",
    )
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        member.node.run("sh", "-c", f"echo 1 > /proc/sys/net/{key}")
    batch(
        member.pod,
        f"link set eth0 up\naddr add 10.42.{number}.5/32 dev eth0\naddr add fd42:0:0:{number}::5/128 dev eth0 nodad\n"
        "route add 169.254.1.1 dev eth0\nroute add default via 169.254.1.1\n"
        "route add default via fe80::1 dev eth0\n",
    )
