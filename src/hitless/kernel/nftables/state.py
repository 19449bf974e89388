"""The rule set as the kernel told of it, and the views that others read.

Problem: a node has tens of thousands of rules of which an egress path passes a few dozen, and every commit makes a new
rule set. Promise: ``State`` keeps rules as bytes; ``State.view()`` is a ``Ruleset`` that decodes a chain when somebody
reads it, and keeps what it decoded for as long as the chain and the sets that it looks into stay the same. Views are
snapshots: what is changed is copied first. Of chains and sets that are nobody's business (``interest``) only the heads
are kept; who reads one of these all the same is told that nothing is known of it. Next stages: ``dump`` fills a state,
``mirror`` keeps it up to date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hitless.kernel.nftables.expressions import BRANCHES, decode
from hitless.kernel.nftables.interest import Body, called, links
from hitless.kernel.nftables.packing import unpack
from hitless.kernel.nftables.places import LONG, Places, by_destination
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.wire import FAMILIES
from hitless.model.families import Address
from hitless.model.rules import Chain, Hook, Opaque, OpaqueAction, Rule, Ruleset, Table

__all__ = ["ChainState", "Chains", "State", "TableKey", "TableState"]

TableKey = tuple[int, str]
"""A table: its family number and name."""


@dataclass(slots=True)
class _Memo:
    """What was decoded of a chain. Few chains are ever read, and of those that are not none has this."""

    decoded: Chain | None = None
    large: bool = False  # a rule looks into a set that is too large to be spelt out
    sets: dict[str, SetState | None] = field(default_factory=dict)
    sorted: Places | None = None
    towards: dict[Address, tuple[tuple[int, Rule], ...]] = field(default_factory=dict)


_UNREAD = (Rule((Opaque("rules that were not read"), OpaqueAction("rules that were not read"))),)


@dataclass(slots=True)
class ChainState:
    """A chain; ``rules`` are packed rule messages by handle, in the kernel's order, where it is ``kept``. ``leads``:
    what its rules lead to, and perhaps what former ones did."""

    name: str
    handle: int = 0
    hook: Hook | None = None
    rules: dict[int, bytes] = field(default_factory=dict)
    kept: bool = True
    leads: frozenset[Body] = frozenset()
    _memo: _Memo | None = None
    # What was decoded, by handle, of rules that look into no set: the same for every destination, and in every copy
    # that has the same message for the handle.
    _plain: dict[int, tuple[bytes, tuple[Rule, ...]]] = field(default_factory=dict)

    def copy(self) -> ChainState:
        """A chain of its own with the same rules."""
        plain = self._plain
        if len(plain) > 2 * len(self.rules) + LONG:
            plain = {handle: made for handle, made in plain.items() if handle in self.rules}
        return ChainState(self.name, self.handle, self.hook, dict(self.rules), self.kept, self.leads, None, plain)

    def lead(self, rule: bytes) -> frozenset[Body]:
        """What a rule message leads to, taken note of. (A name may have been there for another chain or set.)"""
        found = frozenset(links(rule))
        if found - self.leads:
            self.leads |= found
        return found

    def forget(self) -> None:
        """Keep no rules from now on."""
        self.rules, self.kept, self.leads, self._memo, self._plain = {}, False, frozenset(), None, {}

    def decoded(self, table: TableState) -> Chain:
        """The chain as the model's value; made once for as long as it and the sets that it looks into stay."""
        memo = self._fresh(table)
        if not self.kept:
            return Chain(self.name, _UNREAD, None if table.dormant else self.hook)
        if memo.decoded is None:
            rules: list[Rule] = []
            for number, handle in enumerate(self.rules, 1):
                made = self._made(handle, table, memo)
                if len(rules) + 1 != number or len(made) != 1:  # a map makes several rules of one: the number stays
                    made = tuple(replace(rule, number=number) for rule in made)
                rules += made
            memo.decoded = Chain(self.name, tuple(rules), None if table.dormant else self.hook)
        return memo.decoded

    def towards(self, table: TableState, destination: Address) -> tuple[tuple[int, Rule], ...]:
        """The rules, with their numbers, less some that no packet to ``destination`` matches; of a long chain few are
        decoded, and of a large set only what holds for that destination."""
        if len(self.rules) <= LONG:
            chain = self.decoded(table)
            if not self._fresh(table).large:
                return tuple(enumerate(chain.rules, 1))
        memo = self._fresh(table)
        found = memo.towards.get(destination)
        if found is None:
            if memo.sorted is None:
                memo.sorted = by_destination(self.rules, FAMILIES[table.family])
            found = memo.towards[destination] = tuple(
                (number, rule)
                for number, handle in memo.sorted.towards(destination.packed)
                for rule in self._made(handle, table, memo, destination)
            )
        return found

    def _made(
        self, handle: int, table: TableState, memo: _Memo, destination: Address | None = None
    ) -> tuple[Rule, ...]:
        """One rule, decoded."""
        packed, known = self.rules[handle], self._plain.get(handle)
        if known is not None and known[0] is packed:
            return known[1]
        plain = True

        def lookup(name: str) -> SetState | None:
            nonlocal plain
            plain = False
            found = memo.sets[name] = table.sets.get(name)
            memo.large = memo.large or (found is not None and len(found.elements) > BRANCHES)
            return found

        made = decode(unpack(packed), FAMILIES[table.family], lookup, handle, destination)
        if plain:
            self._plain[handle] = (packed, made)
        return made

    def _fresh(self, table: TableState) -> _Memo:
        """What was decoded, less what came of a set that is another one now."""
        memo = self._memo
        if memo is None:
            memo = self._memo = _Memo()
        elif any(table.sets.get(name) is not used for name, used in memo.sets.items()):
            memo = self._memo = _Memo(sorted=memo.sorted)
        return memo

    @property
    def sets_used(self) -> frozenset[str]:
        """The sets that decoding it looked into."""
        return frozenset(self._memo.sets if self._memo is not None else ())


