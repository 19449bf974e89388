"""The rule set as the kernel told of it, and the views that others read.

Problem: a node has tens of thousands of rules of which an egress path passes a few dozen, and every commit makes a new
rule set. Promise: ``State`` keeps rules as bytes; ``State.view()`` is a ``Ruleset`` that decodes a chain when somebody
reads it, and keeps what it decoded for as long as the chain and the sets that it looks into stay the same. Views are
snapshots: what is changed is copied first. Of chains and sets that are nobody's business (``interest``) only the heads
are kept; who reads one of these all the same is told that nothing is known of it. Next stages: ``dump`` fills a state,
``mirror`` keeps it up to date.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hitless.kernel.nftables import lookups, places
from hitless.kernel.nftables.blocks import Rules
from hitless.kernel.nftables.expressions import decode
from hitless.kernel.nftables.interest import Body, called, links
from hitless.kernel.nftables.lookups import Towards
from hitless.kernel.nftables.packing import unpack
from hitless.kernel.nftables.places import Known
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.wire import FAMILIES
from hitless.model.headers import PacketHeader
from hitless.model.rules import MOST_MET, TOO_MANY, UNREAD, Chain, Hook, Rule, Ruleset, Table
from hitless.model.rules import called as called_by

__all__ = ["ChainState", "Chains", "State", "TableKey", "TableState", "unread_state"]

TableKey = tuple[int, str]
"""A table: its family number and name."""


@dataclass(slots=True)
class _Memo:
    """What was decoded of a chain. Few chains are ever read, and of those that are not none has this."""

    decoded: Chain | None = None
    numbered: tuple[tuple[int, Rule], ...] | None = None
    sets: dict[str, SetState | None] = field(default_factory=dict)
    # of rules that look into sets: which parts of a packet's header they were decoded for, and what came of it
    parts: dict[int, tuple[str, ...]] = field(default_factory=dict)
    looked: dict[tuple[object, ...], tuple[Rule, ...]] = field(default_factory=dict)


_MOST_LOOKED = 4096
_FEW = 8  # names that a chain leads to and that are kept in a row


@dataclass(slots=True)
class ChainState:
    """A chain; ``rules`` are packed rule messages by handle, in the kernel's order, where it is ``kept``. ``leads``:
    what its rules lead to, and perhaps what former ones did."""

    name: str
    handle: int = 0
    hook: Hook | None = None
    rules: Rules = field(default_factory=Rules)
    kept: bool = True
    leads: Collection[Body] = ()
    _memo: _Memo | None = None
    # What was decoded, by handle, of rules that look into no set: the same for every destination, and in every copy
    # that has the same message for the handle.
    _plain: dict[int, tuple[bytes, tuple[Rule, ...]]] = field(default_factory=dict)

    def copy(self) -> ChainState:
        """A chain of its own with the same rules."""
        plain = self._plain
        if len(plain) > 2 * len(self.rules) + places.LONG:
            plain = {handle: made for handle, made in plain.items() if handle in self.rules}
        return ChainState(self.name, self.handle, self.hook, self.rules.copy(), self.kept, self.leads, None, plain)

    def lead(self, rule: bytes) -> frozenset[Body]:
        """What a rule message leads to, taken note of. (A name may have been there for another chain or set.)"""
        found = frozenset(links(rule))
        new = [each for each in found if each not in self.leads]
        if not new:
            return found
        if isinstance(self.leads, set):  # former states may see what comes later: they may find too much
            self.leads.update(new)
        elif len(self.leads) + len(new) > _FEW:
            self.leads = {*self.leads, *new}
        else:  # nearly all of a node's thousands of chains lead to one or two others, and sets are four times as large
            self.leads = (*self.leads, *new)
        return found

    def forget(self) -> None:
        """Keep no rules from now on."""
        self.rules, self.kept, self.leads, self._memo, self._plain = Rules(), False, (), None, {}

    def decoded(self, table: TableState) -> Chain:
        """The chain as the model's value; made once for as long as it and the sets that it looks into stay."""
        memo = self._fresh(table)
        if not self.kept:
            return Chain(self.name, UNREAD, None if table.dormant else self.hook)
        if memo.decoded is None:
            rules: list[Rule] = []
            for number, (handle, message) in enumerate(self.rules.entries(), 1):
                made = self._made(handle, message, table, memo)
                if len(rules) + 1 != number or len(made) != 1:  # a map makes several rules of one: the number stays
                    made = tuple(replace(rule, number=number) for rule in made)
                rules += made
            memo.decoded = Chain(self.name, tuple(rules), None if table.dormant else self.hook)
        return memo.decoded

    def meeting(self, table: TableState, header: PacketHeader) -> Sequence[tuple[int, Rule]]:
        """The rules, with their numbers, less some that a packet with this header does not match; of a long chain few
        are decoded, and of a large set only what holds for the packet."""
        if not self.kept:
            return ((1, UNREAD[0]),)
        memo = self._fresh(table)
        if self.spelt_out(table):
            if memo.numbered is None:
                memo.numbered = tuple(enumerate(self.decoded(table).rules, 1))
            return memo.numbered
        found: list[tuple[int, Rule]] = []
        for met, (number, handle, message) in enumerate(self.rules.meeting(Known(header))):
            if met >= MOST_MET:
                return TOO_MANY
            found += [(number, rule) for rule in self._made(handle, message, table, memo, header)]
        return found

    def spelt_out(self, table: TableState) -> bool:
        """Whether it is decoded whole, once for all packets: where it is short, and so are the sets that it asks."""
        if len(self.rules) > places.LONG:
            return False
        sets = (table.sets.get(body.name) for body in self.leads if body.is_set)
        return not any(found is not None and len(found.elements) > lookups.SPELT for found in sets)

    def singled_out(self, header: PacketHeader) -> tuple[int, ...]:
        """What of ``meeting`` it meets by what it alone has, by handle; of a short chain nothing."""
        return () if len(self.rules) <= places.LONG else self.rules.singled_out(Known(header))

    def parts_asked(self, table: TableState) -> frozenset[str]:
        """By which parts of a header its rules were decoded, as far as they were."""
        return frozenset(part for parts in self._fresh(table).parts.values() for part in parts)

    def version(self, table: TableState) -> object:
        """Equal for chains that certainly do the same; cheap for those that are long."""
        if self.spelt_out(table) or not self.kept:
            return self.decoded(table)
        sets = tuple(table.sets.get(body.name) for body in sorted(self.leads) if body.is_set)
        return self.rules.version, sets, None if table.dormant else self.hook

    def _made(
        self, handle: int, packed: bytes, table: TableState, memo: _Memo, header: PacketHeader | None = None
    ) -> tuple[Rule, ...]:
        """One rule, decoded."""
        known = self._plain.get(handle)
        if known is not None and known[0] is packed:
            return known[1]
        if header is not None and (parts := memo.parts.get(handle)) is not None:
            made = memo.looked.get((handle, *map(header.part, parts)))
            if made is not None:
                return made
        plain = True

        def lookup(name: str) -> SetState | None:
            nonlocal plain
            plain = False
            found = memo.sets[name] = table.sets.get(name)
            return found

        towards = None if header is None else Towards(header)
        made = decode(unpack(packed), FAMILIES[table.family], lookup, handle, towards)
        if plain:
            self._plain[handle] = (packed, made)
        elif towards is not None and header is not None:
            if len(memo.looked) >= _MOST_LOOKED:
                memo.looked.clear()
            parts = memo.parts[handle] = tuple(sorted(towards.asked))
            memo.looked[(handle, *map(header.part, parts))] = made
        return made

    def _fresh(self, table: TableState) -> _Memo:
        """What was decoded, less what came of a set that is another one now."""
        memo = self._memo
        if memo is None or any(table.sets.get(name) is not used for name, used in memo.sets.items()):
            memo = self._memo = _Memo()
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

    def hooks(self) -> tuple[tuple[str, Hook], ...]:
        """The same, of which nothing is decoded."""
        if self._table.dormant:
            return ()
        return tuple((name, chain.hook) for name, chain in self._table.chains.items() if chain.hook is not None)

    def rules_for(self, name: str, header: PacketHeader) -> Sequence[tuple[int, Rule]]:
        """The rules of a chain that may match a packet with this header, with their numbers."""
        return self._table.chains[name].meeting(self._table, header)

    def singled_out(self, name: str, header: PacketHeader) -> tuple[int, ...]:
        """Those of them that name what few packets have."""
        return self._table.chains[name].singled_out(header)

    def parts_asked(self, name: str) -> frozenset[str]:
        """By which parts of a header its rules were decoded."""
        return self._table.chains[name].parts_asked(self._table)

    def version(self, name: str) -> object:
        """Equal for chains that certainly do the same."""
        return self._table.chains[name].version(self._table)

    def calls(self, name: str) -> Collection[str]:
        """The chains that its rules lead to; of a long one perhaps some more."""
        chain = self._table.chains[name]
        if chain.spelt_out(self._table):
            return called_by(self[name])
        sets = (body for body in chain.leads if body.is_set and body.name in self._table.sets)
        leads = set(chain.leads).union(*(self._table.leads(body) for body in sets))
        return {body.name for body in leads if not body.is_set}

    def size(self, name: str) -> int:
        """How many rules a chain has, where that is known without decoding them."""
        chain = self._table.chains[name]
        return len(chain.rules) if chain.kept else 1

    def sets_used(self, name: str) -> frozenset[str]:
        """The sets that chain ``name`` looked into when it was read."""
        chain = self._table.chains.get(name)
        return frozenset() if chain is None else chain.sets_used


def unread_state(generation: int, families: Iterable[int]) -> State:
    """What stands for rules that could not be read: base chains that may do anything."""
    tables = {}
    for family in families:
        key = family, "rules that could not be read"
        tables[key] = table = TableState(*key)
        for kind, hook, priority in _ANYWHERE:
            name = f"{hook} ({kind})"
            table.chains[name] = ChainState(name, 0, Hook(kind, hook, priority), kept=False)
    return State(generation, tables)


_ANYWHERE = (
    *(("filter", hook, 0) for hook in ("prerouting", "forward", "postrouting")),
    *(("nat", hook, priority) for hook, priority in (("prerouting", -100), ("postrouting", 100))),
)


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
