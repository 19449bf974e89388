"""The rule set of a namespace, kept current from the kernel's events.

Problem: a gap may last a fraction of a millisecond, its writer lives little longer, and while a burst of foreign rules
is taken in the next gap may begin. Promise: a thread of its own does nothing but receive: it stamps every commit the
moment it arrives and looks up the writer's command line while the writer still lives; the transactions are applied
when the caller asks (``next``). The subscription stands before the first read, so that nothing falls between the two.
Dropped events, and anything that does not fit, end in a full read, and the update says so. What it never does:
evaluate. Next stages: ``watch``, ``guard``.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from types import TracebackType

from hitless.errors import HitlessError, KernelError, LostEvents, ours
from hitless.kernel import netlink
from hitless.kernel.clock import Clock
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables import dump, wire
from hitless.kernel.nftables.attendance import Attendance
from hitless.kernel.nftables.places import LONG
from hitless.kernel.nftables.replay import Commit, Desync, Replay, TableChange
from hitless.kernel.nftables.state import Chains, State, TableKey
from hitless.kernel.scheduling import hasten, relax
from hitless.model.families import Family
from hitless.model.rules import Ruleset, Table

__all__ = ["Mirror", "Update", "who"]

_NEWGEN = wire.SUBSYSTEM << 8 | wire.NEWGEN
_RECEIVE_BUFFER = 8 << 20
_ARGV_LIMIT = 512
_LARGE = 100  # datagrams, of some ten messages each: about ten milliseconds of work


def who(pid: int, comm: str) -> tuple[str, str]:
    """The arguments of a process and the command name of its parent, if it still is the one that is called ``comm``.

    Quick, because the programs that write rules end right after their commit. Empty texts where it is too late.
    """
    raw = _peek(f"/proc/{pid}/cmdline")
    stat = _peek(f"/proc/{pid}/stat")  # "pid (comm) state parent …"; a comm may hold anything, brackets too
    name, _, rest = stat.rpartition(b") ")
    if stat and name.partition(b" (")[2] != comm.encode():
        return "", ""  # the number belongs to another process, or to another pid namespace
    words = rest.split()
    parent = _peek(f"/proc/{int(words[1])}/comm") if len(words) > 1 else b""
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
class Update:
    """A new committed rule set. ``t``: when its commit was received (for a full read: when the read was done).

    ``changes`` is ``None`` after a full read: anything may have changed; ``reason`` says why it was needed, ``lost``
    that commits were not seen one by one (the kernel dropped events, or they came while the rules were read). ``pid``
    0: the writer is not known.
    """

    t: int
    ruleset: Ruleset
    generation: int
    changes: tuple[TableChange, ...] | None = None
    pid: int = 0
    comm: str = ""
    argv: str = ""
    parent: str = ""
    lost: bool = False
    reason: str = ""
    noticed: int = 0  # of a full read: when the need for it was noticed


@dataclass(frozen=True, slots=True)
class _Received:
    """The datagrams of one transaction, stamped at its end; none: the place where the kernel dropped some (``t`` 0:
    nothing at all, only wake the caller). ``late``: by how much the stamp may be late, in nanoseconds."""

    t: int
    datagrams: tuple[bytes, ...] = ()
    who: tuple[str, str] = ("", "")
    late: int = 0


class Mirror:
    """A context manager; ``current`` is the first read, ``next`` waits for the next commit. For one thread.

    ``tables``: keep only those with these names. ``receive_buffer`` bounds the burst that can be taken in without
    loss. ``urgent`` gives the receiving thread a real-time priority where that is allowed; it says that the caller's
    thread has one too (``kernel.scheduling``), which is given up while a large transaction is applied: others must run.
    Raises ``MissingError`` without permission or nf_tables.
    """

    def __init__(
        self,
        namespace: Namespace = HERE,
        families: Iterable[Family] = (Family.IPV4, Family.IPV6),
        tables: Collection[str] | None = None,
        *,
        clock: Clock | None = None,
        receive_buffer: int = _RECEIVE_BUFFER,
        urgent: bool = False,
    ) -> None:
        self._urgent = urgent
        self._clock = clock or Clock.from_environment()
        self._families = dump.numbers_of(families)
        self._wanted = tables
        self._queue: queue.SimpleQueue[_Received] = queue.SimpleQueue()
        self._control = netlink.Socket(netlink.NETFILTER, namespace)
        try:
            self._events = netlink.Socket(
                netlink.NETFILTER,
                namespace,
                groups=(wire.EVENTS,),
                receive_buffer=receive_buffer,
                timeout=None,
                subject="the changes of the rules",
            )
        except BaseException:
            self._control.close()
            raise
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._receive, name="nftables-events", daemon=True)
        self._failure: HitlessError | None = None
        self._closed = False
        self.max_lag_ns = 0
        self._began = time.monotonic_ns()
        try:
            self._replay = Replay(
                dump.read_state(self._control, self._families, tables),
                self._families,
                None if tables is None else tuple(tables),
            )
        except BaseException:
            self._close_files()
            raise
        self._view: dict[TableKey, Table] = self._replay.state.view()
        self._thread.start()

    def __enter__(self) -> Mirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription."""
        if not self._closed:
            self._closed = True
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._close_files()

    def _close_files(self) -> None:
        self._events.close()
        self._control.close()
        os.close(self._wake)

    @property
    def generation(self) -> int:
        """The generation that ``current`` shows."""
        return self._replay.state.generation

    @property
    def state(self) -> State:
        """What is mirrored, undecoded."""
        return self._replay.state

    @property
    def current(self) -> Ruleset:
        """The rule set after the last update."""
        return Ruleset(tuple(self._view.values()))

    @property
    def committed(self) -> int:
        """The kernel's generation now, which ``current`` may not show yet."""
        return dump.generation(self._control)

    @property
    def waiting(self) -> int:
        """How many transactions are received and not yet applied."""
        return self._queue.qsize()

    def wake(self) -> None:
        """Make a running ``next`` return ``None`` now, or the following one; from any thread or signal handler."""
        self._queue.put(_Received(0))

    # --- the receiving thread ------------------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            self._follow()
        except BaseException as error:  # noqa: BLE001 - without this thread nothing is seen any more: ``next`` raises it
            self._failure = ours(error, "the thread that receives the changes of the rules")
            self.wake()

    def _follow(self) -> None:
        if self._urgent:
            hasten(2)
        stop = self._wake
        attendance = Attendance((self._events.fileno(), stop), self._began, watched=self._urgent)
        # Only whole transactions are handed over: while a large one comes in, the caller must not wake up and fight
        # with this thread for the interpreter, datagram by datagram.
        parts: list[bytes] = []
        while True:
            try:
                data = self._events.receive(wait=False)
            except LostEvents:
                self._drain(parts, attendance)
                continue
            if data is not None:
                self._take(parts, data, attendance)
            elif stop in attendance.wait():
                attendance.close()
                return

    def _take(self, parts: list[bytes], data: bytes, attendance: Attendance) -> None:
        """Keep a datagram; hand over the transaction that it ends. NEWGEN comes in a datagram of its own."""
        parts.append(data)
        if int.from_bytes(data[4:6], sys.byteorder) == _NEWGEN:
            t, late = self._clock.now(), attendance.late()
            self._queue.put(_Received(t, tuple(parts), _writer(data), late))
            parts.clear()

    def _drain(self, parts: list[bytes], attendance: Attendance) -> None:
        """After a loss: the kernel drops until its queue is empty, so the hole is behind what is still queued."""
        noticed = self._clock.now()
        while True:
            try:
                data = self._events.receive(wait=False)
            except LostEvents:
                continue
            if data is None:
                break
            self._take(parts, data, attendance)
        parts.clear()
        self._queue.put(_Received(noticed))

    # --- the caller's thread -------------------------------------------------------------------------------------

    def next(self, timeout: float | None = None) -> Update | None:
        """The next commit that touched a table that is kept, or a full read; ``None`` when none came in time."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                received = self._queue.get(timeout=left)
            except queue.Empty:
                return None
            if not received.t:
                if self._failure is not None:
                    raise self._failure
                return None
            if not received.datagrams:
                return self._resync("the kernel dropped events (the receive buffer was full)", received.t, lost=True)
            update = self._apply(received)
            if update is not None:
                return update

    def _apply(self, received: _Received) -> Update | None:
        commit = None
        large = self._urgent and len(received.datagrams) > _LARGE
        if large:
            relax()
        try:
            for datagram in received.datagrams:
                for message in netlink.messages(datagram):
                    commit = self._replay.feed(message)
        except (Desync, KernelError) as error:
            return self._resync(str(error), received.t)
        finally:
            if large:
                hasten()
        if commit is None:
            return None
        self.max_lag_ns = max(self.max_lag_ns, self._clock.now() - received.t + received.late)
        return self._committed(received, commit) if commit.changes else None

    def _committed(self, received: _Received, commit: Commit) -> Update:
        self._view = self._replay.state.view(self._view)
        return Update(
            received.t, self.current, commit.generation, commit.changes, commit.pid, commit.comm, *received.who
        )

    def _resync(self, reason: str, noticed: int, *, lost: bool = False) -> Update:
        before = self.generation
        self._replay.reset(dump.read_state(self._control, self._families, self._wanted))
        self._view = self._replay.state.view()
        # Commits between the last one known and the one that needed the read, or during it: what they did, when, and
        # who made them is not known, and a gap may have begun and ended among them.
        unseen = (self.generation - before & 0xFFFFFFFF) - 1
        if not lost and unseen > 0:
            lost, reason = True, f"{unseen} commit{'s' if unseen > 1 else ''} unseen: {reason}"
        return Update(self._clock.now(), self.current, self.generation, lost=lost, reason=reason, noticed=noticed)

    def take_lag(self) -> int:
        """The longest time in nanoseconds from a commit to its application since the last call; where this is not
        ``urgent``, from its receipt."""
        lag, self.max_lag_ns = self.max_lag_ns, 0
        return lag

    def sets_used(self, family: str, table: str, chain: str) -> frozenset[str]:
        """The sets that a chain of the current rule set looked into when it was read."""
        found = self._view.get((wire.NUMBERS[family], table))
        return found.chains.sets_used(chain) if found is not None and isinstance(found.chains, Chains) else frozenset()

    def verify(self, chains: Iterable[tuple[str, str, str]]) -> Update | None:
        """Compare chains (nft family, table, name) with the kernel's; a difference gives a full read as an update.

        ``None``: all is well, or the rule set is changing just now and cannot be compared.
        """
        if not self._settled():
            return None
        wrong = [
            f"chain {name} of table {table}"
            for family, table, name in sorted(chains)
            if family in wire.NUMBERS and not self._same((wire.NUMBERS[family], table), name)
        ]
        if not wrong or not self._settled():
            return None
        return self._resync(f"the rules differ from the kernel's: {', '.join(wrong[:6])}", self._clock.now())

    def _settled(self) -> bool:
        return self._queue.empty() and dump.generation(self._control) == self.generation

    def _same(self, key: TableKey, name: str) -> bool:
        table = self._replay.state.tables.get(key)
        known = table.chains.get(name) if table is not None else None
        found = dump.read_chain(self._control, key, name)
        if table is None or known is None or found is None:
            return known is None and found is None
        if list(found.rules) != list(known.rules) or found.hook != known.hook:
            return False
        # a rule keeps its handle for as long as it is that rule, so of long chains nothing need be decoded
        return len(known.rules) > LONG or found.decoded(table) == known.decoded(table)


def _writer(newgen: bytes) -> tuple[str, str]:
    """The command line, and the parent, of the process that a NEWGEN names."""
    attributes = netlink.attributes(newgen, 20)
    return who(wire.number(attributes.get(wire.GEN_PID, b"")), netlink.to_text(attributes.get(wire.GEN_NAME, b"")))
