"""Netlink: the socket that every port to the kernel shares, and the codec of its messages (``messages``).

Problem: rule dumps, rule events, conntrack and route tables all speak netlink, thousands of objects at a time, and a
general library costs 20 to 100 times what the work itself costs. Promise: a small exact codec (``struct`` only) for
any protocol, rtnetlink and nfnetlink alike; a dump is whole or it is repeated (``NLM_F_DUMP_INTR``); a refused request
is ``KernelError`` with the kernel's number and its message; dropped events are ``EventsLostError``; a malformed
message is ``KernelError``, never an ``IndexError``. What it never does: interpret a payload. Next stages:
``kernel.nftables``, ``kernel.conntrack``.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import TypeVar

from hitless.errors import AlreadyExists, EventsLostError, KernelError, MissingError, NotFound
from hitless.kernel.messages import (
    Message,
    attribute,
    attribute_list,
    attributes,
    be16,
    be32,
    be64,
    message,
    messages,
    nested,
    nfgenmsg,
    text,
    to_text,
    u32,
)
from hitless.kernel.namespaces import HERE, Namespace, inside

__all__ = [
    "NETFILTER",
    "ROUTE",
    "TRIES",
    "Message",
    "Socket",
    "TornError",
    "attribute",
    "attribute_list",
    "attributes",
    "be16",
    "be32",
    "be64",
    "message",
    "messages",
    "nested",
    "nfgenmsg",
    "text",
    "to_text",
    "u32",
]

ROUTE, NETFILTER = 0, 12

# nlmsg_flags (include/uapi/linux/netlink.h)
REQUEST, MULTI, ACK, ECHO, DUMP_INTR = 0x1, 0x2, 0x4, 0x8, 0x10
ROOT, MATCH, DUMP = 0x100, 0x200, 0x300
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
NONREC = 0x100
"""Flags of requests; REPLACE, EXCL, CREATE and APPEND are for "new" requests, NONREC for "delete"."""

_NOOP, _ERROR, _DONE, _OVERRUN = 1, 2, 3, 4
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_CAPPED, _ACK_TLVS = 0x100, 0x200
_ERR_MSG = 1  # NLMSGERR_ATTR_MSG

_SOL_NETLINK = 270
_ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK = 1, 10, 11
_SO_RCVBUFFORCE, _SO_SNDBUFFORCE = 33, 32

_U32, _I32 = struct.Struct("=I"), struct.Struct("=i")

_BUFFER = 1 << 18  # larger than any datagram that the kernel makes (dumps 32 KB, events a page or two)
TRIES = 50  # of an interrupted dump: each interruption is a change by another process


_T = TypeVar("_T")


class TornError(KernelError):
    """A change interrupted a dump, which must be read again."""


def refusal(number: int, operation: str, subject: str, message: str = "") -> KernelError | MissingError:
    """The exception for a refused request."""
    if number == errno.EPERM:
        return MissingError(
            f"{operation} {subject}: not permitted",
            remedy="run it as root, or with CAP_NET_ADMIN in the network namespace's user namespace",
        )
    kinds = {errno.ENOENT: NotFound, errno.ESRCH: NotFound, errno.ENODEV: NotFound, errno.EEXIST: AlreadyExists}
    kind = kinds.get(number, EventsLostError if number == errno.ENOBUFS else KernelError)
    return kind(operation, subject, number, f"{os.strerror(number)}: {message}" if message else "")


class Socket:
    """A netlink socket that lives in a namespace. One thread at a time; a context manager.

    ``receive_buffer``: set with the privileged option where that is allowed. ``groups``: multicast group numbers;
    ``subject``: what they report, for messages.
    """

    def __init__(
        self,
        protocol: int,
        namespace: Namespace = HERE,
        *,
        groups: Sequence[int] = (),
        receive_buffer: int = 1 << 20,
        timeout: float | None = 30.0,
        subject: str = "",
    ) -> None:
        self.namespace, self._protocol = namespace, protocol
        self._seq = 0
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._ready = select.poll()
        try:
            self._socket = inside(
                namespace, lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
            )
        except OSError as error:
            raise MissingError(
                f"this kernel offers no netlink protocol {protocol} ({error.strerror})",
                remedy="load the kernel's nfnetlink and nf_tables modules"
                if protocol == NETFILTER
                else "check the kernel",
            ) from error
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(timeout)
            self._ready.register(self._socket, select.POLLIN)
            self._set_buffer(receive_buffer)
            for option in (_CAP_ACK, _EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            for group in groups:
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
        except OSError as error:
            self._socket.close()
            raise refusal(error.errno or 0, "subscribe to", subject or f"netlink groups {tuple(groups)}") from error
        self.port: int = self._socket.getsockname()[0]

    def _set_buffer(self, size: int) -> None:
        for force, plain in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, force, size)
            except OSError:  # the privileged option needs CAP_NET_ADMIN in the first user namespace
                self._socket.setsockopt(socket.SOL_SOCKET, plain, size)

    def __enter__(self) -> Socket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it; harmless when it is closed."""
        self._socket.close()

    def another(self) -> Socket:
        """Another socket for requests, in the same namespace."""
        return Socket(self._protocol, self.namespace)

    def fileno(self) -> int:
        """The file descriptor, for selectors."""
        return self._socket.fileno()

    @property
    def receive_buffer(self) -> int:
        """The size of the receive buffer that the kernel granted, in its own accounting (twice the requested)."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def receive(self, *, wait: bool = True) -> bytes | None:
        """One datagram; ``None`` when there is none and ``wait`` is false, or none came in time.

        Raises ``EventsLostError`` once for each time that the kernel had to drop some.
        """
        if not wait and self._socket.gettimeout() and not self._ready.poll(0):
            return None  # Python waits for a socket with a timeout, also with MSG_DONTWAIT
        flags = socket.MSG_TRUNC | (0 if wait else socket.MSG_DONTWAIT)
        try:
            size = self._socket.recv_into(self._buffer, 0, flags)
        except (BlockingIOError, TimeoutError):
            return None
        except OSError as error:
            raise refusal(error.errno or 0, "receive from", "netlink socket") from error
        if size > _BUFFER:
            raise EventsLostError("receive from", "netlink socket", errno.EMSGSIZE)
        return bytes(self._view[:size])

    def _send(self, data: bytes, operation: str, subject: str) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            raise refusal(error.errno or 0, operation, subject) from error

    def _replies(self, operation: str, subject: str) -> Iterator[Message]:
        """Messages that answer the last request, errors included, until the caller has enough."""
        while True:
            data = self.receive()
            if data is None:
                raise KernelError(operation, subject, errno.ETIMEDOUT)
            for reply in messages(data):
                if reply.seq <= self._seq and reply.type not in (_NOOP, _OVERRUN):
                    yield reply

    def request(self, kind: int, flags: int, payload: bytes, *, operation: str, subject: str) -> list[Message]:
        """One request, acknowledged; returns the messages that came before the acknowledgement."""
        self._seq += 1
        self._send(message(kind, flags | REQUEST | ACK, self._seq, payload), operation, subject)
        found: list[Message] = []
        for reply in self._replies(operation, subject):
            if reply.seq != self._seq:
                continue  # a late answer to an earlier request
            if reply.type == _ERROR:
                self._raise(reply, operation, subject)
                return found
            found.append(reply)
        return found

    def dump(self, kind: int, payload: bytes, *, operation: str, subject: str) -> list[Message]:
        """All messages of a dump, whole."""
        return self.collect(kind, payload, lambda one: one, operation=operation, subject=subject)

    def collect(
        self, kind: int, payload: bytes, decode: Callable[[Message], _T | None], *, operation: str, subject: str
    ) -> list[_T]:
        """The values of a dump, each decoded as its message comes, without those that are ``None``; repeated from the
        start while the kernel reports that a change interrupted it (``NLM_F_DUMP_INTR``)."""
        for _ in range(TRIES):
            found: list[_T] = []
            answers = self.stream(kind, payload, operation=operation, subject=subject)
            try:
                for one in answers:
                    value = decode(one)
                    if value is not None:
                        found.append(value)
            except TornError:
                continue
            return found
        raise KernelError(operation, subject, errno.EINTR, f"changed during each of {TRIES} reads")

    def stream(
        self, kind: int, payload: bytes, *, operation: str, subject: str, torn: bool = False
    ) -> Iterator[Message]:
        """The answers of a dump one by one, as they come; ``TornError`` at the end where the kernel reports that a
        change interrupted it (not with ``torn``: the caller does not need a whole dump)."""
        self._seq += 1
        seq, whole = self._seq, True
        self._send(message(kind, REQUEST | DUMP, seq, payload), operation, subject)
        for reply in self._replies(operation, subject):
            if reply.seq != seq:
                continue
            whole = whole and not reply.flags & DUMP_INTR
            if reply.type in (_DONE, _ERROR):
                status = _I32.unpack_from(reply.payload)[0] if len(reply.payload) >= 4 else 0
                if status in (-errno.EINTR, -errno.EAGAIN):
                    whole = torn = False  # it ended in the middle
                elif status < 0 and reply.type == _ERROR:
                    self._raise(reply, operation, subject)
                elif status < 0:
                    raise refusal(-status, operation, subject)
                break
            yield reply
        if not whole and not torn:
            raise TornError(operation, subject, errno.EINTR)

    def requests(
        self, parts: Sequence[tuple[int, int, bytes]], *, operation: str, subject: str
    ) -> list[KernelError | MissingError | None]:
        """Independent ``(type, flags, payload)`` requests in one message; why each was refused, in order."""
        if not parts:
            return []
        begin = self._seq + 1
        self._seq += len(parts)
        flags = [REQUEST] * (len(parts) - 1) + [REQUEST | ACK]
        data = [message(kind, more | flags[at], begin + at, load) for at, (kind, more, load) in enumerate(parts)]
        self._send(b"".join(data), operation, subject)
        found: list[KernelError | MissingError | None] = [None] * len(parts)
        for reply in self._replies(operation, subject):
            if reply.type == _ERROR and reply.seq >= begin:
                try:
                    self._raise(reply, operation, subject)
                except (KernelError, MissingError) as error:
                    found[reply.seq - begin] = error
                if reply.seq == self._seq:
                    break
        return found

    def batch(self, subsystem: int, parts: Iterable[tuple[int, int, bytes]], *, operation: str, subject: str) -> None:
        """One nfnetlink transaction of ``(type, flags, payload)`` requests: all of it is committed, or nothing.

        Raises for the first request that was refused; ``subject`` gets its number in the batch.
        """
        requests = list(parts)
        if not requests:
            return
        begin = self._seq + 1
        data = [message(_BATCH_BEGIN, REQUEST, begin, nfgenmsg(0, subsystem))]
        for number, (kind, flags, payload) in enumerate(requests, 1):
            last = ACK if number == len(requests) else 0
            data.append(message(kind, flags | REQUEST | last, begin + number, payload))
        self._seq = begin + len(requests) + 1
        data.append(message(_BATCH_END, REQUEST, self._seq, nfgenmsg(0, subsystem)))
        self._send(b"".join(data), operation, subject)
        for reply in self._replies(operation, subject):
            if reply.type != _ERROR or reply.seq < begin:
                continue
            number = reply.seq - begin
            self._raise(reply, operation, f"{subject} (request {number} of {len(requests)})" if number else subject)
            if number == len(requests):
                return

    @staticmethod
    def _raise(reply: Message, operation: str, subject: str) -> None:
        """Raise the error of an NLMSG_ERROR; return when it is a plain acknowledgement."""
        if len(reply.payload) < 20:
            raise KernelError(operation, subject, reason="the kernel's answer is cut short")
        (status,), message = _I32.unpack_from(reply.payload), ""
        if status == 0:
            return
        if reply.flags & _ACK_TLVS:
            start = 20
            if not reply.flags & _CAPPED:
                start = 4 + ((_U32.unpack_from(reply.payload, 4)[0] + 3) & ~3)
            message = to_text(attributes(reply.payload, start).get(_ERR_MSG, b""))
        raise refusal(-status, operation, subject, message)