@dataclass(slots=True)
class TableState:
    """A table. A dormant one keeps its rules, but none of its chains is attached to its hook."""

    family: int
    name: str
    dormant: bool = False
    chains: dict[str, ChainState] = field(default_factory=dict)
    sets: dict[str, SetState] = field(default_factory=dict)
    top: int = 0  # the largest handle that the kernel gave out in this table: a "new" chain below it is a renamed one

    def body(self, body: Body) -> ChainState | SetState | None:
        """The chain or set of that name."""
        return self.sets.get(body.name) if body.is_set else self.chains.get(body.name)

    def unkept(self) -> Iterator[Body]:
        """The chains and sets of which only the heads are known."""
        yield from (Body(False, name) for name, chain in self.chains.items() if not chain.kept)
        yield from (Body(True, name) for name, found in self.sets.items() if not found.kept)

    def leads(self, body: Body) -> Iterable[Body]:
        """What the rules of a chain, or the verdicts of a map, lead to."""
        if not body.is_set:
            return self.chains[body.name].leads
        found = self.sets[body.name]
        if not found.is_map or not found.kept:
            return ()
        given = [each.data for each in found.elements] + [found.catch_all or b""]
        return {Body(False, name) for data in given for name in called(data)}

    def copy(self) -> TableState:
        """A table of its own; its chains and sets are shared."""
        return TableState(self.family, self.name, self.dormant, dict(self.chains), dict(self.sets), self.top)


class Chains(Mapping[str, Chain]):
    """The chains of a table, decoded as they are read."""

    __slots__ = ("_table",)

    def __init__(self, table: TableState) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Chain:
        return self._table.chains[name].decoded(self._table)

    def __contains__(self, name: object) -> bool:
        return name in self._table.chains

    def __iter__(self) -> Iterator[str]:
        return iter(self._table.chains)

    def __len__(self) -> int:
        return len(self._table.chains)

    def base_chains(self) -> tuple[Chain, ...]:
        """The chains that are attached to a hook; only these are decoded."""
        if self._table.dormant:
            return ()
        return tuple(self[name] for name, chain in self._table.chains.items() if chain.hook is not None)

    def rules_towards(self, name: str, destination: Address) -> tuple[tuple[int, Rule], ...]:
        """The rules of a chain that may match a packet to ``destination``, with their numbers."""
        return self._table.chains[name].towards(self._table, destination)

    def sets_used(self, name: str) -> frozenset[str]:
        """The sets that chain ``name`` looked into when it was read."""
        chain = self._table.chains.get(name)
        return frozenset() if chain is None else chain.sets_used


class State:
    """All tables, at one generation."""

    def __init__(self, generation: int = 0, tables: Mapping[TableKey, TableState] | None = None) -> None:
        self.generation = generation
        self.tables: dict[TableKey, TableState] = dict(tables or {})

    def view(self, previous: Mapping[TableKey, Table] | None = None) -> dict[TableKey, Table]:
        """Tables as model values; those of ``previous`` are kept where nothing in them changed."""
        found: dict[TableKey, Table] = {}
        for key, state in self.tables.items():
            old = previous.get(key) if previous is not None else None
            if old is not None and isinstance(old.chains, Chains) and old.chains._table is state:
                found[key] = old
            else:
                found[key] = Table(FAMILIES[state.family], state.name, Chains(state))
        return found

    def ruleset(self) -> Ruleset:
        """A view as one value."""
        return Ruleset(tuple(self.view().values()))
