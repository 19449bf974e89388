"""New echo requests, each with a new identifier, so that conntrack sees a new flow.

Problem: a new sequence number is not a new flow (conntrack uses the identifier), and raw sockets need CAP_NET_RAW,
which pods often lack. Promise: with a raw socket, one socket per family serves all attempts; without, each attempt has
a ping socket (``net.ipv4.ping_group_range``); if neither is allowed, a ``MissingError`` says what to do. Requests are
repeated like UDP's, with the next sequence number. Destination-unreachable messages are matched to their attempt. Next
stage: ``outcomes``.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct

from hitless.errors import MissingError
from hitless.model.families import Family
from hitless.probe import causes, wire
from hitless.probe.clients import ClientContext, KindClient
from hitless.probe.datagrams import RETRY_NS, Datagrams
from hitless.probe.engine import Delay, Engine
from hitless.probe.flows import Lane, NoTuple, ProbeFlow, af
from hitless.probe.outcomes import Outcomes

__all__ = ["PingFormat", "RawIcmp", "checksum", "client", "echo", "socket_type"]

_ECHO = struct.Struct("!BBHHH")
_REQUEST = {Family.IPV4: 8, Family.IPV6: 128}
_REPLY = {Family.IPV4: 0, Family.IPV6: 129}
_UNREACHABLE = {Family.IPV4: 3, Family.IPV6: 1}
_PROTOCOL = {Family.IPV4: socket.IPPROTO_ICMP, Family.IPV6: socket.IPPROTO_ICMPV6}
_SOL_RAW, _ICMP_FILTER = 255, 1  # linux/icmp.h; not in Python's socket module
_ICMP6_FILTER = 1  # linux/icmpv6.h
_RECEIVE_BUFFER = 8 << 20  # the default loses answers in bursts, which would look like losses of the network
_SO_RCVBUFFORCE, _SO_RXQ_OVFL = 33, 40  # asm-generic/socket.h


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of ``data``, which must have an even length."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return int(~(total + (total >> 16)) & 0xFFFF)


def echo(family: Family, identifier: int, sequence: int, payload: bytes) -> bytes:
    """An echo request; the kernel fills in ICMPv6's checksum (RFC 3542, section 3.1)."""
    kind = _REQUEST[family]
    message = _ECHO.pack(kind, 0, 0, identifier, sequence) + payload
    if family is Family.IPV6:
        return message
    return _ECHO.pack(kind, 0, checksum(message), identifier, sequence) + payload


def socket_type(family: Family) -> str:
    """The type of socket with which this process can send echo requests: ``raw`` or ``ping``.

    Raises ``MissingError`` if it cannot.
    """
    for type_, name in ((socket.SOCK_RAW, "raw"), (socket.SOCK_DGRAM, "ping")):
        try:
            socket.socket(af(family), type_, _PROTOCOL[family]).close()
        except PermissionError:
            continue
        except OSError as error:
            raise MissingError(
                f"this machine has no {family} ICMP sockets ({error.strerror})", remedy="leave icmp out"
            ) from error
        return name
    raise MissingError(
        "this process may not send ICMP echo requests",
        remedy="give it CAP_NET_RAW, widen sysctl net.ipv4.ping_group_range, or leave icmp out",
    )


