"""Transactions from the kernel's events, applied to a state. Pure: bytes in, states out.

Problem: the kernel announces a commit as a row of messages and says only roughly where a new rule stands: after which
other rule, which may be announced later still, or nothing at all for the first and the last. Promise: after ``commit``
the state is what a dump of that generation would read, or ``Desync`` says that it cannot be: then read it all again.
Messages of generations that the state already holds are dropped, so that a dump may be taken while events arrive.
Rules of placement: nf_tables_rule_notify in the kernel's net/netfilter/nf_tables_api.c. Next stage: ``mirror``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.dump import chain_of, is_dormant
from hitless.kernel.nftables.packing import pack
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.state import ChainState, State, TableKey, TableState

__all__ = ["Commit", "Desync", "Replay", "TableChange"]

_NAMED = 6  # so many chains are named in a summary


class Desync(Exception):
    """What the events say does not fit the state; never leaves this package."""


@dataclass(slots=True)
class TableChange:
    """What one transaction did to one table. ``chains`` are those with changed rules or hooks, new or gone."""

    key: TableKey
    added: int = 0
    removed: int = 0
    chains: set[str] = field(default_factory=set)
    sets: set[str] = field(default_factory=set)
    hooks: set[str] = field(default_factory=set)  # where base chains came, went, changed policy, slept or woke
    counts: dict[str, list[int]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def count(self, chain: str, *, added: int = 0, removed: int = 0) -> None:
        """Book rules of ``chain``."""
        self.added += added
        self.removed += removed
        self.chains.add(chain)
        pair = self.counts.setdefault(chain, [0, 0])
        pair[0] += added
        pair[1] += removed

    def summary(self) -> str:
        """What happened, for people, in bounded length."""
        parts = list(self.words[:_NAMED])
        for chain, (added, removed) in list(self.counts.items())[:_NAMED]:
            signs = " ".join(text for number, text in ((removed, f"-{removed}"), (added, f"+{added}")) if number)
            parts.append(f"{chain}: {signs} rule{'s' if added + removed != 1 else ''}")
        parts += [f"set {name}" for name in sorted(self.sets)[:_NAMED] if not name.startswith("__")]
        more = max(0, len(self.words) - _NAMED) + max(0, len(self.counts) - _NAMED)
        return "; ".join(parts) + (f"; and {more} more" if more else "")


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed transaction: its generation, who made it, and what it did to each table."""

    generation: int
    pid: int
    comm: str
    changes: tuple[TableChange, ...]


class _ChainEdit:
    """A chain in the middle of a transaction: rules in order, and rules whose predecessor was not announced yet."""

    def __init__(self, chain: ChainState) -> None:
        self.chain = chain
        self._order: list[int] | None = None  # made when a rule is put anywhere but at the end
        self._waiting: dict[int, int] = {}  # rule -> the predecessor that it waits for
        self._gone_was_first: bool | None = False  # None: its place was not known yet

    def remove(self, handle: int) -> None:
        if handle not in self.chain.rules:
            raise Desync(f"rule {handle} of chain {self.chain.name} went away, but was not known")
        if handle in self._waiting:
            self._gone_was_first = None
            before = self._waiting.pop(handle)
            for rule, predecessor in self._waiting.items():
                if predecessor == handle:
                    self._waiting[rule] = before
        elif self._order is not None:
            self._gone_was_first = self._order[0] == handle
            self._order.remove(handle)
        else:
            self._gone_was_first = next(iter(self.chain.rules)) == handle
        del self.chain.rules[handle]

    def add(self, handle: int, payload: bytes, position: int, flags: int) -> None:
        rules = self.chain.rules
        if handle in rules:
            raise Desync(f"rule {handle} of chain {self.chain.name} was added, but is there already")
        # Without a position it is the first or the last. An appended rule is the last one, an inserted one the first;
        # a replacing one (APPEND without CREATE) stands where the rule stood whose end was announced just before.
        replacing = bool(flags & netlink.APPEND) and not flags & netlink.CREATE
        if replacing and self._gone_was_first is None and rules and not position:
            raise Desync(f"a rule of chain {self.chain.name} was added and replaced at once")
        if position:
            self._after(position, handle)
        elif not rules or (flags & netlink.APPEND and not (replacing and self._gone_was_first)):
            if self._order is not None:
                self._order.append(handle)
        else:
            self._ordered().insert(0, handle)
        rules[handle] = pack(payload)
        self._gone_was_first = False
        if self._waiting and handle not in self._waiting:
            self._release(handle)

    def _ordered(self) -> list[int]:
        if self._order is None:
            self._order = [rule for rule in self.chain.rules if rule not in self._waiting]
        return self._order

    def _after(self, position: int, handle: int) -> None:
        if position in self._waiting or position not in self.chain.rules:
            self._ordered()
            self._waiting[handle] = position
        elif self._order is not None:
            self._order.insert(self._order.index(position) + 1, handle)
        elif next(reversed(self.chain.rules)) != position:
            order = self._ordered()
            order.insert(order.index(position) + 1, handle)

    def _release(self, placed: int) -> None:
        """Place the rules that waited for ``placed``, and those that waited for them."""
        order = self._ordered()
        due = [placed]
        while due:
            predecessor = due.pop()
            for rule in [rule for rule, wanted in self._waiting.items() if wanted == predecessor]:
                del self._waiting[rule]
                order.insert(order.index(predecessor) + 1, rule)
                due.append(rule)

    def finish(self) -> None:
        if self._waiting:
            raise Desync(f"chain {self.chain.name} has rules after rules that nobody announced")
        if self._order is not None:
            rules = self.chain.rules
            self.chain.rules = {handle: rules[handle] for handle in self._order}


