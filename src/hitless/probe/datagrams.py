"""New UDP flows: ask once, ask again on the same 5-tuple like a resolver, then give up.

Problem: one lost datagram is no outage to an application that asks again, and a poisoned 5-tuple is one that asking
again cannot mend. Promise: an attempt is a connected socket of its own, asked at 0 and at ``RETRY_NS`` on the same
5-tuple; ok when an answer with its token comes, delayed when it answers a later try than the first, refused or
unreachable when the network says so. A lost one that knocks asks every 200 ms. ICMP through a ping socket (no privilege
needed where net.ipv4.ping_group_range allows it) is the same with another ``DatagramFormat``. Next stage: ``outcomes``.
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
"""When the question is asked again, counted from the first time: as impatient resolvers do."""

_RECVERR = {
    Family.IPV4: (socket.IPPROTO_IP, 11),  # IP_RECVERR, linux/in.h
    Family.IPV6: (socket.IPPROTO_IPV6, 25),  # IPV6_RECVERR, linux/in6.h
}

_run = os.urandom(4).hex()


def new_token(number: int) -> bytes:
    """A name for a flow that no other run of a prober uses."""
    return f"{_run}-{number:x}".encode()


class DatagramFormat(Protocol):
    """How a kind asks, and how it knows its answer."""

    protocol: int

    def question(self, flow: ProbeFlow) -> bytes:
        """The datagram of try ``flow.tries``."""

    def answer(self, flow: ProbeFlow, data: bytes) -> wire.Seen | None:
        """What ``data`` answers; ``None`` when it does not answer this flow."""


class UdpFormat:
    """The far end's UDP answer."""

    protocol = 0

    def question(self, flow: ProbeFlow) -> bytes:
        return wire.question(flow.token, flow.tries)

    def answer(self, flow: ProbeFlow, data: bytes) -> wire.Seen | None:
        return wire.read_udp_answer(data, flow.token)


class Datagrams:
    """Attempts that are one connected datagram socket each."""

    def __init__(self, engine: Engine, outcomes: Outcomes, asking: DatagramFormat) -> None:
        self._engine = engine
        self._outcomes = outcomes
        self._asking = asking
        self._number = 0
        retries = tuple(delay for delay in RETRY_NS if delay < outcomes.timeout_ns)
        self._deadlines: list[Delay[tuple[int, ProbeFlow]]] = [
            *(engine.delay(delay, self._again) for delay in retries),
            engine.delay(outcomes.timeout_ns, self._expired),
        ]

    def start(self, lane: Lane, planned: int) -> None:
        """Begin an attempt; raises ``NoTuple``."""
        way = lane.connected(self._engine.clock, socket.SOCK_DGRAM, self._asking.protocol)
        flow = self._outcomes.connecting(lane, planned, way)
        self._number += 1
        flow.token = new_token(self._number)
        if way.errno:
            self._outcomes.refused(flow, way.errno)
            way.sock.close()
            return
        # without it a datagram socket hears of closed ports only (udp(7), ip(7))
        way.sock.setsockopt(*_RECVERR[lane.family], 1)
        self._engine.watch(way.sock.fileno(), select.EPOLLIN, lambda mask: self._ready(flow, mask))
        self._deadlines[0].add(flow.begin - flow.slept, (1, flow))
        self._ask(flow)

    def _ask(self, flow: ProbeFlow) -> None:
        assert flow.sock is not None
        question = self._asking.question(flow)
        for _ in range(2):  # again after an error that an earlier datagram met: send() tells it instead of sending
            try:
                flow.sock.send(question)
                return
            except BlockingIOError:  # our own send buffer or queue is full: the next try will do
                return
            except OSError as error:
                if self._told(flow, error.errno or errno.EIO, local=flow.tries == 1):
                    return

    def _told(self, flow: ProbeFlow, number: int, *, local: bool = False) -> bool:
        """The network or this machine says something against the flow; returns whether that ends it.

        A refusal ends it, and so does an error of our own machine. That a host or network cannot be reached may pass,
        and a resolver asks again: it is remembered as the cause of a loss to come.
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
                self._hear(flow, flow.sock)
                return
            data = flow.sock.recv(2048)
        except BlockingIOError:
            return
        except OSError as error:
            self._told(flow, error.errno or errno.EIO)
            return
        seen = self._asking.answer(flow, data)
        if seen is None:
            return
        if flow.knocking:
            self._outcomes.recovered(flow)
        elif not flow.ended:
            self._outcomes.answered(flow, delayed=seen.attempt > 1, seen=seen if seen.address else None)
        self._close(flow)

    def _hear(self, flow: ProbeFlow, sock: socket.socket) -> None:
        """Take ICMP errors off the socket's error queue (which would keep it ready for ever)."""
        _, ancillary, _, _ = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE)
        for _, _, value in ancillary:
            if len(value) >= 4 and self._told(flow, struct.unpack_from("=I", value)[0]):  # ee_errno stands first
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
        """Ask once more."""
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


def client(setting: ClientContext) -> KindClient:
    """Who makes attempts of kind udp."""
    return Datagrams(setting.engine, setting.outcomes, UdpFormat())
