"""Rule sets of nodes, after real shapes, and how they get into a kernel: tests/samples/rulesets.

NAME.toml says what it is, the node's interfaces and the true answer; beside it stand NAME.iptables and NAME.ip6tables
(as iptables-save writes), NAME.nft (as nft list ruleset writes) and NAME.ipset (as ipset save writes), if there are.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from tests.kernel.semantics.wires import Arrival, Wires, packets
from tests.unit.semantics.random_rules import NODE_V4, NODE_V6, POD_IN, UPLINK

from hitless.kernel import nftables, xtables
from hitless.kernel.surroundings import NodeSurroundings
from hitless.model.families import Address, Family
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP, Packet
from hitless.model.rules import Ruleset
from hitless.semantics import Outcome, evaluate, evaluate_reply

FOLDER = Path(__file__).parents[2] / "samples" / "rulesets"
PODS = {Family.IPV4: "10.42.1.10", Family.IPV6: "fd42:0:0:1::10"}
FAR = {Family.IPV4: "198.51.100.1", Family.IPV6: "2001:db8:ffff::1"}
_NAMES = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmp"}
_TABLES = ("raw", "mangle", "nat", "filter", "security")


@dataclass(frozen=True)
class Case:
    """``answers`` by protocol: carried, leaked or dropped. ``backends``: how NAME.iptables is loaded."""

    name: str
    about: str
    pod: str
    uplink: str
    backends: tuple[str, ...]
    families: tuple[Family, ...]
    answers: dict[str, str]
    rule: str

    def text(self, kind: str) -> str:
        path = FOLDER / f"{self.name}.{kind}"
        return path.read_text() if path.exists() else ""


def cases() -> list[Case]:
    """All of them."""
    return [_case(path) for path in sorted(FOLDER.glob("*.toml"))]


def _case(path: Path) -> Case:
    told = tomllib.loads(path.read_text())
    everything = str(told.get("answer", ""))
    told_each = told.get("answers", {})
    answers = {name: str(told_each.get(name) or everything or "carried") for name in ("tcp", "udp", "icmp")}
    families = tuple(Family(f"ipv{number}") for number in told.get("families", [4]))
    backends = tuple(told.get("backends", ["nft", "legacy"] if path.with_suffix(".iptables").exists() else ["native"]))
    return Case(
        path.stem, told["about"], told["pod"], told["uplink"], backends, families, answers, told.get("rule", "")
    )


class Node:
    """The node's namespace, with the interfaces' names as a case has them."""

    def __init__(self, net: Wires) -> None:
        self.net, self._pod, self._uplink = net, POD_IN, UPLINK

    def load(self, case: Case, backend: str) -> None:
        """The case's rules, and no others; one user of conntrack is always there."""
        self._rename(case)
        net = self.net
        # a policy outlasts its rules
        empty = "".join(f"*{name}\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n" for name in _TABLES if name != "filter")
        empty += "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"
        for program in ("iptables-legacy-restore", "ip6tables-legacy-restore"):
            net.run(program, "-w", stdin=empty)
        net.run("nft", "-f", "-", stdin="flush ruleset\n")
        net.run("ipset", "destroy")
        if case.text("ipset"):
            net.run("ipset", "restore", stdin=case.text("ipset"))
        tracked = "table inet tracked {\n chain user {\n  ct state invalid counter\n }\n}\n"
        net.run("nft", "-f", "-", stdin=tracked + case.text("nft"))
        for kind in ("iptables", "ip6tables"):
            if case.text(kind):
                net.run(f"{kind}-{backend}-restore", "-w", stdin=case.text(kind))

    def _rename(self, case: Case) -> None:
        script = ""
        if case.pod != self._pod:
            script += (
                f"ip link set {self._pod} down; ip link set {self._pod} name {case.pod}; ip link set {case.pod} up\n"
            )
        if case.uplink != self._uplink:
            old, new = self._uplink, case.uplink
            script += f"ip link set {old} down; ip link set {old} name {new}; ip link set {new} up\n"
        if script:
            self.net.run("sh", "-ec", script + _ROUTES.format(pod=case.pod, uplink=case.uplink))
        self._pod, self._uplink = case.pod, case.uplink

    def judge(self, case: Case) -> list[tuple[str, str, str, str]]:
        """Of each packet: its protocol, what was said, what came of it, and the reason."""
        found = []
        ruleset = Ruleset(
            (
                *nftables.read_ruleset(self.net.node, case.families).tables,
                *xtables.read_ruleset(self.net.node, case.families).tables,
            )
        )
        for family in case.families:
            source, far = ip_address(PODS[family]), ip_address(FAR[family])
            flows = [self._at(packet, case) for packet in packets(self.net.ports(4), [source], [far])]
            node = NodeSurroundings(self.net.node)
            try:
                asked = Ruleset(ruleset.tables, node)
                told = [_told(asked, packet, NODE_V4 if family is Family.IPV4 else NODE_V6) for packet in flows]
            finally:
                node.close()
            arrived = self.net.passed(flows)
            real = _real(self.net, flows, arrived)
            for packet, (said, reason), came in zip(flows, told, real, strict=True):
                found.append((_NAMES[packet.protocol], said, came, reason))
        return found

    @staticmethod
    def _at(packet: Packet, case: Case) -> Packet:
        return Packet(
            packet.src, packet.dst, packet.protocol, packet.sport, packet.dport, iif=case.pod, oif=case.uplink
        )


