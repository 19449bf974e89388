"""Transactions from the kernel's events, applied to a state. Pure: bytes in, states out.

Problem: the kernel announces a commit as a row of messages. Promise: after ``commit`` the state is what a dump of that
generation would read, or ``Desync`` says that it cannot be: then read it all again. Messages of generations that the
state already holds are dropped, so that a dump may be taken while events arrive. Chains and sets that are of no
interest are known by their heads alone; those that become of interest are named, and come in by ``supply``. Next stage:
``mirror``.
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
    """A state that follows the events. ``families`` and ``tables`` bound what is kept, as in ``read_state``, and so
    does ``interest``. ``skipped``: the ``identity`` of every chain and set that is known and not kept: messages about
    its rules or elements need not be fed, only counted."""

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
        """Go on from a full read."""
        self.state = state
        self._open.clear()
        found = heads_only(state)
        self.skipped &= found
        self.skipped |= found

    def feed(self, message: netlink.Message) -> ReplayedCommit | None:
        """Take one message; the commit when the message closes one that is newer than the state.

        Raises ``Desync`` when the state cannot be kept; ``reset`` it then.
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
        """The same for a whole transaction, which ``last`` closes; ``left_out`` counts what was not fed, ``collapsed``
        the transactions before it that touched nothing else."""
        attributes = netlink.attributes(last.payload, 4)
        generation = wire.number(attributes.get(wire.GEN_ID, b""))
        ahead = (generation - self.state.generation) & 0xFFFFFFFF
        if ahead == 0 or ahead > 0x7FFFFFFF:
            return None  # the state was read after this commit
        wrapped = generation < ahead  # past 0, which is no generation
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
        """Put in what was read of a chain or set as this generation has it; what it leads to that must be read too."""
        table = self.state.tables.get(key)
        known = None if table is None else table.find(ref)
        if table is None or known is None or known.kept or known.handle != found.handle:
            return []  # it went away meanwhile
        table = table.copy()
        if isinstance(found, SetState):
            table.sets[ref.name] = found
            if not found.kept:  # it was too large
                self.skipped.add(identity(key, ref))
        else:
            table.chains[ref.name] = found
        self.state = State(self.state.generation, {**self.state.tables, key: table})
        return [(key, each) for each in table.references(ref) if (led := table.find(each)) is not None and not led.kept]

    def _wanted(self, payload: bytes) -> bool:
        """Whether the message is about a table that is kept; a table's name is the first attribute of them all."""
        if self._tables is None:
            return True
        return netlink.to_text(payload[8:264]) in self._tables