class PingFormat:
    """Echo requests through ping sockets: the kernel takes the identifier from the bound port."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self.protocol = int(_PROTOCOL[family])

    def request(self, flow: ProbeFlow) -> bytes:
        return echo(self._family, 0, flow.tries, b"%-16.16s" % flow.token)

    def read_answer(self, flow: ProbeFlow, data: bytes) -> wire.Seen | None:
        if len(data) < 8 or data[0] != _REPLY[self._family] or data[8:24] != b"%-16.16s" % flow.token:
            return None
        return wire.Seen("", 0, _ECHO.unpack_from(data)[4])


class RawIcmp:
    """Attempts of kind icmp of one family, all through one raw socket."""

    def __init__(self, engine: Engine, outcomes: Outcomes, family: Family, interface: str = "") -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._family = family
        self._mark = os.urandom(8)
        self._flows: dict[tuple[str, int], ProbeFlow] = {}
        self._overflow = 0
        self._overflow_at = 0
        self._sock = socket.socket(af(family), socket.SOCK_RAW | socket.SOCK_NONBLOCK, _PROTOCOL[family])
        self._set_up(interface)
        engine.watch(self._sock.fileno(), select.EPOLLIN, lambda _: self._ready())
        retries = tuple(delay for delay in RETRY_NS if delay < outcomes.timeout_ns)
        self._deadlines: list[Delay[tuple[int, ProbeFlow]]] = [
            *(engine.delay(delay, self._again) for delay in retries),
            engine.delay(outcomes.timeout_ns, self._expired),
        ]

    def _set_up(self, interface: str) -> None:
        sock = self._sock
        if interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        wanted = (_REPLY[self._family], _UNREACHABLE[self._family])
        if self._family is Family.IPV4:
            blocked = ~sum(1 << number for number in wanted) & 0xFFFFFFFF
            sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", blocked))
        else:
            bits = [0xFFFFFFFF] * 8
            for number in wanted:
                bits[number >> 5] &= ~(1 << (number & 31)) & 0xFFFFFFFF
            sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *bits))

    def start(self, lane: Lane, planned: int) -> None:
        """Begin an attempt; raises ``NoTuple``."""
        begin = self._engine.clock.now()
        pair = lane.tuples.take(begin)
        if pair is None:
            raise NoTuple("skipped_tuples")
        key = (wire.plain(lane.endpoint.address), pair[0])
        if key in self._flows:  # still knocking, or in use by another lane to the same address
            raise NoTuple("skipped_ports")
        flow = self._outcomes.begun(lane, planned, begin)
        flow.sport = pair[0]
        self._flows[key] = flow
        self._deadlines[0].add(begin - self._engine.asleep, (1, flow))
        self._ask(flow)

    def _ask(self, flow: ProbeFlow) -> None:
        try:
            self._sock.sendto(echo(self._family, flow.sport, flow.tries & 0xFFFF, self._mark), flow.lane.where(0))
        except BlockingIOError:
            return
        except OSError as error:
            if flow.tries > 1 and causes.cause_of_errno(error.errno or 0) == "unreachable":
                flow.hint = error.errno or 0
                return
            self._outcomes.refused(flow, error.errno or errno.EIO, "not sent" if error.errno == errno.EPERM else "")
            self._forget(flow)

    def _ready(self) -> None:
        for _ in range(256):
            try:
                data, ancillary, _flags, sender = self._sock.recvmsg(2048, 64)
            except BlockingIOError:
                return
            except OSError:  # an asynchronous error of one destination: left to the attempts' own deadlines
                continue
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
                    self._overflowed(struct.unpack("=I", value)[0])
            if self._family is Family.IPV4:
                data = data[(data[0] & 0x0F) * 4 :]  # a raw IPv4 socket gets the IP header too (raw(7))
            self._message(data, wire.plain(str(sender[0])))

    def _overflowed(self, count: int) -> None:
        if count != self._overflow:
            self._outcomes.totals["icmp_overflow"] += count - self._overflow
            self._overflow = count
            self._overflow_at = self._engine.now

    def _message(self, data: bytes, sender: str) -> None:
        if len(data) < 8:
            return
        kind, _code, _sum, identifier, sequence = _ECHO.unpack_from(data)
        if kind == _UNREACHABLE[self._family]:
            self._unreachable(data[8:])
            return
        flow = self._flows.get((sender, identifier))
        if flow is None or data[8:16] != self._mark:
            return
        if flow.knocking:
            self._outcomes.recovered(flow)
        elif not flow.ended:
            self._outcomes.answered(flow, delayed=sequence > 1)
        self._forget(flow)

    def _unreachable(self, inner: bytes) -> None:
        """Match the packet that an ICMP error quotes to its attempt."""
        if self._family is Family.IPV4:
            if len(inner) < 28 or inner[9] != socket.IPPROTO_ICMP:
                return
            address = socket.inet_ntop(socket.AF_INET, inner[16:20])
            quoted = inner[(inner[0] & 0x0F) * 4 :]
        else:
            if len(inner) < 48 or inner[6] != socket.IPPROTO_ICMPV6:
                return
            address = socket.inet_ntop(socket.AF_INET6, inner[24:40])
            quoted = inner[40:]
        if len(quoted) < 8 or quoted[0] != _REQUEST[self._family]:
            return
        flow = self._flows.get((address, _ECHO.unpack_from(quoted)[3]))
        if flow is not None:
            flow.hint = errno.EHOSTUNREACH  # may be temporary: kept as the cause, see ``datagrams``

    def _again(self, item: tuple[int, ProbeFlow]) -> None:
        stage, flow = item
        if flow.ended:
            return
        self._deadlines[stage].add(flow.begin - flow.slept, (stage + 1, flow))
        flow.tries += 1
        self._ask(flow)

    def _expired(self, item: tuple[int, ProbeFlow]) -> None:
        flow = item[1]
        if flow.ended:
            return
        if self._overflow_at >= flow.begin:
            self._outcomes.overflowed(flow)
            self._forget(flow)
        elif not self._outcomes.silent(flow):
            self._forget(flow)

    def knock(self, flow: ProbeFlow) -> None:
        """Send once more."""
        flow.tries += 1
        self._ask(flow)

    def give_up(self, flow: ProbeFlow) -> None:
        """End a flow that is knocking."""
        self._outcomes.give_up(flow)
        self._forget(flow)

    def _forget(self, flow: ProbeFlow) -> None:
        self._flows.pop((wire.plain(flow.lane.endpoint.address), flow.sport), None)

    def close(self) -> None:
        """Close the raw socket."""
        self._engine.forget(self._sock.fileno())
        self._sock.close()


def client(context: ClientContext) -> KindClient:
    """The client of kind icmp: one raw socket for all attempts, if that is allowed."""
    if socket_type(context.family) == "ping":
        return Datagrams(context.engine, context.outcomes, PingFormat(context.family))
    raw = RawIcmp(context.engine, context.outcomes, context.family, context.interface)
    context.closing.callback(raw.close)
    return raw
