"""A pod, a node and a far end in three namespaces, and real packets through them.

The pod's packets are whole Ethernet frames, so that no local stack has a say; the far end only listens. Every packet is
a new flow with a number in it, by which it is recognised at the far end whatever was done to its addresses and ports.
Nothing here waits for a time to pass: what did not arrive was dropped, and that is known (``Wires.passed``).
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

import pytest
from tests.unit.semantics.random_rules import NODE_V4, NODE_V6, POD_IN, UPLINK

from hitless.kernel import netlink
from hitless.kernel.namespaces import Namespace, inside
from hitless.model.families import Address
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP, Packet

_POD_MAC, _NODE_POD_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
_NODE_FAR_MAC, _FAR_MAC = bytes.fromhex("020000000003"), bytes.fromhex("020000000004")
_ETH_ALL, _ETH_ARP = 3, 0x0806
_GATEWAY_V4 = ip_address("10.42.1.1")
_LAST_PORT = 50000
_HANG = 60.0  # seconds: an answer that takes a millisecond
_ARP = struct.Struct("!HHBBH6s4s6s4s")

_NODE_SCRIPT = f"""
set -e
mount -t tmpfs tmpfs /run
ip link set lo up
ip link add {POD_IN} address {_NODE_POD_MAC.hex(":")} type veth peer name eth0 address {_POD_MAC.hex(":")} netns $1
ip link add {UPLINK} address {_NODE_FAR_MAC.hex(":")} type veth peer name eth0 address {_FAR_MAC.hex(":")} netns $2
sysctl -q -w net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \\
  net.ipv4.conf.{POD_IN}.rp_filter=0 net.ipv4.conf.{UPLINK}.rp_filter=0 net.ipv6.conf.all.disable_ipv6=0 \\
  net.ipv6.conf.all.forwarding=1 net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.{UPLINK}.accept_dad=0 \\
  net.ipv6.conf.{POD_IN}.accept_dad=0 net.ipv4.icmp_ratelimit=0
ip link set {POD_IN} up
ip link set {UPLINK} up
ip addr add {NODE_V4}/24 dev {UPLINK}
ip addr add {NODE_V6}/64 dev {UPLINK} nodad
ip addr add {_GATEWAY_V4}/32 dev {POD_IN}
ip addr add fd42:0:0:1::1/128 dev {POD_IN} nodad
ip route add 10.42.0.0/16 via inet6 fe80::99 dev {POD_IN}
ip route add fd42::/48 via fe80::99 dev {POD_IN}
ip neigh replace fe80::99 lladdr {_POD_MAC.hex(":")} nud permanent dev {POD_IN}
ip neigh replace 192.0.2.1 lladdr {_FAR_MAC.hex(":")} nud permanent dev {UPLINK}
ip neigh replace 2001:db8:0:1::1 lladdr {_FAR_MAC.hex(":")} nud permanent dev {UPLINK}
ip route add default via 192.0.2.1 dev {UPLINK}
ip -6 route add default via 2001:db8:0:1::1 dev {UPLINK}
echo ready
"""


@dataclass(frozen=True)
class Arrival:
    """A packet that the far end saw."""

    number: int
    src: Address
    sport: int
    ident: int = 0  # of an echo request


class Wires:
    """The three namespaces; ``run`` programs on the node, see which packets of the pod get ``passed`` it."""

    def __init__(self, pod: Namespace, node: Namespace, far: Namespace) -> None:
        self.pod, self.node, self.far = pod, node, far
        self._out = inside(pod, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._out.bind(("eth0", 0))
        self._in = inside(far, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_ALL)))
        self._in.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._in.bind(("eth0", _ETH_ALL))
        self._in.setblocking(False)
        self._answers = inside(pod, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
        self._answers.bind(("eth0", _ETH_ARP))
        self._answers.settimeout(_HANG)
        self._back = inside(far, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._back.bind(("eth0", 0))
        self._home = inside(pod, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_ALL)))
        self._home.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._home.bind(("eth0", _ETH_ALL))
        self._home.setblocking(False)
        self._far_answers = inside(far, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0))
        self._far_answers.bind(("eth0", _ETH_ARP))
        self._far_answers.settimeout(_HANG)
        self._number = 0
        self._port = 10000

    def close(self) -> None:
        self._out.close()
        self._in.close()
        self._answers.close()
        self._back.close()
        self._home.close()
        self._far_answers.close()

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a program on the node; its failure is the test's."""
        line = ["nsenter", f"--net={self.node.net}", f"--mount={self.node.mnt}", "--", *command]
        done = subprocess.run(line, input=stdin, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}\n{stdin}"
        return done.stdout

    def ports(self, count: int) -> int:
        """The first of ``count`` source ports that no flow of these namespaces has had: conntrack remembers."""
        first, self._port = self._port, self._port + count
        assert self._port < 65000, "there are no new source ports left"
        return first

    def fresh(self) -> None:
        """Begin with the source ports anew, when few are left; conntrack then forgets, too."""
        if self._port > _LAST_PORT:
            with netlink.Socket(netlink.NETFILTER, self.node) as table:  # IPCTNL_MSG_CT_DELETE of everything
                table.request(1 << 8 | 2, 0, netlink.nfgenmsg(0), operation="empty", subject="conntrack")
            self._port = 10000

    def passed(self, flows: Iterable[Packet]) -> list[Arrival | None]:
        """Send each packet as the first of a new flow; how it arrived at the far end, ``None`` when it was dropped.

        The kernel takes what one processor sent in the order in which it was sent, through all three namespaces, and
        ARP is behind no rule: when the node answers a question that was asked last, everything before it has arrived
        or never will. However busy the machine is.
        """
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
        try:
            numbers = [self._send(packet) for packet in flows]
            nobody, gateway = bytes(4), _GATEWAY_V4.packed
            question = _ARP.pack(1, 0x0800, 6, 4, 1, _POD_MAC, nobody, bytes(6), gateway)
            self._out.send(_NODE_POD_MAC + _POD_MAC + struct.pack("!H", _ETH_ARP) + question)
        finally:
            os.sched_setaffinity(0, allowed)
        self._answers.recv(64)
        arrived = {arrival.number: arrival for arrival in self._arrived()}
        return [arrived.get(number) for number in numbers]

    def answered(self, arrived: Sequence[tuple[Packet, Arrival]]) -> list[bool]:
        """Let the far end answer each of these packets as it arrived; whether the answer came to the pod. As in
        ``passed``, the node's answer to a question that is asked last says that all is done."""
        with suppress(BlockingIOError):
            while True:
                self._home.recv(2048)  # what came before
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {sorted(allowed)[os.getpid() % len(allowed)]})
        try:
            for packet, arrival in arrived:
                ethertype = 0x0800 if packet.src.version == 4 else 0x86DD
                head = _NODE_FAR_MAC + _FAR_MAC + struct.pack("!H", ethertype)
                self._back.send(head + _answer(packet, arrival))
            question = _ARP.pack(1, 0x0800, 6, 4, 1, _FAR_MAC, bytes(4), bytes(6), NODE_V4.packed)
            self._back.send(_NODE_FAR_MAC + _FAR_MAC + struct.pack("!H", _ETH_ARP) + question)
        finally:
            os.sched_setaffinity(0, allowed)
        self._far_answers.recv(64)
        came = set()
        with suppress(BlockingIOError):
            while True:
                number = _answered(self._home.recv(2048))
                if number is not None:
                    came.add(number)
        return [arrival.number in came for _, arrival in arrived]

    def _send(self, packet: Packet) -> int:
        self._number += 1
        ethertype = 0x0800 if packet.src.version == 4 else 0x86DD
        self._out.send(_NODE_POD_MAC + _POD_MAC + struct.pack("!H", ethertype) + _ip(packet, self._number))
        return self._number

    def _arrived(self) -> Iterator[Arrival]:
        """What is there."""
        with suppress(BlockingIOError):
            while True:
                seen = _parse(self._in.recv(2048))
                if seen is not None:
                    yield seen


