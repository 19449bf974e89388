"""Packets as they arrive: which of them carry a source address from given networks.

Problem: a leaked packet (pod source address outside the node) gets no answer, so no prober can tell it from a lost one;
the far end can, if it reads packets below its sockets. Promise: a packet socket with a classic BPF filter hands over
only the first packets of flows (TCP SYN, UDP, ICMP echo request) from the given networks, with the kernel's receive
time; what the kernel dropped is counted. Needs CAP_NET_RAW. Other traffic never reaches user space, and it never sends.
Next stage: ``hitless.probe.farend`` writes ``Leak`` events.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from hitless.errors import KernelError, MissingError
from hitless.kernel.clock import Clock
from hitless.model.families import Family, Network
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP

__all__ = ["Arrival", "Capture", "program"]

# linux/filter.h, linux/bpf_common.h: opcode values of classic BPF
_LD_W, _LD_H, _LD_B = 0x20, 0x28, 0x30
_LD_B_INDEXED = 0x50
_LDX_HEADER_LENGTH = 0xB1  # X = 4 * (byte & 0x0f): an IPv4 header's length
_AND, _JEQ, _JA, _RET = 0x54, 0x15, 0x05, 0x06
_ANCILLARY = 0xFFFFF000  # SKF_AD_OFF
_PROTOCOL, _PACKET_TYPE = _ANCILLARY + 0, _ANCILLARY + 4
_PACKET_HOST = 0
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
_SNAP = 128

_SO_ATTACH_FILTER, _SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 26, 35, 33  # asm-generic/socket.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER = 8 << 20

_Instruction = tuple[int, int | str, int | str, int | str]  # opcode, jump if true, jump if false, operand; or a label


@dataclass(frozen=True, slots=True)
class Arrival:
    """The first packet of a flow. ``sport`` is the identifier and ``dport`` 0 for echo requests."""

    t: int
    family: Family
    protocol: int
    src: str
    sport: int
    dst: str
    dport: int


def _words(network: Network) -> list[tuple[int, int, int]]:
    """(offset in the header, mask, value) of each 32-bit word of the source address that the network fixes."""
    first = 12 if isinstance(network, IPv4Network) else 8
    size = len(network.network_address.packed) // 4
    masks = struct.unpack(f"!{size}I", network.netmask.packed)
    values = struct.unpack(f"!{size}I", network.network_address.packed)
    return [
        (first + 4 * index, mask, value) for index, (mask, value) in enumerate(zip(masks, values, strict=True)) if mask
    ]


def _family_block(networks: Sequence[Network], family: Family) -> list[_Instruction | str]:
    """Accept first packets of flows from the networks, drop the rest."""
    name = family.value
    code: list[_Instruction | str] = []
    for index, network in enumerate(networks):
        following = f"{name}{index + 1}"
        code.append(f"{name}{index}")
        for offset, mask, value in _words(network):
            code += [(_LD_W, 0, 0, offset), (_AND, 0, 0, mask), (_JEQ, "+", following, value)]
        code.append((_JA, 0, 0, f"{name}-source"))
    code += [f"{name}{len(networks)}", (_RET, 0, 0, 0), f"{name}-source"]
    if family is Family.IPV4:
        # a fragment that is not the first has no ports; its first part was seen
        code += [(_LD_H, 0, 0, 6), (_AND, 0, 0, 0x1FFF), (_JEQ, "+", f"{name}-drop", 0), (_LDX_HEADER_LENGTH, 0, 0, 0)]
        protocol, echo, request, start = 9, ICMP, 8, 0
    else:
        # X = 0 from the start; extension headers are not walked: a flow's first packet has none in practice
        protocol, echo, request, start = 6, ICMPV6, 128, 40
    code += [
        (_LD_B, 0, 0, protocol),
        (_JEQ, f"{name}-accept", "+", UDP),
        (_JEQ, "+", f"{name}-icmp", TCP),
        (_LD_B_INDEXED, 0, 0, start + 13),
        (_AND, 0, 0, 0x12),  # SYN without ACK
        (_JEQ, f"{name}-accept", f"{name}-drop", 0x02),
        f"{name}-icmp",
        (_JEQ, "+", f"{name}-drop", echo),
        (_LD_B_INDEXED, 0, 0, start),
        (_JEQ, f"{name}-accept", f"{name}-drop", request),
        f"{name}-accept",
        (_RET, 0, 0, _SNAP),
        f"{name}-drop",
        (_RET, 0, 0, 0),
    ]
    return code


def program(networks: Sequence[Network]) -> bytes:
    """The filter as the kernel takes it: an array of struct sock_filter."""
    v4 = [network for network in networks if network.version == 4]
    v6 = [network for network in networks if network.version == 6]
    code: list[_Instruction | str] = [
        (_LD_W, 0, 0, _PACKET_TYPE),
        (_JEQ, "+", "none", _PACKET_HOST),
        (_LD_W, 0, 0, _PROTOCOL),
        (_JEQ, "+", "not-v4", _ETH_P_IP),
        (_JA, 0, 0, "v4"),
        "not-v4",
        (_JEQ, "+", "none", _ETH_P_IPV6),
        (_JA, 0, 0, "v6"),
        "none",
        (_RET, 0, 0, 0),
        "v4",
        *_family_block(v4, Family.IPV4),
        "v6",
        *_family_block(v6, Family.IPV6),
    ]
    labels: dict[str, int] = {}
    instructions: list[_Instruction] = []
    for item in code:
        if isinstance(item, str):
            labels[item] = len(instructions)
        else:
            instructions.append(item)

    def offset(target: int | str, at: int) -> int:
        return target if isinstance(target, int) else 0 if target == "+" else labels[target] - at - 1

    return b"".join(
        struct.pack("=HBBI", opcode, offset(true, at), offset(false, at), offset(operand, at))
        for at, (opcode, true, false, operand) in enumerate(instructions)
    )


class Capture:
    """A packet socket for first packets from ``networks`` in the calling thread's network namespace."""

    def __init__(self, networks: Sequence[Network], clock: Clock) -> None:
        self._networks = tuple(networks)
        self._clock = clock
        try:
            self._sock = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL)
            )
        except PermissionError as error:
            raise MissingError(
                "this process may not watch packets", remedy="give it CAP_NET_RAW, or run it as root"
            ) from error
        except OSError as error:
            raise MissingError(
                f"this kernel has no packet sockets ({error.strerror})", remedy="leave out --leaks"
            ) from error
        code = program(self._networks)
        memory = ctypes.create_string_buffer(code)
        try:
            # packets that came before the filter was attached are dropped by ``_parse``
            self._sock.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(code) // 8, ctypes.addressof(memory))
            )
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            try:
                self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            except PermissionError:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        except OSError as error:
            self._sock.close()
            raise KernelError("attach", "a packet filter", error.errno or 0) from error
        self._dropped = 0

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._sock.fileno()

    def arrivals(self, limit: int = 256) -> Iterator[Arrival]:
        """What is waiting, at most ``limit`` packets."""
        for _ in range(limit):
            try:
                data, ancillary, _flags, _sender = self._sock.recvmsg(_SNAP, 64)
            except BlockingIOError:
                return
            except OSError as error:  # an interface went down (ENETDOWN is reported once); the others go on
                if self._sock.fileno() < 0:
                    raise KernelError("read", "packets", error.errno or 0) from error
                continue
            at, wall = self._both_clocks()
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(value) == 16:
                    seconds, nanoseconds = struct.unpack("=qq", value)
                    at -= max(0, wall - (seconds * 1_000_000_000 + nanoseconds))
            arrival = self._parse(data, at)
            if arrival is not None:
                yield arrival

    def _both_clocks(self) -> tuple[int, int]:
        """The clock and the wall clock (in which the kernel stamps packets) at one moment, to within 20 us."""
        for _ in range(5):
            at, wall, after = self._clock.now(), time.time_ns(), self._clock.now()
            if after - at < 20_000:  # else we were interrupted in between: once more
                break
        return at, wall

    def _parse(self, data: bytes, at: int) -> Arrival | None:
        if len(data) < 28:
            return None
        if data[0] >> 4 == 4:
            family, protocol, start = Family.IPV4, data[9], (data[0] & 0x0F) * 4
            src, dst = socket.inet_ntop(socket.AF_INET, data[12:16]), socket.inet_ntop(socket.AF_INET, data[16:20])
        elif data[0] >> 4 == 6 and len(data) >= 48:
            family, protocol, start = Family.IPV6, data[6], 40
            src, dst = socket.inet_ntop(socket.AF_INET6, data[8:24]), socket.inet_ntop(socket.AF_INET6, data[24:40])
        else:
            return None
        if protocol not in (TCP, UDP, ICMP, ICMPV6) or len(data) < start + 8 or not self._watched(data, family):
            return None
        if protocol in (TCP, UDP):
            sport, dport = struct.unpack_from("!HH", data, start)
        else:
            sport, dport = struct.unpack_from("!H", data, start + 4)[0], 0
        return Arrival(at, family, protocol, src, sport, dst, dport)

    def _watched(self, data: bytes, family: Family) -> bool:
        version = 4 if family is Family.IPV4 else 6
        return any(
            network.version == version
            and all(struct.unpack_from("!I", data, at)[0] & mask == value for at, mask, value in _words(network))
            for network in self._networks
        )

    def dropped(self) -> int:
        """How many packets the kernel dropped for us so far, because we read too slowly."""
        packets, drops = struct.unpack("=II", self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._dropped += int(drops) if packets or drops else 0  # reading resets the kernel's counters
        return self._dropped

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
