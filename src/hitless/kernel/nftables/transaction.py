"""One transaction being applied to a state, message by message.

Promise: it copies what it changes, so that the previous state stays as it was. New chains and sets are kept until the
end shows whether anything of interest refers to them; of the others only the heads stay. ``needs`` are those that were
not kept and have become of interest. Next stage: ``replay``.
"""

from __future__ import annotations

from hitless.kernel import netlink
from hitless.kernel.nftables import wire
from hitless.kernel.nftables.changes import Desync, SkippedCounts, TableChange
from hitless.kernel.nftables.dump import chain_of, is_dormant
from hitless.kernel.nftables.interest import EVERYTHING, Interest, ObjectRef, identity, jump_targets, parse_identity
from hitless.kernel.nftables.ordering import ChainEdit
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.state import ChainState, State, TableKey, TableState

__all__ = ["Transaction"]

_HEAD = 4  # struct nfgenmsg, before the attributes
_MOST_PENDING = 4096  # element messages that are collected before they are applied


class _ElementsRun:
    """Element messages of one set, all additions or all removals: they come one by one, and are cheaper to apply
    together."""

    def __init__(self) -> None:
        self._into: SetState | None = None
        self._new = True
        self._lists: list[bytes] = []

    def add(self, into: SetState, new: bool, listed: bytes) -> None:
        if into is not self._into or new is not self._new or len(self._lists) >= _MOST_PENDING:
            self.apply()
            self._into, self._new = into, new
        self._lists.append(listed)

    def apply(self) -> None:
        if self._into is not None:
            self._into.apply(*self._lists, remove=not self._new)
            self._into, self._lists = None, []