class _Transaction:
    """A state in the making; what it changes it copies first."""

    def __init__(self, state: State) -> None:
        self.state = State(state.generation, state.tables)
        self._tables: set[TableKey] = set()
        self._edits: dict[tuple[TableKey, str], _ChainEdit] = {}
        self._sets: set[tuple[TableKey, str]] = set()
        self.changes: dict[TableKey, TableChange] = {}

    def finish(self) -> tuple[TableChange, ...]:
        for edit in self._edits.values():
            edit.finish()
        return tuple(self.changes.values())

    def change(self, key: TableKey) -> TableChange:
        if key not in self.changes:
            self.changes[key] = TableChange(key)
        return self.changes[key]

    def table(self, family: int, name: str) -> TableState:
        key = (family, name)
        table = self.state.tables.get(key)
        if table is None:
            raise Desync(f"table {name} is not known")
        if key not in self._tables:
            table = self.state.tables[key] = table.copy()
            self._tables.add(key)
        return table

    def edit(self, family: int, table: str, chain: str) -> _ChainEdit:
        key = ((family, table), chain)
        edit = self._edits.get(key)
        if edit is None:
            owner = self.table(family, table)
            known = owner.chains.get(chain)
            if known is None:
                raise Desync(f"chain {chain} of table {table} is not known")
            owner.chains[chain] = known.copy()
            edit = self._edits[key] = _ChainEdit(owner.chains[chain])
        return edit

    def apply(self, number: int, flags: int, payload: bytes) -> None:
        family = payload[0]
        if number in (wire.NEWRULE, wire.DELRULE):
            self._rule(number == wire.NEWRULE, family, flags, payload)
            return
        attributes = netlink.attributes(payload, 4)
        if number in (wire.NEWTABLE, wire.DELTABLE):
            self._table(number == wire.NEWTABLE, family, attributes)
        elif number in (wire.NEWCHAIN, wire.DELCHAIN):
            self._chain(number == wire.NEWCHAIN, family, attributes)
        elif number in (wire.NEWSET, wire.DELSET):
            self._set(number == wire.NEWSET, family, attributes)
        elif number in (wire.NEWSETELEM, wire.DELSETELEM):
            self._elements(number == wire.NEWSETELEM, family, attributes)

    def _rule(self, new: bool, family: int, flags: int, payload: bytes) -> None:
        table, chain, handle, position = wire.rule_head(payload)
        edit = self.edit(family, table, chain)
        change = self.change((family, table))
        if new:
            edit.add(handle, payload, position, flags)
            change.count(chain, added=1)
            owner = self.table(family, table)
            owner.top = max(owner.top, handle)
        else:
            edit.remove(handle)
            change.count(chain, removed=1)

    def _table(self, new: bool, family: int, attributes: dict[int, bytes]) -> None:
        name = netlink.to_text(attributes.get(wire.TABLE_NAME, b""))
        key = (family, name)
        change = self.change(key)
        known = self.state.tables.get(key)
        if known is not None:
            change.hooks |= {chain.hook.hook for chain in known.chains.values() if chain.hook is not None}
        if not new:
            if self.state.tables.pop(key, None) is None:
                raise Desync(f"table {name} went away, but was not known")
            self._tables.discard(key)
            for edited in [each for each in self._edits if each[0] == key]:
                del self._edits[edited]
            self._sets = {each for each in self._sets if each[0] != key}
            change.words.append(f"table {name} removed")
        elif key in self.state.tables:
            table = self.table(family, name)
            table.dormant = is_dormant(attributes)
            # what was decoded knows the old state of the hooks
            table.chains = {chain: state.copy() for chain, state in table.chains.items()}
            for edited in [each for each in self._edits if each[0] == key]:
                self._edits[edited].chain = table.chains[edited[1]]
            change.words.append(f"table {name} {'sleeps' if table.dormant else 'is awake'}")
        else:
            self.state.tables[key] = TableState(family, name, is_dormant(attributes))
            self._tables.add(key)
            change.words.append(f"table {name} added")

    def _chain(self, new: bool, family: int, attributes: dict[int, bytes]) -> None:
        read = chain_of(attributes)
        table = self.table(family, netlink.to_text(attributes.get(wire.CHAIN_TABLE, b"")))
        key = (family, table.name)
        change = self.change(key)
        change.chains.add(read.name)
        known = table.chains.get(read.name)
        if not new:
            if known is None:
                raise Desync(f"chain {read.name} went away, but was not known")
            if known.hook is not None:
                change.hooks.add(known.hook.hook)
            del table.chains[read.name]
            self._edits.pop((key, read.name), None)
            change.words.append(f"chain {read.name} removed")
        elif known is None:
            if read.handle <= table.top:
                raise Desync(f"a chain was renamed to {read.name}")
            table.top = read.handle
            table.chains[read.name] = read
            self._edits[(key, read.name)] = _ChainEdit(read)
            if read.hook is not None:
                change.hooks.add(read.hook.hook)
            change.words.append(f"chain {read.name} added")
        elif known.hook != read.hook:
            before = known.hook
            edited = self.edit(family, table.name, read.name).chain
            edited.hook = read.hook
            change.hooks |= {hook.hook for hook in (before, read.hook) if hook is not None}
            policy = read.hook.policy if read.hook is not None else "none"
            change.words.append(f"chain {read.name} now has policy {policy}")

    def _set(self, new: bool, family: int, attributes: dict[int, bytes]) -> None:
        read = SetState.read(attributes)
        table = self.table(family, netlink.to_text(attributes.get(wire.SET_TABLE, b"")))
        key = (family, table.name)
        self.change(key).sets.add(read.name)
        known = table.sets.get(read.name)
        if new:
            if known is None or known.handle != read.handle:
                table.sets[read.name] = read
                self._sets.add((key, read.name))
        elif known is None:
            raise Desync(f"set {read.name} went away, but was not known")
        elif known.handle == read.handle:
            del table.sets[read.name]
            self._sets.discard((key, read.name))

    def _elements(self, new: bool, family: int, attributes: dict[int, bytes]) -> None:
        table = self.table(family, netlink.to_text(attributes.get(wire.ELEMENTS_TABLE, b"")))
        name = netlink.to_text(attributes.get(wire.ELEMENTS_SET, b""))
        key = (family, table.name)
        known = table.sets.get(name)
        if known is None:
            raise Desync(f"set {name} is not known")
        if (key, name) not in self._sets:
            known = table.sets[name] = known.copy()
            self._sets.add((key, name))
        known.apply(attributes.get(wire.ELEMENTS_LIST, b""), remove=not new)
        self.change(key).sets.add(name)


