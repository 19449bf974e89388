"""New TCP connections: connect, read the far end's banner, reset.

Problem: an application notices that it cannot connect, not that a packet was lost. Promise: an attempt is one socket
with the kernel's own SYN retries. It is ok when the banner arrives (far end) or the connection is established (other
targets), delayed if the SYN was sent again (by TCP_INFO, so the loop's lag does not matter), and lost if nothing
arrived within the timeout. A lost one that is watched leaves retries to the kernel, once a second where it has
TCP_RTO_MAX_MS (Linux 6.15). Next stage: ``outcomes``.
"""

from __future__ import annotations

import errno
import select
import socket
import struct

from hitless.probe import wire
from hitless.probe.clients import ClientContext, KindClient
from hitless.probe.engine import Delay, Engine
from hitless.probe.flows import Lane, ProbeFlow
from hitless.probe.outcomes import Outcomes

__all__ = ["Tcp", "client", "syn_retries"]

_ANSWER_SLOW_NS = (
    900_000_000  # no SYN is sent again before 1 s (TCP_TIMEOUT_INIT): below this TCP_INFO need not be read
)
_TCP_RTO_MAX_MS = 44  # linux/tcp.h, since 6.15; not in Python's socket module
_TOTAL_RETRANS = struct.Struct("<I" if struct.pack("=H", 1) == b"\1\0" else ">I")
_TOTAL_RETRANS_AT = (
    100  # offset of tcpi_total_retrans in struct tcp_info (linux/tcp.h): 8 bytes and 23 numbers before it
)


def syn_retries(sock: socket.socket) -> int:
    """How many segments the kernel sent again on this connection (tcpi_total_retrans)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TOTAL_RETRANS_AT + 4)
    return int(_TOTAL_RETRANS.unpack_from(info, _TOTAL_RETRANS_AT)[0])


class Tcp:
    """Attempts of kind tcp."""

    def __init__(self, engine: Engine, outcomes: Outcomes) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._timeouts: Delay[ProbeFlow] = engine.delay(outcomes.timeout_ns, self._expired)

    def start(self, lane: Lane, planned: int) -> None:
        """Begin an attempt; raises ``NoTuple``."""
        connecting = lane.connected(self._engine.clock, socket.SOCK_STREAM)
        flow = self._outcomes.connecting(lane, planned, connecting)
        if connecting.errno not in (0, errno.EINPROGRESS):
            self._outcomes.refused(flow, connecting.errno)
            connecting.sock.close()
            return
        mask = select.EPOLLIN if lane.endpoint.answers else select.EPOLLOUT
        self._engine.watch(connecting.sock.fileno(), mask, lambda _: self._ready(flow))
        self._timeouts.add(flow.begin - flow.slept, flow)

    def _ready(self, flow: ProbeFlow) -> None:
        sock = flow.sock
        assert sock is not None
        try:
            if not flow.lane.endpoint.answers:
                number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    raise OSError(number, "")
                self._answered(flow, None)
                return
            data = sock.recv(128)
        except BlockingIOError:
            return
        except OSError as error:
            self._outcomes.refused(flow, error.errno or errno.EIO)
        else:
            seen = wire.read_banner(data)
            if seen is not None:
                self._answered(flow, seen)
                return
            self._outcomes.failed(flow, "closed before its banner" if not data else f"said {data[:40]!r}")
        self._close(flow)

    def _answered(self, flow: ProbeFlow, seen: wire.Seen | None) -> None:
        sock = flow.sock
        assert sock is not None
        if flow.knocking:
            self._outcomes.recovered(flow)
        elif not flow.ended:
            slow = self._engine.now - flow.begin > _ANSWER_SLOW_NS
            if slow and (retries := syn_retries(sock)):
                flow.tries = 1 + retries
            self._outcomes.answered(flow, delayed=flow.tries > 1, seen=seen)
        self._close(flow)

    def _expired(self, flow: ProbeFlow) -> None:
        if flow.ended:
            return
        assert flow.sock is not None
        flow.tries = 1 + syn_retries(flow.sock)
        flow.hint = flow.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # an ICMP error for a SYN
        if not self._outcomes.silent(flow):
            self._close(flow)
            return
        for option, value in ((socket.TCP_SYNCNT, 127), (_TCP_RTO_MAX_MS, 1000)):
            try:
                flow.sock.setsockopt(socket.IPPROTO_TCP, option, value)
            except OSError as error:  # an older kernel retries at growing intervals, for two minutes
                if error.errno not in (errno.ENOPROTOOPT, errno.EINVAL):
                    raise

    def give_up(self, flow: ProbeFlow) -> None:
        """End a flow that is knocking."""
        self._outcomes.give_up(flow)
        self._close(flow)

    def knock(self, flow: ProbeFlow) -> None:
        """Nothing: the kernel retries by itself."""

    def _close(self, flow: ProbeFlow) -> None:
        if flow.sock is not None:
            self._engine.forget(flow.sock.fileno())
            flow.sock.close()
            flow.sock = None


def client(context: ClientContext) -> KindClient:
    """The client of kind tcp."""
    return Tcp(context.engine, context.outcomes)