# --- packets


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def _transport(packet: Packet, number: int, ident: int | None = None) -> bytes:
    """``ident`` is given for an answer: of an echo request's number."""
    mark = struct.pack("!4sI", b"hitl", number)
    if packet.protocol == TCP and ident is not None:
        return struct.pack("!HHIIBBHHH", packet.sport, packet.dport, 1, number + 1, 5 << 4, 0x12, 64240, 0, 0)
    if packet.protocol == TCP:
        return struct.pack("!HHIIBBHHH", packet.sport, packet.dport, number, 0, 5 << 4, 0x02, 64240, 0, 0)
    if packet.protocol == UDP:
        return struct.pack("!HHHH", packet.sport, packet.dport, 8 + len(mark), 0) + mark
    kind = 8 if packet.protocol == ICMP else 128
    if ident is not None:
        return struct.pack("!BBHHH", 0 if kind == 8 else 129, 0, 0, ident, 1) + mark
    return struct.pack("!BBHHH", kind, 0, 0, number & 0xFFFF, 1) + mark


_CHECKSUM_AT = {TCP: 16, UDP: 6, ICMP: 2, ICMPV6: 2}


def _answer(packet: Packet, arrival: Arrival) -> bytes:
    """The far end's answer to a packet that arrived."""
    turned = Packet(packet.dst, arrival.src, packet.protocol, packet.dport, arrival.sport)
    return _ip(turned, arrival.number, arrival.ident)


def _answered(data: bytes) -> int | None:
    """The number of the packet that an answer is for."""
    if data[0] >> 4 == 4:
        head, protocol = (data[0] & 15) * 4, data[9]
    elif data[0] >> 4 == 6:
        head, protocol = 40, data[6]
    else:
        return None
    body = data[head:]
    if protocol == TCP and body[13] == 0x12:
        return int(struct.unpack_from("!I", body, 8)[0]) - 1
    if (protocol == UDP or body[:1] in (b"\0", b"\x81")) and body[8:12] == b"hitl":
        return int(struct.unpack_from("!I", body, 12)[0])
    return None


