"""New UDP flows: one request, retries on the same 5-tuple as resolvers do, then give up.

Problem: one lost datagram is no outage for an application that retries, and on a poisoned 5-tuple no retry helps.
Promise: an attempt is a connected socket of its own that sends at 0 and at ``RETRY_NS`` on the same 5-tuple; it is ok
when an answer with its token arrives, delayed if that answers a later try than the first, refused or unreachable if the
network reports that. A lost flow that is watched sends every 200 ms. ICMP through a ping socket (unprivileged where
net.ipv4.ping_group_range allows it) is the same with another ``DatagramFormat``. Next stage: ``outcomes``.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from typing import Protocol

from hitless.model.families import Family
from hitless.probe import causes, wire
from hitless.probe.clients import ClientContext, KindClient
from hitless.probe.engine import Delay, Engine
from hitless.probe.flows import Lane, ProbeFlow
from hitless.probe.outcomes import Outcomes

__all__ = ["RETRY_NS", "DatagramFormat", "Datagrams", "UdpFormat", "client", "new_token"]

RETRY_NS = (250_000_000, 750_000_000, 1_500_000_000)
"""When a request is sent again, after the first time: the intervals of impatient resolvers."""

_RECVERR = {
    Family.IPV4: (socket.IPPROTO_IP, 11),  # IP_RECVERR, linux/in.h
    Family.IPV6: (socket.IPPROTO_IPV6, 25),  # IPV6_RECVERR, linux/in6.h
}

_run = os.urandom(4).hex()


def new_token(number: int) -> bytes:
    """A name for a flow, unique among all runs of probers."""
    return f"{_run}-{number:x}".encode()


class DatagramFormat(Protocol):
    """A kind's requests, and how its answers are recognised."""

    protocol: int

    def request(self, flow: ProbeFlow) -> bytes:
        """The request of try ``flow.tries``."""

    def read_answer(self, flow: ProbeFlow, data: bytes) -> wire.Seen | None:
        """The answer in ``data``; ``None`` if it does not answer this flow."""


class UdpFormat:
    """UDP to a far end."""

    protocol = 0

    def request(self, flow: ProbeFlow) -> bytes:
        return wire.udp_request(flow.token, flow.tries)

    def read_answer(self, flow: ProbeFlow, data: bytes) -> wire.Seen | None:
        return wire.read_udp_answer(data, flow.token)


class Datagrams:
    """Attempts that are one connected datagram socket each."""

    def __init__(self, engine: Engine, outcomes: Outcomes, format_: DatagramFormat) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._format = format_
        self._number = 0
        retries = tuple(delay for delay in RETRY_NS if delay < outcomes.timeout_ns)
        self._deadlines: list[Delay[tuple[int, ProbeFlow]]] = [
            *(engine.delay(delay, self._again) for delay in retries),
            engine.delay(outcomes.timeout_ns, self._expired),
        ]

    def start(self, lane: Lane, planned: int) -> None:
        """Begin an attempt; raises ``NoTuple``."""
        connecting = lane.connected(self._engine.clock, socket.SOCK_DGRAM, self._format.protocol)
        flow = self._outcomes.connecting(lane, planned, connecting)
        self._number += 1
        flow.token = new_token(self._number)
        if connecting.errno:
            self._outcomes.refused(flow, connecting.errno)
            connecting.sock.close()
            return
        # without it, a datagram socket gets no errors except closed ports (udp(7), ip(7))
        connecting.sock.setsockopt(*_RECVERR[lane.family], 1)
        self._engine.watch(connecting.sock.fileno(), select.EPOLLIN, lambda mask: self._ready(flow, mask))
        self._deadlines[0].add(flow.begin - flow.slept, (1, flow))
        self._ask(flow)

    def _ask(self, flow: ProbeFlow) -> None:
        assert flow.sock is not None
        question = self._format.request(flow)
        for _ in range(2):  # twice: send() may return an earlier datagram's error instead of sending
            try:
                flow.sock.send(question)
                return
            except BlockingIOError:  # our own send buffer or queue is full: left to the next try
                return
            except OSError as error:
                if self._on_error(flow, error.errno or errno.EIO, local=flow.tries == 1):
                    return

    def _on_error(self, flow: ProbeFlow, number: int, *, local: bool = False) -> bool:
        """Handle an error from the network or this machine; returns whether it ends the attempt.

        A refusal and an error of this machine end it. "Unreachable" may be temporary, and a resolver would retry: it is
        kept as the cause in case the attempt is lost.
        """
        if not local and causes.cause_of_errno(number) == "unreachable":
            flow.hint = number
            return False
        self._outcomes.refused(flow, number, "not sent" if number == errno.EPERM else "")
        self._close(flow)
        return True

    def _ready(self, flow: ProbeFlow, mask: int) -> None:
        assert flow.sock is not None
        try:
            if mask & select.EPOLLERR:
                self._read_error_queue(flow, flow.sock)
                return
            data = flow.sock.recv(2048)
        except BlockingIOError:
            return
        except OSError as error:
            self._on_error(flow, error.errno or errno.EIO)
            return
        seen = self._format.read_answer(flow, data)
        if seen is None:
            return
        if flow.knocking:
            self._outcomes.recovered(flow)
        elif not flow.ended:
            self._outcomes.answered(flow, delayed=seen.attempt > 1, seen=seen if seen.address else None)
        self._close(flow)

    def _read_error_queue(self, flow: ProbeFlow, sock: socket.socket) -> None:
        """Read ICMP errors from the socket's error queue, which would keep the socket ready."""
        _, ancillary, _, _ = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
        for _, _, value in ancillary:
            if len(value) >= 4 and self._on_error(flow, struct.unpack_from("=I", value)[0]):  # ee_errno comes first
                return

    def _again(self, item: tuple[int, ProbeFlow]) -> None:
        stage, flow = item
        if flow.ended:
            return
        self._deadlines[stage].add(flow.begin - flow.slept, (stage + 1, flow))
        flow.tries += 1
        self._ask(flow)

    def _expired(self, item: tuple[int, ProbeFlow]) -> None:
        flow = item[1]
        if not flow.ended and not self._outcomes.silent(flow):
            self._close(flow)

    def knock(self, flow: ProbeFlow) -> None:
        """Send once more."""
        flow.tries += 1
        self._ask(flow)

    def give_up(self, flow: ProbeFlow) -> None:
        """End a flow that is knocking."""
        self._outcomes.give_up(flow)
        self._close(flow)

    def _close(self, flow: ProbeFlow) -> None:
        if flow.sock is not None:
            self._engine.forget(flow.sock.fileno())
            flow.sock.close()
            flow.sock = None


def client(context: ClientContext) -> KindClient:
    """The client of kind udp."""
    return Datagrams(context.engine, context.outcomes, UdpFormat())
