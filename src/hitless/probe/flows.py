"""One attempt while it runs, and the address that attempts go to.

Problem: all kinds of attempts need a 5-tuple of their own, a socket bound to it, and the real time of the first packet.
Promise: a ``Lane`` (one kind to one address) provides 5-tuples and bound, non-blocking sockets; a ``ProbeFlow`` is the
state of one attempt, small because an outage has thousands. Sockets are closed with a reset (SO_LINGER 0): no TIME_WAIT
in the pod, and the node's conntrack entry goes after 10 s (nf_conntrack_tcp_timeout_close) instead of two minutes. Next
stages: ``tcp``, ``datagrams``, ``icmp``, ``http``.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from hitless.errors import InputError
from hitless.kernel.clock import Clock
from hitless.model.families import Family
from hitless.probe.accounting import Bucket
from hitless.probe.targets import ProbeEndpoint
from hitless.probe.tuples import Tuples

__all__ = ["Connecting", "Lane", "NoTuple", "ProbeFlow", "af"]

_LINGER_RESET = struct.pack("ii", 1, 0)
_TRIES = 16  # source ports tried, if others are using them, before the attempt is skipped

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


def af(family: Family) -> socket.AddressFamily:
    """The address family's number."""
    return socket.AF_INET if family is Family.IPV4 else socket.AF_INET6


class NoTuple(Exception):
    """No 5-tuple is available; ``args[0]`` names the counter of skipped attempts."""


class Connecting(NamedTuple):
    """A connecting socket: ``begin`` is the time before its first packet, ``errno`` 0, EINPROGRESS or a failure."""

    sock: socket.socket
    begin: int
    sport: int
    dport: int
    errno: int


class Lane:
    """All attempts of one kind to one address."""

    __slots__ = (
        "_bind",
        "_where",
        "asked_source",
        "control",
        "endpoint",
        "family",
        "interface",
        "kind",
        "source",
        "tuples",
    )

    def __init__(
        self, endpoint: ProbeEndpoint, tuples: Tuples, *, source: str = "", interface: str = "", control: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.kind = endpoint.kind
        self.family = endpoint.family
        self.tuples = tuples
        self.interface = interface.encode()
        self.control = control
        self.asked_source = source
        self.source = source
        self._bind: SocketAddress = ("", 0)
        # numeric; also resolves a zone (fe80::1%eth0) to its index
        try:
            found = socket.getaddrinfo(endpoint.address, 0, af(self.family), flags=socket.AI_NUMERICHOST)
        except OSError as error:
            raise InputError(
                f"{endpoint.target}: there is no interface {endpoint.address.partition('%')[2]!r}",
                where="--control" if control else "--to",
                expected="an interface of this machine (or namespace) behind the %",
            ) from error
        self._where: SocketAddress = found[0][4]  # type: ignore[assignment]  # typeshed's union has bytes too
        self.find_source()

    def find_source(self) -> None:
        """Get the source address from the kernel; ``source`` is empty while there is no route."""
        if not self.asked_source:
            with socket.socket(af(self.family), socket.SOCK_DGRAM) as probe:
                try:
                    self._bind_to_interface(probe)
                    probe.connect(self.where(9))
                    self.source = str(probe.getsockname()[0])
                except OSError:
                    self.source = ""  # attempts report the error; tried again each second
        any_address = "" if self.family is Family.IPV4 else "::"
        scope = self._where[3] if len(self._where) == 4 and self.source.startswith("fe80") else 0
        self._bind = (
            (self.source or any_address, 0) if len(self._where) == 2 else (self.source or any_address, 0, 0, scope)
        )

    def _moved(self) -> bool:
        """Whether the source address has changed."""
        before = self.source
        self.find_source()
        return self.source != before

    def where(self, port: int) -> SocketAddress:
        """The endpoint's socket address with ``port``."""
        return (self._where[0], port, *self._where[2:])

    def _bind_to_interface(self, sock: socket.socket) -> None:
        if self.interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface)

    def prepare(self, sock: socket.socket, sport: int) -> None:
        """Bind a socket to the lane's interface and source address and to ``sport``."""
        self._bind_to_interface(sock)
        sock.bind((self._bind[0], sport, *self._bind[2:]))

    def connected(self, clock: Clock, type_: int, protocol: int = 0) -> Connecting:
        """A socket with a new 5-tuple whose connect has begun.

        An errno other than 0 and EINPROGRESS ends the attempt. Raises ``NoTuple`` if all 5-tuples were used too
        recently, ports are in use, or no descriptor is free.
        """
        for _ in range(_TRIES):
            pair = self.tuples.take(clock.now())
            if pair is None:
                raise NoTuple("skipped_tuples")
            try:
                sock = socket.socket(af(self.family), type_ | socket.SOCK_NONBLOCK, protocol)
            except OSError as error:
                raise NoTuple("skipped_descriptors") from error
            try:
                if type_ == socket.SOCK_STREAM:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
                self.prepare(sock, pair[0])
            except OSError as error:
                begin, number = clock.now(), error.errno or errno.EIO
                taken = number == errno.EADDRINUSE or (number == errno.EADDRNOTAVAIL and self._moved())
            else:
                begin = clock.now()  # not before the socket was made: a gap may begin in between
                number = sock.connect_ex(self.where(pair[1]))
                taken = number in (errno.EADDRINUSE, errno.EADDRNOTAVAIL)  # another socket has this 5-tuple
            if taken:
                sock.close()
                continue
            return Connecting(sock, begin, pair[0], pair[1], number)
        raise NoTuple("skipped_ports")


class ProbeFlow:
    """One attempt. ``begin`` is the real time before its first packet, ``slept`` the engine's sleep until then."""

    __slots__ = (
        "begin",
        "bucket",
        "buffer",
        "dport",
        "ended",
        "hint",
        "knocking",
        "lane",
        "planned",
        "slept",
        "sock",
        "sport",
        "token",
        "tries",
    )

    def __init__(self, lane: Lane, bucket: Bucket, planned: int, begin: int, slept: int) -> None:
        self.lane = lane
        self.bucket = bucket
        self.planned = planned
        self.begin = begin
        self.slept = slept
        self.sock: socket.socket | None = None
        self.sport = 0
        self.dport = 0
        self.tries = 1
        self.token = b""
        self.hint = 0  # an errno that the network reported, and that does not end the attempt
        self.buffer = b""
        self.ended = False  # counted (it may still be knocking)
        self.knocking = False