_ROUTES = """
ip addr replace fd42:0:0:1::1/128 dev {pod} nodad
ip addr replace 2001:db8:0:1::11/64 dev {uplink} nodad
sysctl -q -w net.ipv4.conf.{pod}.rp_filter=0 net.ipv4.conf.{uplink}.rp_filter=0
ip neigh replace fe80::99 lladdr 02:00:00:00:00:01 nud permanent dev {pod}
ip neigh replace 192.0.2.1 lladdr 02:00:00:00:00:04 nud permanent dev {uplink}
ip neigh replace 2001:db8:0:1::1 lladdr 02:00:00:00:00:04 nud permanent dev {uplink}
ip route replace 10.42.0.0/16 via inet6 fe80::99 dev {pod}
ip route replace fd42::/48 via fe80::99 dev {pod}
ip route replace default via 192.0.2.1 dev {uplink}
ip -6 route replace default via 2001:db8:0:1::1 dev {uplink}
"""


def _told(ruleset: Ruleset, packet: Packet, address: Address) -> tuple[str, str]:
    """What the evaluator says: carried, leaked, dropped, unanswered or cannot_tell; and why. ``lost``: leaked or
    dropped, it cannot be told which."""
    outcome: Outcome = evaluate(ruleset, packet)
    if outcome.state != "carried":
        mixed = len({ending.kind for ending in outcome.endings}) > 1
        how = "lost" if mixed else "dropped" if outcome.dropped is not None else "leaked"
        return (how if outcome.state == "not_carried" else "cannot_tell"), outcome.reason
    back = evaluate_reply(ruleset, packet, address=address, carried=outcome)
    if back.state == "carried":
        return "carried", outcome.reason
    return ("unanswered" if back.state == "not_carried" else "cannot_tell"), back.reason


def _real(net: Wires, flows: list[Packet], arrived: list[Arrival | None]) -> list[str]:
    """What came of packets: as ``_told``."""
    carried = [
        (packet, arrival)
        for packet, arrival in zip(flows, arrived, strict=True)
        if arrival is not None and arrival.src != packet.src
    ]
    back = dict(zip((arrival.number for _, arrival in carried), net.answered(carried), strict=True))
    found = []
    for packet, arrival in zip(flows, arrived, strict=True):
        if arrival is None:
            found.append("dropped")
        elif arrival.src == packet.src:
            found.append("leaked")
        else:
            found.append("carried" if back[arrival.number] else "unanswered")
    return found
