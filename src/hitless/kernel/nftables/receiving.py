"""The receiving end of the kernel's events: a thread that does nothing else.

Problem: a writer of rules ends right after its commit, and a storm of changes fills any buffer while the last of them
is being applied. Promise: every transaction is stamped when it arrives, with its writer's command line, and put into
``queue`` as a whole. Messages about rules and elements of chains and sets in ``skipped`` are counted and dropped at
once, so that irrelevant changes by other programs cost no memory. The queue is bounded: beyond ``MOST_WAITING`` bytes
transactions are dropped, and a marker in the queue shows where some are missing, as when the kernel dropped them. A
failure of the thread is raised by the next ``take``. Next stage: ``mirror``.
"""

from __future__ import annotations

import os
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from hitless.errors import EventsLostError, HitlessError, ours
from hitless.kernel import netlink
from hitless.kernel.clock import Clock
from hitless.kernel.cpu_priority import hasten
from hitless.kernel.namespaces import Namespace
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.lateness import Lateness

__all__ = ["MOST_WAITING", "Received", "Receiver", "after", "process_text", "subscription"]

MOST_WAITING = 24 << 20
_OVERHEAD = 700  # bytes that a queued transaction takes in addition to its messages
_NEWGEN = wire.SUBSYSTEM << 8 | wire.NEWGEN
_KINDS = {
    wire.SUBSYSTEM << 8 | wire.NEWRULE: (b"\0", 0),
    wire.SUBSYSTEM << 8 | wire.DELRULE: (b"\0", 1),
    wire.SUBSYSTEM << 8 | wire.NEWSETELEM: (b"\1", 0),
    wire.SUBSYSTEM << 8 | wire.DELSETELEM: (b"\1", 1),
}
_HEADER = struct.Struct("=IH")
_LENGTH = struct.Struct("=H")
_ARGV_LIMIT = 512
_BRIEFLY = 0.001
_KERNEL_FULL = "the kernel dropped events (the receive buffer was full)"
_FULL = f"events were dropped ({MOST_WAITING >> 20} MB of them were waiting)"


def after(one: int, other: int) -> bool:
    """Whether generation ``one`` is later than ``other``; the number wraps around."""
    return 0 < (one - other) & 0xFFFFFFFF < 1 << 31


def process_text(pid: int, comm: str) -> tuple[str, str]:
    """The arguments of a process and the command name of its parent, if it is still the one called ``comm``; else empty
    texts. Quick, because programs that write rules end right after their commit."""
    raw = _peek(f"/proc/{pid}/cmdline")
    stat = _peek(f"/proc/{pid}/stat")  # "pid (comm) state parent …"; a comm may hold anything, brackets too
    name, _, rest = stat.rpartition(b") ")
    if stat and name.partition(b" (")[2] != comm.encode():
        return "", ""  # the pid belongs to another process, or to another pid namespace
    fields = rest.split()
    parent = _peek(f"/proc/{int(fields[1])}/comm") if len(fields) > 1 else b""
    argv = raw.rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
    return argv, parent.rstrip(b"\n").decode("utf-8", "replace")


def _peek(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _ARGV_LIMIT)
    except OSError:
        return b""
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class Received:
    """A transaction, stamped at its end; without ``datagrams``: a marker that some are missing, and why (``t`` 0: only
    wake the caller).

    ``left_out``: how many messages (added, removed) about skipped chains and sets were dropped. ``collapsed``: the
    number of transactions before it that touched nothing else; they are merged into this one. ``late``: by how much the
    stamp may be late, in nanoseconds.
    """

    t: int
    datagrams: tuple[bytes, ...] = ()
    left_out: dict[bytes, list[int]] = field(default_factory=dict)
    collapsed: int = 0
    writer: tuple[str, str] = ("", "")
    late: int = 0
    size: int = 0
    reason: str = ""


def subscription(namespace: Namespace, receive_buffer: int) -> netlink.Socket:
    """A socket on which the kernel announces commits."""
    return netlink.Socket(
        netlink.NETFILTER,
        namespace,
        groups=(wire.EVENTS,),
        receive_buffer=receive_buffer,
        timeout=None,
        subject="the changes of the rules",
    )


