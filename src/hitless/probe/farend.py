"""The far end: answers each kind of attempt with the source address that it saw.

Problem: only the other side can tell whether a flow was translated, and it must never be the bottleneck or the cause of
a loss. Promise: one epoll loop, large buffers, deep backlogs; it listens only at the given addresses and answers only a
prober's requests, never with more bytes than it received. Open connections and their buffers are bounded; if it had to
close some, its heartbeats say so (``full``), and failures of that time prove nothing. With ``leaks`` it also sees
packets that no answer can reach, those from pod networks (``hitless.kernel.capture``). Each second it reports what it
dropped and how late it was. It keeps no state between requests. Next stage: the events.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hitless import __version__
from hitless.errors import InputError
from hitless.kernel import machine
from hitless.kernel.capture import Capture
from hitless.kernel.clock import Clock
from hitless.kernel.cpu_priority import given_back
from hitless.kernel.visitors import OUT_OF_ROOM, raise_descriptor_limit
from hitless.model.event_fields import TRANSPORTS
from hitless.model.events import Event, Header, Heartbeat, Leak, Note, Summary
from hitless.model.families import Address, Network
from hitless.model.packets import ICMP, ICMPV6, TCP, UDP
from hitless.probe import wire
from hitless.probe.clients import load
from hitless.probe.engine import Engine
from hitless.probe.far_end_services import OpenConnections, Responder
from hitless.probe.kinds import ENTRIES, at_port

__all__ = ["FarEnd", "FarEndOptions"]

_SECOND = 1_000_000_000
_TICK_NS = 100_000_000
_BACKLOG = 65535  # the kernel cuts it to net.core.somaxconn
_BUFFER = 8 << 20  # the default of 212 kB loses a burst of some 300 datagrams while the loop is late by 50 ms
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE, _SO_RXQ_OVFL = 33, 32, 40  # asm-generic/socket.h
_BURST = 256  # accepts or datagrams per descriptor and turn, so that no port starves the others
_SPARE_DESCRIPTORS = 128  # for listeners, output, and what Python itself opens
_LAST = 65536  # packets read at the end: more than the capture's buffer can hold
_IN6_PKTINFO = 50  # IPV6_PKTINFO of linux/in6.h
_IP_PKTINFO = 8
_PROTOCOLS = {TCP: "tcp", UDP: "udp", ICMP: "icmp", ICMPV6: "icmp"}


@dataclass(frozen=True, slots=True)
class FarEndOptions:
    """Where to listen, and from which networks packets are ``leaks``; at most ``leak_limit`` are written one by one."""

    addresses: tuple[Address, ...]
    base: int = wire.BASE_PORT
    leaks: tuple[Network, ...] = ()
    leak_limit: int = 10_000


class FarEnd:
    """One far end. ``emit`` takes each event; ``flush`` is called every 100 ms."""

    def __init__(
        self,
        options: FarEndOptions,
        emit: Callable[[Event], None],
        *,
        clock: Clock,
        flush: Callable[[], None] = lambda: None,
    ) -> None:
        self._options = options
        self._emit = emit
        self._flush = flush
        self._engine = Engine(clock)
        self._stopping = False
        self._open = contextlib.ExitStack()
        self._open.callback(self._engine.close)
        self.totals: Counter[str] = Counter()
        self.open_connections = OpenConnections(self._engine, self.totals)
        self._open.callback(self.open_connections.close)
        self._paused: set[int] = set()  # listeners that wait for a free descriptor
        self._warned: set[str] = set()
        self._overflow: dict[int, int] = {}
        self._cpu = 0
        self._beat_at = 0
        self._capture: Capture | None = None

    def stop(self) -> None:
        """End the loop. Safe in a signal handler."""
        self._stopping = True

    def run(self, config: Mapping[str, Any] | None = None) -> dict[str, int]:
        """Answer until stopped, and return the totals. The Header is written when all sockets listen."""
        engine = self._engine
        with self._open:
            self.open_connections.limit(raise_descriptor_limit() - _SPARE_DESCRIPTORS)
            for address in self._options.addresses:
                self._listen(address)
            self._watch_leaks()
            given, here = dict(config or {}), machine.kernel()
            now = engine.clock.now()
            self._emit(Header(t=now, tool="farend", version=__version__, pid=os.getpid(), config=given, machine=here))
            self._flush()
            engine.turn(engine.clock.now())
            engine.lag()
            self._beat_at = engine.now + _SECOND
            self._cpu = time.process_time_ns()
            tick = engine.now + _TICK_NS
            while not self._stopping:
                engine.turn(min(tick, self._beat_at))
                if engine.now >= tick:
                    self._flush()
                    tick = engine.now + _TICK_NS
                    while self._paused:
                        engine.rewatch(self._paused.pop(), select.EPOLLIN)
                if engine.now >= self._beat_at:
                    self._beat()
            if self._capture is not None:  # leaks up to the end belong to the record, also when this process was late
                self._leaked(self._capture, _LAST)
            self._beat()
            self._emit(Summary(t=engine.clock.now(), tool="farend", totals=dict(self.totals)))
            self._flush()
            return dict(self.totals)

    # --- listening ---------------------------------------------------------------------------------------------

    def _listen(self, address: Address) -> None:
        for entry in ENTRIES.values():
            for port in entry.ports(self._options.base):
                load(entry.answer)(self, address, port)

    def _bound(self, kind: int, address: Address, port: int) -> socket.socket:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        self._open.callback(sock.close)
        if kind == socket.SOCK_STREAM:  # with UDP, a second far end could take the datagrams
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            found = socket.getaddrinfo(str(address), port, family, flags=socket.AI_NUMERICHOST)
            sock.bind(found[0][4])
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise InputError(
                f"cannot listen at {address} port {port}: {error.strerror}",
                where="--bind",
                expected="free ports: another far end may run; --port chooses others"
                if taken
                else "an address of this machine (or namespace)",
            ) from error
        return sock

    def listen_tcp(
        self, address: Address, port: int, on_connection: Callable[[socket.socket, tuple[Any, ...]], None]
    ) -> None:
        """Listen, and give every connection with its sender to ``on_connection``."""
        sock = self._bound(socket.SOCK_STREAM, address, port)
        sock.listen(_BACKLOG)

        def ready(_: int) -> None:
            for _turn in range(_BURST):
                try:
                    connection, sender = sock.accept()
                except BlockingIOError:
                    return
                except ConnectionAbortedError:
                    continue
                except OSError as error:
                    self.totals["accept_failed"] += 1
                    self.totals[f"accept_errno_{error.errno}"] += 1
                    if error.errno in OUT_OF_ROOM:  # it stays in the backlog; accepting again at once would spin
                        self.open_connections.full += 1
                        self._paused.add(sock.fileno())
                        self._engine.rewatch(sock.fileno(), 0)
                    return
                on_connection(connection, sender)

        self._engine.watch(sock.fileno(), select.EPOLLIN, ready)

    def listen_udp(self, address: Address, port: int, kind: str, answer: Responder) -> None:
        """Listen, and send what ``answer(address, port, request)`` returns; counted as ``kind``."""
        sock = self._bound(socket.SOCK_DGRAM, address, port)
        for forced, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, _BUFFER)
            except PermissionError:  # no CAP_NET_ADMIN: as much as net.core.rmem_max allows
                sock.setsockopt(socket.SOL_SOCKET, plain, _BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
        if address.is_unspecified:  # answer from the address that got the request, not from the route's preferred one
            if address.version == 4:
                sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._engine.watch(sock.fileno(), select.EPOLLIN, lambda _: self._answer(sock, kind, answer))

    def _answer(self, sock: socket.socket, counted: str, answers: Responder) -> None:
        totals = self.totals
        for _ in range(_BURST):
            try:
                data, ancillary, _flags, sender = sock.recvmsg(2048, 128)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for an earlier answer
                totals[f"{counted}_gone"] += 1
                continue
            back = []
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_RXQ_OVFL:
                    fd = sock.fileno()
                    count = struct.unpack("=I", value)[0]
                    totals[f"{counted}_overflow"] += count - self._overflow.get(fd, 0)
                    self._overflow[fd] = count
                elif kind == _IP_PKTINFO and level == socket.IPPROTO_IP:
                    back.append((level, kind, bytes(4) + value[4:]))  # any interface: the routes choose
                elif kind == _IN6_PKTINFO and level == socket.IPPROTO_IPV6:
                    back.append((level, kind, value if value[0] == 0xFE else value[:16] + bytes(4)))
            answer = answers(sender[0], sender[1], data)
            if answer is None:  # not a request; an answer of another service to a forged source, perhaps
                totals[f"{counted}_ignored"] += 1
                continue
            totals[counted] += 1
            try:
                sock.sendmsg([answer], back, 0, sender)
            except OSError:  # no route back (a leaked source), or our own buffer is full
                totals[f"{counted}_unanswered"] += 1

    # --- measuring ---------------------------------------------------------------------------------------------

    def _watch_leaks(self) -> None:
        if not self._options.leaks:
            return
        capture = Capture(self._options.leaks, self._engine.clock)
        self._open.callback(capture.close)
        self._capture = capture
        self._engine.watch(capture.fileno(), select.EPOLLIN, lambda _: self._leaked(capture))

    def _leaked(self, capture: Capture, limit: int = _BURST) -> None:
        for arrival in capture.arrivals(limit):
            kind = at_port(_PROTOCOLS[arrival.protocol], arrival.dport, self._options.base)
            self.totals["leaks"] += 1
            self.totals[f"leaks_{kind}"] += 1
            if self.totals["leaks"] <= self._options.leak_limit:
                self._emit(
                    Leak(
                        t=arrival.t,
                        kind=kind,
                        family=arrival.family.value,
                        src=arrival.src,
                        sport=arrival.sport,
                        dst=arrival.dst,
                        dport=arrival.dport,
                    )
                )

    def _beat(self) -> None:
        now, cpu = self._engine.clock.now(), time.process_time_ns()
        if self._capture is not None and (dropped := self._capture.dropped()):
            self.totals["leaks_not_seen"] = dropped
        full, self.open_connections.full = self.open_connections.full, 0
        if full:
            self._warn(
                "full",
                f"full: {full} connections were closed for others, at last of {self.open_connections.closed_source}",
            )
        if text := given_back():
            self._warn("scheduling", text)
        self._emit(
            Heartbeat(
                t=now,
                tool="farend",
                interval_ns=now - self._beat_at + _SECOND,
                max_lag_ns=self._engine.lag(),
                cpu_ns=cpu - self._cpu,
                detail=_counted(self.totals),
                full=full,
            )
        )
        self._cpu = cpu
        self._beat_at = now + _SECOND
        self.open_connections.sweep(now)

    def _warn(self, what: str, text: str) -> None:
        """Write a warning once; the heartbeats have the counts."""
        if what not in self._warned:
            self._warned.add(what)
            self._emit(Note(t=self._engine.clock.now(), level="warning", text=text))


def _counted(totals: Mapping[str, int]) -> str:
    """The counters as text: tcp 2,724, udp 1,394, http 46, echo 2; leaks 76 (icmp 12, tcp 32, udp 32)."""
    known = [entry.served for entry in ENTRIES.values() if totals.get(entry.served)]
    parts = [", ".join(f"{name} {totals[name]:,}" for name in known)] if known else []
    kinds = list(dict.fromkeys(TRANSPORTS.values()))
    leaks = [f"{kind} {totals[f'leaks_{kind}']:,}" for kind in kinds if totals.get(f"leaks_{kind}")]
    if totals.get("leaks"):
        parts.append(f"leaks {totals['leaks']:,}" + (f" ({', '.join(leaks)})" if leaks else ""))
    listed = {*known, "leaks", *(f"leaks_{kind}" for kind in kinds)}
    rest = [
        f"{name.replace('_', ' ')} {count:,}" for name, count in sorted(totals.items()) if name not in listed and count
    ]
    return "; ".join([*parts, *([", ".join(rest)] if rest else [])])