class Replay:
    """A state that follows the events. ``families`` and ``tables`` bound what is kept, as in ``read_state``."""

    def __init__(self, state: State, families: Sequence[int], tables: Sequence[str] | None = None) -> None:
        self.state = state
        self._families = bytes(families)
        self._tables = None if tables is None else frozenset(tables)
        self._open: list[tuple[int, int, bytes]] = []

    def reset(self, state: State) -> None:
        """Go on from a full read."""
        self.state = state
        self._open.clear()

    def feed(self, message: netlink.Message) -> Commit | None:
        """Take one message; the commit when the message closes one that is newer than the state.

        Raises ``Desync`` when the state cannot be kept; ``reset`` it then.
        """
        number = message.type & 0xFF
        if message.type >> 8 != wire.SUBSYSTEM:
            return None
        if number != wire.NEWGEN:
            self._open.append((number, message.flags, message.payload))
            return None
        attributes = netlink.attributes(message.payload, 4)
        generation = wire.number(attributes.get(wire.GEN_ID, b""))
        parts, self._open = self._open, []
        ahead = (generation - self.state.generation) & 0xFFFFFFFF
        if ahead == 0 or ahead > 0x7FFFFFFF:
            return None  # the state was read after this commit
        if ahead != 1 and not (ahead == 2 and generation == 1):  # the number wraps past 0
            raise Desync(f"{ahead - 1} generations are missing")
        transaction = _Transaction(self.state)
        for kind, flags, payload in parts:
            if payload[:1] in self._families and self._wanted(payload):
                transaction.apply(kind, flags, payload)
        transaction.state.generation = generation
        changes = transaction.finish()
        self.state = transaction.state
        pid = wire.number(attributes.get(wire.GEN_PID, b""))
        return Commit(generation, pid, netlink.to_text(attributes.get(wire.GEN_NAME, b"")), changes)

    def _wanted(self, payload: bytes) -> bool:
        """Whether the message is about a table that is kept; a table's name is the first attribute of them all."""
        if self._tables is None:
            return True
        return netlink.to_text(payload[8:264]) in self._tables