class Receiver:
    """Begins with ``start``; ``skipped`` may be changed at any time by the thread that reads the queue.

    ``collapse``: transactions that touched only skipped chains and sets are merged into the next one that touched
    others.
    """

    def __init__(self, events: netlink.Socket, clock: Clock, *, urgent: bool = False, collapse: bool = False) -> None:
        self.queue: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self.skipped: set[bytes] = set()
        self.generation = 0  # the last one received
        self.mattered = 0  # the last one that touched more than skipped chains and sets
        self.touched: dict[bytes, int] = {}  # per skipped chain or set: the last one that touched it
        self._clock, self._urgent, self._collapse = clock, urgent, collapse
        self._socket = events
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="nftables-events", daemon=True)
        self._began = time.monotonic_ns()
        self._failure: HitlessError | None = None
        self._put, self._got = 0, 0  # bytes
        self._closed = False
        self._losing = False
        self._parts: list[bytes] = []
        self._size = 0
        self._left_out: dict[bytes, list[int]] = {}
        self._collapsed = 0

    def start(self) -> None:
        """Begin to receive, starting with what arrived since the socket was created."""
        self._thread.start()

    def close(self) -> None:
        """Stop; may be called again."""
        if self._closed:
            return
        self._closed = True
        if self._thread.ident is not None:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
        self._socket.close()
        os.close(self._wake)

    def take(self, timeout: float | None) -> Received | None:
        """The next queue entry; ``None`` if none arrived in time."""
        try:
            found = self.queue.get(timeout=timeout)
        except queue.Empty:
            return None
        if self._failure is not None:
            raise self._failure
        self._got += found.size
        if found.t and not found.datagrams:
            self._losing = False
        return found

    def caught_up(self, generation: int, patience: float) -> bool:
        """Wait until ``generation`` has been received; false when the time is over."""
        deadline = self._clock.monotonic() + patience
        while after(generation, self.generation):
            if self._losing or self._clock.monotonic() > deadline:
                return False
            self._clock.sleep(_BRIEFLY)
        return not self._losing

    # --- the thread

    def _run(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # noqa: BLE001 - without this thread no event is received: ``take`` raises it
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self._failure = ours(error, "the thread that receives the changes of the rules")
        self.queue.put(Received(0))

    def _follow(self) -> None:
        if self._urgent:
            hasten(2)
        lateness = Lateness((self._socket.fileno(), self._wake), self._began, watched=self._urgent)
        # Only whole transactions are queued: while a large one arrives, the caller must not wake up for each datagram
        # and compete with this thread for the interpreter. During a storm there is nothing to wait for.
        while not self._closed:
            if not self._take_in(lateness.late) and self._wake in lateness.wait():
                break
        lateness.close()

    def _take_in(self, late: Callable[[], int]) -> bool:
        """Receive what the kernel has next; returns whether there was anything."""
        try:
            data = self._socket.receive(wait=False)
        except EventsLostError:
            self._drain(late)
            return True
        if data is None:
            return False
        self._take(data, late)
        return True

    def _take(self, data: bytes, late: Callable[[], int]) -> None:
        """Keep a datagram; queue the transaction that it ends. NEWGEN comes in a datagram of its own."""
        if int.from_bytes(data[4:6], sys.byteorder) == _NEWGEN:
            self._close(data, late)
        elif not self._losing:
            kept = self._sift(data) if self.skipped else data
            if kept:
                self._parts.append(kept)
                self._size += len(kept)
                if self._put - self._got + self._size > MOST_WAITING:
                    self._lose(self._clock.now(), _FULL)

    def _sift(self, data: bytes) -> bytes:
        """The messages of a datagram without those about skipped chains and sets, which are counted."""
        rest: list[bytes] = []
        offset, end, cut, skipped = 0, len(data), 0, self.skipped
        while offset + 24 <= end:
            length, kind = _HEADER.unpack_from(data, offset)
            if length < 16 or offset + length > end:
                return data  # applying it will report the error
            found = _KINDS.get(kind)
            if found is not None:
                first = offset + 20
                behind = first + (_LENGTH.unpack_from(data, first)[0] + 3 & ~3)
                if behind + 2 <= offset + length:
                    behind += _LENGTH.unpack_from(data, behind)[0] + 3 & ~3
                identity = found[0] + data[offset + 16 : offset + 17] + data[first:behind]
                if identity in skipped:
                    self._left_out.setdefault(identity, [0, 0])[found[1]] += 1
                    rest.append(data[cut:offset])
                    cut = offset + (length + 3 & ~3)
            offset += length + 3 & ~3
        if not cut:
            return data
        rest.append(data[cut:])
        return b"".join(rest)

    def _close(self, data: bytes, late: Callable[[], int]) -> None:
        attributes = netlink.attributes(data, 20)
        generation = wire.number(attributes.get(wire.GEN_ID, b""))
        self._note(generation)
        self.generation = generation
        if self._losing:
            return
        if self._collapse and self._left_out and not self._parts:
            self._collapsed += 1
            return
        t, lateness = self._clock.now(), late()
        pid, comm = wire.number(attributes.get(wire.GEN_PID, b"")), attributes.get(wire.GEN_NAME, b"")
        size = self._size + len(data) + _OVERHEAD
        self._put += size
        writer = process_text(pid, netlink.to_text(comm))
        datagrams = (*self._parts, data)
        self.queue.put(Received(t, datagrams, self._left_out, self._collapsed, writer, lateness, size))
        self._begin()

    def _begin(self) -> None:
        self._parts, self._left_out = [], {}
        self._size = self._collapsed = 0

    def _note(self, generation: int) -> None:
        if self._parts or not self._left_out or self._losing:
            self.mattered = generation
        for identity in self._left_out:
            self.touched[identity] = generation
        if len(self.touched) > 2 * len(self.skipped) + 64:
            self.touched = {each: last for each, last in self.touched.items() if each in self.skipped}

    def _drain(self, late: Callable[[], int]) -> None:
        """After a loss: the kernel drops events until its queue is empty, so that the missing ones follow what is still
        queued."""
        noticed = self._clock.now()
        while not self._closed:
            try:
                data = self._socket.receive(wait=False)
            except EventsLostError:
                continue
            if data is None:
                break
            self._take(data, late)
        self._lose(noticed, _KERNEL_FULL)

    def _lose(self, noticed: int, reason: str) -> None:
        """Drop everything until the marker is read: its reader reads all rules again."""
        self._begin()
        if not self._losing:
            self._losing = True
            self.queue.put(Received(noticed, reason=reason))
