"""Applying transactions from the kernel's events to a state. Pure: bytes in, states out.

Problem: the kernel announces a commit as a sequence of messages. Promise: after ``commit`` the state is what a dump of
that generation would give, or ``Desync`` says that it is not known, and everything must be read again. Messages of
generations that the state already includes are ignored, so that a dump may be taken while events arrive. Of chains and
sets that are not of interest only the heads are known; those that become of interest are returned, and added by
``supply``. Next stage: ``mirror``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.changes import Desync, ReplayedCommit, SkippedCounts, TableChange
from hitless.kernel.nftables.interest import EVERYTHING, Interest, ObjectRef, identity
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.state import ChainState, State, TableKey
from hitless.kernel.nftables.transaction import Transaction

__all__ = ["Desync", "Replay", "ReplayedCommit", "TableChange", "heads_only"]


def heads_only(state: State) -> set[bytes]:
    """The ``identity`` of every chain and set of which only the head is known."""
    return {identity(key, ref) for key, table in state.tables.items() for ref in table.heads_only()}


class Replay:
    """A state that follows the events. ``families``, ``tables`` and ``interest`` limit what is kept, as in
    ``read_state``. ``skipped``: the ``identity`` of every chain and set that is known and not kept: messages about its
    rules or elements are not needed, only their counts."""

    def __init__(
        self,
        state: State,
        families: Sequence[int],
        tables: Sequence[str] | None = None,
        interest: Interest = EVERYTHING,
    ) -> None:
        self._families = bytes(families)
        self._tables = None if tables is None else frozenset(tables)
        self._interest = interest
        self._open: list[netlink.Message] = []
        self.skipped: set[bytes] = set()
        self.reset(state)

    def reset(self, state: State) -> None:
        """Continue from a full read."""
        self.state = state
        self._open.clear()
        found = heads_only(state)
        self.skipped &= found
        self.skipped |= found

    def feed(self, message: netlink.Message) -> ReplayedCommit | None:
        """Take one message; returns the commit if the message ends one that is newer than the state.

        Raises ``Desync`` when the state cannot be kept; then ``reset`` it.
        """
        if message.type >> 8 != wire.SUBSYSTEM:
            return None
        if message.type & 0xFF != wire.NEWGEN:
            self._open.append(message)
            return None
        parts, self._open = self._open, []
        return self.commit(parts, message)

    def commit(
        self,
        parts: Iterable[netlink.Message],
        last: netlink.Message,
        left_out: SkippedCounts | None = None,
        collapsed: int = 0,
    ) -> ReplayedCommit | None:
        """The same for a whole transaction, which ``last`` ends. ``left_out`` counts the messages that were dropped,
        ``collapsed`` the transactions before it that touched nothing else."""
        attributes = netlink.attributes(last.payload, 4)
        generation = wire.number(attributes.get(wire.GEN_ID, b""))
        ahead = (generation - self.state.generation) & 0xFFFFFFFF
        if ahead == 0 or ahead > 0x7FFFFFFF:
            return None  # the state already includes this commit
        wrapped = generation < ahead  # 0 is never used as a generation
        if ahead - 1 - wrapped > collapsed:
            raise Desync(f"{ahead - 1} generations are missing")
        transaction = Transaction(self.state, self._interest, left_out or {})
        for part in parts:
            if part.payload[:1] in self._families and part.type >> 8 == wire.SUBSYSTEM and self._wanted(part.payload):
                transaction.apply(part.type & 0xFF, part.flags, part.payload)
        transaction.state.generation = generation
        changes = transaction.finish()
        self.state = transaction.state
        self.skipped -= {identity(*each) for each in transaction.gone}
        self.skipped |= {identity(*each) for each in transaction.forgotten}
        pid = wire.number(attributes.get(wire.GEN_PID, b""))
        comm = netlink.to_text(attributes.get(wire.GEN_NAME, b""))
        needs = tuple(dict.fromkeys(transaction.needs))
        self.skipped -= {identity(*each) for each in needs}
        return ReplayedCommit(generation, pid, comm, changes, needs)

    def supply(self, key: TableKey, ref: ObjectRef, found: ChainState | SetState) -> list[tuple[TableKey, ObjectRef]]:
        """Add the contents of a chain or set as of this generation; returns what it refers to that must be read as
        well."""
        table = self.state.tables.get(key)
        known = None if table is None else table.find(ref)
        if table is None or known is None or known.kept or known.handle != found.handle:
            return []  # it was deleted meanwhile
        table = table.copy()
        if isinstance(found, SetState):
            table.sets[ref.name] = found
            if not found.kept:  # it is too large
                self.skipped.add(identity(key, ref))
        else:
            table.chains[ref.name] = found
        self.state = State(self.state.generation, {**self.state.tables, key: table})
        return [(key, each) for each in table.references(ref) if (led := table.find(each)) is not None and not led.kept]

    def _wanted(self, payload: bytes) -> bool:
        """Whether the message is about a table that is kept; the table's name is the first attribute of every
        message."""
        if self._tables is None:
            return True
        return netlink.to_text(payload[8:264]) in self._tables