def _ip(packet: Packet, number: int, ident: int | None = None) -> bytes:
    body = _transport(packet, number, ident)
    source, destination = packet.src.packed, packet.dst.packed
    if packet.src.version == 4:
        pseudo = source + destination + struct.pack("!BBH", 0, packet.protocol, len(body))
    else:
        pseudo = source + destination + struct.pack("!IHBB", len(body), 0, 0, packet.protocol)
    value = _checksum(body if packet.protocol == ICMP else pseudo + body)
    at = _CHECKSUM_AT[packet.protocol]
    body = body[:at] + struct.pack("!H", value or 0xFFFF) + body[at + 2 :]
    if packet.src.version == 4:
        head = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), number & 0xFFFF, 0, 64, packet.protocol, 0, source, destination
        )
        return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + body
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), packet.protocol, 64, source, destination) + body


def _parse(data: bytes) -> Arrival | None:
    if data[0] >> 4 == 4:
        head, protocol, source = (data[0] & 15) * 4, data[9], ip_address(data[12:16])
    elif data[0] >> 4 == 6:
        head, protocol, source = 40, data[6], ip_address(data[8:24])
    else:
        return None
    body = data[head:]
    if protocol == TCP and body[13] == 0x02:
        return Arrival(struct.unpack_from("!I", body, 4)[0], source, struct.unpack_from("!H", body)[0])
    if protocol in (UDP, ICMP, ICMPV6) and body[8:12] == b"hitl":
        sport = struct.unpack_from("!H", body)[0] if protocol == UDP else 0
        ident = 0 if protocol == UDP else struct.unpack_from("!H", body, 4)[0]
        return Arrival(struct.unpack_from("!I", body, 12)[0], source, sport, ident)
    return None


# --- namespaces


def _hold(*flags: str) -> subprocess.Popen[str]:
    """A process that holds new namespaces and ends when its standard input does."""
    return subprocess.Popen(
        ["unshare", *flags, "sh", "-c", "echo held; exec cat >/dev/null"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def cannot(reason: str) -> None:
    """Skip with the reason, or fail where kernel tests are required."""
    if os.environ.get("REQUIRE_KERNEL") == "1":
        pytest.fail(f"REQUIRE_KERNEL=1, but {reason}")
    pytest.skip(reason)


def need(*programs: str) -> None:
    """The programs that a test runs."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    for name in programs:
        if shutil.which(name, path=path) is None:
            cannot(f"the program {name} is not installed")


@contextmanager
def wires() -> Iterator[Wires]:
    """Make the three namespaces; everything is gone afterwards."""
    need("unshare", "nsenter", "ip", "nft", "sysctl")
    if os.geteuid() != 0:
        cannot("namespaces are made as root here")
    holders = [_hold("-n"), _hold("-nm"), _hold("-n")]
    try:
        for holder in holders:
            if holder.stdout is None or holder.stdout.readline() != "held\n":
                cannot("network namespaces cannot be made here")
        pod, node, far = (
            Namespace.of_process(name, holder.pid, mount=name == "node")
            for name, holder in zip(("pod", "node", "far"), holders, strict=True)
        )
        _set_up(pod, node, far)
        made = Wires(pod, node, far)
        try:
            yield made
        finally:
            made.close()
    finally:
        for holder in holders:
            with suppress(OSError):
                holder.communicate(timeout=10)


def _set_up(pod: Namespace, node: Namespace, far: Namespace) -> None:
    line = ["nsenter", f"--net={node.net}", f"--mount={node.mnt}", "--", "sh", "-c", _NODE_SCRIPT, "sh"]
    done = subprocess.run([*line, str(pod.pid), str(far.pid)], capture_output=True, text=True, check=False)
    assert done.stdout == "ready\n", done.stderr
    for there in (pod, far):
        # The far end must stay silent: no answers, no neighbour chatter of its own.
        script = "ip link set eth0 arp off; sysctl -q -w net.ipv6.conf.eth0.disable_ipv6=1; ip link set eth0 up"
        subprocess.run(["nsenter", f"--net={there.net}", "--", "sh", "-c", script], check=True)
    # Only the end that is set up last is ready at once. The other learns of it from a queue of the kernel's, and drops
    # what it is to send until then.
    listed, deadline = "", time.monotonic() + _HANG
    while listed.count(" state UP ") < 2:
        assert time.monotonic() < deadline, listed
        listed = subprocess.run(
            ["nsenter", f"--net={node.net}", "--", "ip", "-o", "link"], capture_output=True, text=True, check=True
        ).stdout


def packets(sport: int, sources: Sequence[Address], destinations: Sequence[Address]) -> Iterator[Packet]:
    """New flows of every kind from each source to each destination; source ports count up from ``sport``."""
    for source in sources:
        for destination in destinations:
            echo = ICMP if isinstance(source, IPv4Address) else ICMPV6
            for protocol, dport in ((TCP, 443), (TCP, 80), (UDP, 53), (echo, 0)):
                yield Packet(source, destination, protocol, sport if dport else 0, dport, iif=POD_IN, oif=UPLINK)
                sport += 1