class Transaction:
    """A state under construction; what changes is copied first."""

    def __init__(self, state: State, interest: Interest, left_out: SkippedCounts) -> None:
        self.state = State(state.generation, state.tables)
        self._interest, self._left_out = interest, left_out
        self._fresh: set[tuple[TableKey, ObjectRef]] = set()  # created in this transaction, so completely known
        self._reached: list[tuple[TableKey, ObjectRef]] = []  # newly referred to by rules and maps of interest
        self.gone: set[tuple[TableKey, ObjectRef]] = set()
        self.forgotten: set[tuple[TableKey, ObjectRef]] = set()
        self.needs: list[tuple[TableKey, ObjectRef]] = []
        self._elements_run = _ElementsRun()
        self._tables: set[TableKey] = set()
        self._edits: dict[tuple[TableKey, str], ChainEdit] = {}
        self._sets: set[tuple[TableKey, str]] = set()
        self.changes: dict[TableKey, TableChange] = {}

    def finish(self) -> tuple[TableChange, ...]:
        self._elements_run.apply()
        for edit in self._edits.values():
            edit.finish()
        for what, (added, removed) in self._left_out.items():
            self._account(what, added, removed)
        self._settle()
        return tuple(self.changes.values())

    def _account(self, what: bytes, added: int, removed: int) -> None:
        """Count messages about a chain or set that was not kept when they came, and has not been read since."""
        family, table, ref = parse_identity(what)
        key = (family, table)
        if key not in self.state.tables:
            return
        if ref.is_set:
            self.change(key).sets.add(ref.name)
        else:
            self.change(key).count(ref.name, added=added, removed=removed)
        found = self.state.tables[key].find(ref)
        if found is not None and found.kept and (key, ref) not in self._fresh:
            self.table(*key).replace_by_copy(ref).drop_content()
            self.needs.append((key, ref))

    def _settle(self) -> None:
        """Find what has become of interest; of what was created and is not, keep only the head."""
        if self._interest is EVERYTHING:
            return
        for key, ref in self._fresh:
            chain = None if ref.is_set else self.state.tables[key].chains[ref.name]
            if chain is not None and self._interest.includes(key[1], chain.name, chain.hook):
                self._reached.append((key, ref))
        while self._reached:
            key, ref = self._reached.pop()
            table = self.state.tables.get(key)
            found = None if table is None else table.find(ref)
            if table is None or found is None:
                continue
            whole = (key, ref) not in self._fresh or identity(key, ref) not in self._left_out
            if (key, ref) in self._fresh and whole and self._wants(found):
                self._fresh.discard((key, ref))
                self.change(key).kept = True
                self._reached += ((key, each) for each in table.references(ref))
            elif not (found.kept and whole) and self._wants(found):
                self.needs.append((key, ref))
        for key, ref in self._fresh:
            found = self.state.tables[key].find(ref)
            if found is not None:
                found.drop_content()
                self.forgotten.add((key, ref))

    def _wants(self, found: ChainState | SetState) -> bool:
        return isinstance(found, ChainState) or self._interest.wants_elements(found)

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

    def edit(self, family: int, table: str, chain: str) -> ChainEdit:
        key = ((family, table), chain)
        edit = self._edits.get(key)
        if edit is None:
            owner = self.table(family, table)
            known = owner.chains.get(chain)
            if known is None:
                raise Desync(f"chain {chain} of table {table} is not known")
            owner.chains[chain] = known.copy()
            self.change((family, table)).kept |= known.kept
            edit = self._edits[key] = ChainEdit(owner.chains[chain])
        return edit

    def apply(self, number: int, flags: int, payload: bytes) -> None:
        if len(payload) < _HEAD:
            raise Desync("a message without a head")
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
            self._element(number == wire.NEWSETELEM, family, attributes)

    def _rule(self, new: bool, family: int, flags: int, payload: bytes) -> None:
        table, chain, handle, position = wire.rule_head(payload)
        edit = self.edit(family, table, chain)
        change = self.change((family, table))
        if new:
            owner = self.table(family, table)
            edit.add(handle, payload, position, flags, fresh=handle > owner.top)
            change.count(chain, added=1)
            if edit.chain.kept:
                leads = edit.chain.add_references(payload)
                if ((family, table), ObjectRef(False, chain)) not in self._fresh:
                    self._reached += (((family, table), ref) for ref in leads)
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
            change.kept |= any(chain.kept for chain in known.chains.values())
        if not new:
            if known is None:
                raise Desync(f"table {name} went away, but was not known")
            self.gone |= {(key, ObjectRef(False, each)) for each in known.chains}
            self.gone |= {(key, ObjectRef(True, each)) for each in known.sets}
            self._fresh = {each for each in self._fresh if each[0] != key}
            del self.state.tables[key]
            self._tables.discard(key)
            for edited in [each for each in self._edits if each[0] == key]:
                del self._edits[edited]
            self._sets = {each for each in self._sets if each[0] != key}
            change.notes.append(f"table {name} removed")
        elif key in self.state.tables:
            table = self.table(family, name)
            table.dormant = is_dormant(attributes)
            # copied because decoded chains contain the old hooks
            table.chains = {chain: state.copy() for chain, state in table.chains.items()}
            for edited in [each for each in self._edits if each[0] == key]:
                self._edits[edited].chain = table.chains[edited[1]]
            change.notes.append(f"table {name} {'sleeps' if table.dormant else 'is awake'}")
        else:
            self.state.tables[key] = TableState(family, name, is_dormant(attributes))
            self._tables.add(key)
            change.notes.append(f"table {name} added")

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
            change.kept |= known.kept
            self._left(key, ObjectRef(False, read.name))
            del table.chains[read.name]
            self._edits.pop((key, read.name), None)
            change.notes.append(f"chain {read.name} removed")
        elif known is None:
            if read.handle <= table.top:
                raise Desync(f"a chain was renamed to {read.name}")
            table.top = read.handle
            table.chains[read.name] = read
            self._edits[(key, read.name)] = ChainEdit(read)
            self._fresh.add((key, ObjectRef(False, read.name)))
            change.kept |= self._interest is EVERYTHING
            if read.hook is not None:
                change.hooks.add(read.hook.hook)
            change.notes.append(f"chain {read.name} added")
        elif known.hook != read.hook:
            before = known.hook
            edited = self.edit(family, table.name, read.name).chain
            edited.hook = read.hook
            change.hooks |= {hook.hook for hook in (before, read.hook) if hook is not None}
            if not edited.kept and self._interest.includes(table.name, read.name, read.hook):
                self._reached.append((key, ObjectRef(False, read.name)))
            policy = read.hook.policy if read.hook is not None else "none"
            change.notes.append(f"chain {read.name} now has policy {policy}")

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
                self._fresh.add((key, ObjectRef(True, read.name)))
                self.change(key).kept |= self._interest is EVERYTHING
        elif known is None:
            raise Desync(f"set {read.name} went away, but was not known")
        elif known.handle == read.handle:
            self.change(key).kept |= known.kept
            self._left(key, ObjectRef(True, read.name))
            del table.sets[read.name]
            self._sets.discard((key, read.name))

    def _left(self, key: TableKey, ref: ObjectRef) -> None:
        self._fresh.discard((key, ref))
        self.gone.add((key, ref))

    def _element(self, new: bool, family: int, attributes: dict[int, bytes]) -> None:
        table = self.table(family, netlink.to_text(attributes.get(wire.ELEMENTS_TABLE, b"")))
        name = netlink.to_text(attributes.get(wire.ELEMENTS_SET, b""))
        key = (family, table.name)
        known = table.sets.get(name)
        if known is None:
            raise Desync(f"set {name} is not known")
        change, ref = self.change(key), ObjectRef(True, name)
        change.sets.add(name)
        if not known.kept or not self._interest.wants_elements(known):
            return
        if (key, name) not in self._sets:
            known = table.sets[name] = known.copy()
            self._sets.add((key, name))
        listed = attributes.get(wire.ELEMENTS_LIST, b"")
        self._elements_run.add(known, new, attributes.get(wire.ELEMENTS_LIST, b""))
        if (key, ref) not in self._fresh:
            change.kept = True
            if new and known.is_map:
                self._reached += ((key, ObjectRef(False, chain)) for chain in jump_targets(listed))
