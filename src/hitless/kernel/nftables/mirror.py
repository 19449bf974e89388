"""The rule set of a namespace, kept current from the kernel's events.

Problem: a gap may last a fraction of a millisecond, its writer lives little longer, and the next gap may begin while a
burst of foreign rules is processed. Promise:

- A thread of its own (``receiving``) stamps every commit when it arrives; the transactions are applied when the caller
  calls ``next``. The subscription exists before the first read, so that no commit is missed between them.
- Dropped events, and events that contradict the state, cause a full read, and the update says so. The old state is
  dropped before, so that only one is in memory.
- While other programs change the rules so quickly that they cannot be read, nothing is known of them; the update says
  so, and the read is repeated later.
- Only chains and sets of ``interest`` are kept. What becomes of interest later is read then, at the current generation.

It never evaluates rules. Next stages: ``watch``, ``guard``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from types import TracebackType

from hitless.errors import KernelError
from hitless.kernel import netlink
from hitless.kernel.clock import Clock
from hitless.kernel.cpu_priority import hasten, relax
from hitless.kernel.namespaces import HERE, Namespace
from hitless.kernel.nftables import dump, wire
from hitless.kernel.nftables.comparison import different
from hitless.kernel.nftables.fetching import CATCH_UP_S, FETCH_AGAIN_S, Fetcher
from hitless.kernel.nftables.interest import EVERYTHING, Interest
from hitless.kernel.nftables.receiving import Received, Receiver, after, subscription
from hitless.kernel.nftables.replay import Desync, Replay, TableChange
from hitless.kernel.nftables.state import Chains, State, TableKey, unread_state
from hitless.kernel.ports import UNREADABLE, only_ours
from hitless.model.families import Family
from hitless.model.rules import Ruleset, Table

__all__ = ["Mirror", "Sockets", "Update"]

_RECEIVE_BUFFER = 8 << 20
_LARGE = 100  # datagrams, of some ten messages each: about ten milliseconds of work
_OVERTIME_S = 0.5  # of work on waiting transactions, beyond the caller's timeout
_READ_S = 2.0  # a read that commits disturb for longer is repeated later
_AGAIN_S = (0.5, 8.0)  # the first pause before that, and the longest one


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


class _YieldingSocket(netlink.Socket):
    """Calls ``give_way`` before each datagram that it receives."""

    def __init__(self, namespace: Namespace, give_way: Callable[[], None]) -> None:
        super().__init__(netlink.NETFILTER, namespace)
        self._give_way = give_way

    def receive(self, *, wait: bool = True) -> bytes | None:
        self._give_way()
        return super().receive(wait=wait)

    def another(self) -> netlink.Socket:
        return _YieldingSocket(self.namespace, self._give_way)


class Sockets:
    """The two connections to the kernel. Tests without one pass others. ``give_way`` is called between the pieces of a
    long read, and may wait for something more urgent."""

    def __init__(self, namespace: Namespace, give_way: Callable[[], None] | None = None) -> None:
        self._namespace, self._give_way = namespace, give_way

    def control(self) -> netlink.Socket:
        """For requests."""
        if self._give_way is not None:
            return _YieldingSocket(self._namespace, self._give_way)
        return netlink.Socket(netlink.NETFILTER, self._namespace)

    def receiver(self, clock: Clock, receive_buffer: int, *, urgent: bool, collapse: bool) -> Receiver:
        """For events."""
        return Receiver(subscription(self._namespace, receive_buffer), clock, urgent=urgent, collapse=collapse)


class Mirror:
    """A context manager; ``current`` is the first read, ``next`` waits for the next commit. For one thread.

    ``tables``: keep only those with these names. ``interest``: of chains and sets outside it, only the names are kept.
    ``receive_buffer`` bounds the burst that can be received without loss. ``urgent`` gives the receiving thread a
    real-time priority where that is allowed, and means that the caller's thread has one too (``kernel.cpu_priority``);
    it is dropped while a large transaction is applied, so that other processes can run. ``collapse``: commits that
    touch nothing of interest cause no update, and ``generation`` follows with the next one that does. Raises
    ``MissingError`` without permission or nf_tables.
    """

    def __init__(
        self,
        namespace: Namespace = HERE,
        families: Iterable[Family] = (Family.IPV4, Family.IPV6),
        tables: Collection[str] | None = None,
        *,
        interest: Interest = EVERYTHING,
        clock: Clock | None = None,
        receive_buffer: int = _RECEIVE_BUFFER,
        urgent: bool = False,
        collapse: bool = False,
        sockets: Sockets | None = None,
    ) -> None:
        self._urgent = urgent
        self._clock = clock or Clock.from_environment()
        self._families = dump.numbers_of(families)
        self._wanted = tables
        self._interest = interest
        sockets = sockets or Sockets(namespace)
        self._control = sockets.control()
        try:
            self._receiver = sockets.receiver(self._clock, receive_buffer, urgent=urgent, collapse=collapse)
        except BaseException:
            self._control.close()
            raise
        self.max_lag_ns = 0
        self._unread_since = 0  # when a read was given up that is to be tried again
        self._read_at = self._pause = 0.0
        try:
            self._receiver.start()
            names = None if tables is None else tuple(tables)
            self._replay = Replay(State(), self._families, names, interest)
            self._receiver.skipped = self._replay.skipped
            self._fetcher = Fetcher(self._control, self._receiver, self._replay, self._clock)
            self._view: dict[TableKey, Table] = {}
            self._begin()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Mirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription."""
        self._receiver.close()
        self._control.close()

    @property
    def generation(self) -> int:
        """The generation that ``current`` shows."""
        return self._replay.state.generation

    @property
    def state(self) -> State:
        """The mirrored state, undecoded."""
        return self._replay.state

    @property
    def current(self) -> Ruleset:
        """The rule set after the last update."""
        return Ruleset(tuple(self._view.values()))

    @property
    def committed(self) -> int:
        """The kernel's generation now, which ``current`` may not have reached yet."""
        return dump.generation(self._control)

    def catch_up(self, patience: float = CATCH_UP_S) -> bool:
        """Wait for the events of all commits up to now, which ``next`` then returns without waiting. Whether they
        arrived in time."""
        last = self.committed
        return not after(last, self.generation) or self._receiver.caught_up(last, patience)

    @property
    def waiting(self) -> int:
        """How many transactions are received and not yet applied."""
        return self._receiver.queue.qsize()

    def wake(self) -> None:
        """Make a running ``next`` return ``None`` now, or the following one; from any thread or signal handler."""
        self._receiver.queue.put(Received(0))

    def next(self, timeout: float | None = None) -> Update | None:
        """The next commit that touched a table that is kept, or a full read; ``None`` when none came in time."""
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        left = timeout
        while True:
            if self._unread_since and self._clock.monotonic() >= self._read_at:
                update = self._read_again()
                if update is not None:
                    return update
            fetcher = self._fetcher
            if (fetcher.due and fetcher.fetch_late()) or (fetcher.ahead and fetcher.settle_ahead()):
                self._view = self._replay.state.view(self._view)
                return Update(self._clock.now(), self.current, self.generation, ())
            received = self._receiver.take(self._bounded(left))
            if received is not None:
                if not received.t:
                    return None
                if self._unread_since:
                    pass  # the next read includes it
                elif not received.datagrams:
                    return self._resync(received.reason, received.t, lost=True)
                elif (update := self._apply(received)) is not None:
                    return update
            if deadline is not None:
                left = deadline - self._clock.monotonic()
                if left <= 0 and (received is None or not self._receiver.queue.qsize() or left < -_OVERTIME_S):
                    return None
                left = max(0.0, left)

    def _bounded(self, left: float | None) -> float | None:
        """How long to wait until something else is due."""
        due = [] if left is None else [left]
        due += [self._read_at - self._clock.monotonic()] if self._unread_since else []
        due += [FETCH_AGAIN_S] if self._fetcher.waiting or self._fetcher.ahead else []
        return max(0.0, min(due)) if due else None

    def _apply(self, received: Received) -> Update | None:
        large = self._urgent and len(received.datagrams) > _LARGE
        if large:
            relax()
        try:
            *parts, last = received.datagrams
            commit = self._replay.commit(
                (message for datagram in parts for message in netlink.messages(datagram)),
                next(netlink.messages(last)),
                received.left_out,
                received.collapsed,
            )
        except (Desync, KernelError, *UNREADABLE) as error:
            return self._resync(str(error), received.t)
        finally:
            if large:
                hasten()
        if commit is None:
            return None
        came = self._fetcher.settle(commit.needs)  # true also for a commit that touched nothing else of interest
        self.max_lag_ns = max(self.max_lag_ns, self._clock.now() - received.t + received.late)
        if not commit.changes and not came:
            return None
        self._view = self._replay.state.view(self._view)
        return Update(
            received.t, self.current, commit.generation, commit.changes, commit.pid, commit.comm, *received.writer
        )

    # --- full reads

    @only_ours("read", "the nf_tables rules")
    def _begin(self) -> None:
        try:
            self._replay.reset(self._read(dump.PATIENCE_S))
        except dump.UnstableRulesError as error:
            self._give_up(str(error), self._clock.now())
        else:
            self._view = self._replay.state.view()

    def _read(self, patience: float = _READ_S) -> State:
        return dump.read_state(
            self._control,
            self._families,
            self._wanted,
            self._interest,
            undisturbed=self._fetcher.undisturbed,
            patience=patience,
            clock=self._clock,
        )

    def _read_again(self) -> Update | None:
        """Repeat a read that was given up; ``None``: it failed again."""
        since, reason = self._unread_since, "the rules could not be read before, as they changed all the time"
        self._unread_since = 0
        update = self._resync(reason, since, lost=True)
        return None if self._unread_since else update

    def _give_up(self, reason: str, noticed: int) -> Update:
        """Nothing is known of the rules until they can be read."""
        self._pause = min(_AGAIN_S[1], 2 * self._pause or _AGAIN_S[0])
        self._forget(noticed)
        self._replay.reset(self._replay.state)
        return Update(self._clock.now(), self.current, self.generation, lost=True, reason=reason, noticed=noticed)

    def _forget(self, noticed: int) -> None:
        """Drop the state before another one is read: both at once would take twice the memory. Until that read has
        succeeded, whatever ends it, nothing is known of the rules."""
        self._unread_since = noticed or self._clock.now()
        self._read_at = self._clock.monotonic() + self._pause
        # what is skipped stays skipped: a storm of foreign changes must not fill the queue during the read
        self._replay.state = unread_state(self._replay.state.generation, self._families)
        self._view = self._replay.state.view()

    def _resync(self, reason: str, noticed: int, *, lost: bool = False) -> Update:
        before = self.generation
        self._fetcher.forget()
        self._forget(noticed)
        try:
            self._replay.reset(self._read())
        except dump.UnstableRulesError as error:
            return self._give_up(f"{reason}; {error}", noticed)
        self._unread_since, self._pause = 0, 0.0
        self._view = self._replay.state.view()
        # Commits between the last known one and the end of the read: their changes, times and writers are not known,
        # and a gap may have begun and ended among them.
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
        """The sets that a chain of the current rule set used when it was decoded."""
        found = self._view.get((wire.NUMBERS[family], table))
        return found.chains.sets_used(chain) if found is not None and isinstance(found.chains, Chains) else frozenset()

    def verify(self, chains: Iterable[tuple[str, str, str]]) -> Update | None:
        """Compare chains (nft family, table, name) with the kernel's; a difference gives a full read as an update.

        ``None``: there is no difference, or the rule set is changing and cannot be compared.
        """
        if not self._settled():
            return None
        wrong = different(self._control, self.state, chains)
        if not wrong or not self._settled():
            return None
        return self._resync(f"the rules differ from the kernel's: {', '.join(wrong[:6])}", self._clock.now())

    def _settled(self) -> bool:
        return self._receiver.queue.empty() and dump.generation(self._control) == self.generation
