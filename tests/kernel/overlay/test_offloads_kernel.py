"""``TxChecksumOffload`` and ``GRO`` of net-conf.json: what the device says, and what is in the packets on the wire."""

from __future__ import annotations

import array
import fcntl
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kernel.overlay.ground import HANG, Ground, Member, ground

from hitless.kernel.namespaces import inside

pytestmark = pytest.mark.kernel

MARK = b"hitless looks at this checksum"
VXLAN_PORT = 8472
GET_GRO = 0x2B  # ETHTOOL_GGRO (linux/ethtool.h)


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path / "leases") as made:
        yield made


def gro(member: Member) -> bool:
    """What ``ethtool -k flannel.1`` says of generic-receive-offload."""

    def ask() -> bool:
        value = array.array("B", struct.pack("=II", GET_GRO, 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
            fcntl.ioctl(door, 0x8946, struct.pack("16sP16x", b"flannel.1", value.buffer_info()[0]))
        return bool(struct.unpack("=II", value.tobytes())[1])

    return inside(member.namespace, ask)


def summed(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of data that may have a checksum in it: 0 when that is right."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def complete(two: Ground) -> bool:
    """Whether a pod's UDP packet has its whole checksum when it arrives at the other node, inside of VXLAN."""
    one, other = two.members

    def listen() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003))
        made.bind(("eth0", 0))
        made.settimeout(HANG)
        return made

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(MARK, (other.pod_address(4), 9))

    with inside(other.namespace, listen) as wire:
        inside(one.pod.namespace, send)
        while True:
            frame = wire.recv(65536)
            outer = frame[14 + 20 :]  # Ethernet and IPv4
            if MARK in frame and frame[12:14] == b"\x08\x00" and struct.unpack_from(">H", outer, 2)[0] == VXLAN_PORT:
                break
    packet = outer[8 + 8 + 14 :]  # UDP, VXLAN, the inner Ethernet
    segment = packet[20 : struct.unpack_from(">H", packet, 2)[0]]
    assert packet[9] == socket.IPPROTO_UDP and segment.endswith(MARK)
    return summed(packet[12:20] + struct.pack(">HH", socket.IPPROTO_UDP, len(segment)) + segment) == 0


def start(two: Ground, **more: bool) -> None:
    for member in two.members:
        for agent in member.agents:
            agent.end()
        two.start(member, backend={"Type": "vxlan", **more})
    for member in two.members:
        member.agents[-1].wait_ready(peers=1)


def test_checksums_and_gro_are_switched_on_the_device_that_is_there(two: Ground) -> None:
    start(two)
    two.all_reach((4,))
    one, _ = two.members
    index = one.ip("-o link show flannel.1").partition(":")[0]
    assert gro(one) and not complete(two)  # the kernel's own: left to hardware that is not there
    start(two, TxChecksumOffload=False, GRO=False)
    assert not gro(one) and complete(two)
    start(two)  # not named: left as it is
    assert not gro(one) and complete(two)
    start(two, TxChecksumOffload=True, GRO=True)
    assert gro(one) and not complete(two)
    assert one.ip("-o link show flannel.1").partition(":")[0] == index
