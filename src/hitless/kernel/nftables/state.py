"""The rule set as the kernel reported it, and the views that others read.

Problem: a node has tens of thousands of rules of which an egress path passes a few dozen, and every commit makes a new
rule set. Promise: ``State`` keeps rules as bytes; ``State.view()`` is a ``Ruleset`` that decodes a chain when it is
read, and keeps the result as long as the chain and the sets that it looks up stay the same. Views are snapshots:
whatever changes is copied first. Of chains and sets that are not of ``interest`` only the heads are kept; reading one
gives rules that may do anything. Next stages: ``dump`` fills a state, ``mirror`` keeps it up to date.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from hitless.kernel.nftables import lookups, prefilter
from hitless.kernel.nftables.blocks import RuleBlocks
from hitless.kernel.nftables.expressions import decode
from hitless.kernel.nftables.interest import ObjectRef, jump_targets, references
from hitless.kernel.nftables.lookups import HeaderReader
from hitless.kernel.nftables.packing import unpack
from hitless.kernel.nftables.prefilter import KnownHeader
from hitless.kernel.nftables.sets import SetState
from hitless.kernel.nftables.wire import FAMILIES
from hitless.model.headers import PacketHeader
from hitless.model.rules import MOST_MET, TOO_MANY, UNREAD, Chain, Hook, Rule, Ruleset, Table
from hitless.model.rules import jump_targets as model_jump_targets

__all__ = ["ChainState", "Chains", "State", "TableKey", "TableState", "unread_state"]

TableKey = tuple[int, str]
"""A table: its family number and name."""


@dataclass(slots=True)
class _DecodeCache:
    """What was decoded of a chain. Few chains are ever read, and the others have none."""

    decoded: Chain | None = None
    numbered: tuple[tuple[int, Rule], ...] | None = None
    sets: dict[str, SetState | None] = field(default_factory=dict)
    # of rules with lookups: the parts of a packet's header on which decoding depended, and the results
    parts: dict[int, tuple[str, ...]] = field(default_factory=dict)
    by_parts: dict[tuple[object, ...], tuple[Rule, ...]] = field(default_factory=dict)


_CACHED_LOOKUPS = 4096
_FEW_REFERENCES = 8  # names that a chain leads to and that are kept in a row


@dataclass(slots=True)
class ChainState:
    """A chain; ``rules`` are packed rule messages by handle, in the kernel's order, where it is ``kept``. ``leads``:
    the objects that its rules refer to, perhaps also those of removed rules."""

    name: str
    handle: int = 0
    hook: Hook | None = None
    rules: RuleBlocks = field(default_factory=RuleBlocks)
    kept: bool = True
    leads: Collection[ObjectRef] = ()
    _decode_cache: _DecodeCache | None = None
    # Decoded rules without lookups, by handle: they are the same for every packet, and in every copy that has the same
    # message for the handle.
    _plain: dict[int, tuple[bytes, tuple[Rule, ...]]] = field(default_factory=dict)

    def copy(self) -> ChainState:
        """An independent chain with the same rules."""
        plain = self._plain
        if len(plain) > 2 * len(self.rules) + prefilter.LONG_CHAIN:
            plain = {handle: decoded_rules for handle, decoded_rules in plain.items() if handle in self.rules}
        return ChainState(self.name, self.handle, self.hook, self.rules.copy(), self.kept, self.leads, None, plain)

    def add_references(self, rule: bytes) -> frozenset[ObjectRef]:
        """Add what a rule message refers to, and return it. (A name may refer to a later chain or set of the same
        name.)"""
        found = frozenset(references(rule))
        new = [each for each in found if each not in self.leads]
        if not new:
            return found
        if isinstance(self.leads, set):  # shared with former states, which may then find too much
            self.leads.update(new)
        elif len(self.leads) + len(new) > _FEW_REFERENCES:
            self.leads = {*self.leads, *new}
        else:  # nearly all chains refer to one or two objects, and a Python set takes four times as much memory
            self.leads = (*self.leads, *new)
        return found

    def drop_content(self) -> None:
        """Forget the rules, and keep none from now on."""
        self.rules, self.kept, self.leads, self._decode_cache, self._plain = RuleBlocks(), False, (), None, {}

    def decoded(self, table: TableState) -> Chain:
        """The chain as a value of the model; made once as long as it and the sets that it looks up stay the same."""
        cache = self._cache(table)
        if not self.kept:
            return Chain(self.name, UNREAD, None if table.dormant else self.hook)
        if cache.decoded is None:
            rules: list[Rule] = []
            for number, (handle, message) in enumerate(self.rules.entries(), 1):
                decoded_rules = self._decode_rule(handle, message, table, cache)
                if len(rules) + 1 != number or len(decoded_rules) != 1:  # a rule with a map: several of one number
                    decoded_rules = tuple(replace(rule, number=number) for rule in decoded_rules)
                rules += decoded_rules
            cache.decoded = Chain(self.name, tuple(rules), None if table.dormant else self.hook)
        return cache.decoded

    def candidates(self, table: TableState, header: PacketHeader) -> Sequence[tuple[int, Rule]]:
        """The rules, with their numbers, without some that a packet with this header cannot match: of a long chain few
        are decoded, and of a large set only the relevant elements."""
        if not self.kept:
            return ((1, UNREAD[0]),)
        cache = self._cache(table)
        if self.decoded_whole(table):
            if cache.numbered is None:
                cache.numbered = tuple(enumerate(self.decoded(table).rules, 1))
            return cache.numbered
        found: list[tuple[int, Rule]] = []
        for met, (number, handle, message) in enumerate(self.rules.candidates(KnownHeader(header))):
            if met >= MOST_MET:
                return TOO_MANY
            found += [(number, rule) for rule in self._decode_rule(handle, message, table, cache, header)]
        return found

    def decoded_whole(self, table: TableState) -> bool:
        """Whether it is decoded once for all packets: it is short, and so are the sets that it looks up."""
        if len(self.rules) > prefilter.LONG_CHAIN:
            return False
        sets = (table.sets.get(ref.name) for ref in self.leads if ref.is_set)
        return not any(found is not None and len(found.elements) > lookups.INLINE_LIMIT for found in sets)

    def specific_rules(self, header: PacketHeader) -> tuple[int, ...]:
        """The handles of the candidates that compare a field of the header; none for a short chain."""
        return () if len(self.rules) <= prefilter.LONG_CHAIN else self.rules.specific_rules(KnownHeader(header))

    def header_parts_used(self, table: TableState) -> frozenset[str]:
        """The parts of a header on which decoding its rules has depended so far."""
        return frozenset(part for parts in self._cache(table).parts.values() for part in parts)

    def version(self, table: TableState) -> object:
        """Equal for chains that certainly do the same; cheap for long ones."""
        if self.decoded_whole(table) or not self.kept:
            return self.decoded(table)
        sets = tuple(table.sets.get(ref.name) for ref in sorted(self.leads) if ref.is_set)
        return self.rules.version, sets, None if table.dormant else self.hook

    def _decode_rule(
        self, handle: int, packed: bytes, table: TableState, cache: _DecodeCache, header: PacketHeader | None = None
    ) -> tuple[Rule, ...]:
        """One rule, decoded or from the cache."""
        known = self._plain.get(handle)
        if known is not None and known[0] is packed:
            return known[1]
        if header is not None and (parts := cache.parts.get(handle)) is not None:
            decoded_rules = cache.by_parts.get((handle, *map(header.part, parts)))
            if decoded_rules is not None:
                return decoded_rules
        plain = True

        def lookup(name: str) -> SetState | None:
            nonlocal plain
            plain = False
            found = cache.sets[name] = table.sets.get(name)
            return found

        towards = None if header is None else HeaderReader(header)
        decoded_rules = decode(unpack(packed), FAMILIES[table.family], lookup, handle, towards)
        if plain:
            self._plain[handle] = (packed, decoded_rules)
        elif towards is not None and header is not None:
            if len(cache.by_parts) >= _CACHED_LOOKUPS:
                cache.by_parts.clear()
            parts = cache.parts[handle] = tuple(sorted(towards.parts_read))
            cache.by_parts[(handle, *map(header.part, parts))] = decoded_rules
        return decoded_rules

    def _cache(self, table: TableState) -> _DecodeCache:
        """The cache, emptied when a set that was looked up has changed."""
        cache = self._decode_cache
        if cache is None or any(table.sets.get(name) is not used for name, used in cache.sets.items()):
            cache = self._decode_cache = _DecodeCache()
        return cache

    @property
    def sets_used(self) -> frozenset[str]:
        """The sets that were looked up when it was decoded."""
        return frozenset(self._decode_cache.sets if self._decode_cache is not None else ())


@dataclass(slots=True)
class TableState:
    """A table. A dormant one keeps its rules, but none of its chains is attached to a hook."""

    family: int
    name: str
    dormant: bool = False
    chains: dict[str, ChainState] = field(default_factory=dict)
    sets: dict[str, SetState] = field(default_factory=dict)
    top: int = 0  # the largest handle in this table: a "new" chain with a smaller one was renamed

    def find(self, ref: ObjectRef) -> ChainState | SetState | None:
        """The chain or set that a reference means."""
        return self.sets.get(ref.name) if ref.is_set else self.chains.get(ref.name)

    def replace_by_copy(self, ref: ObjectRef) -> ChainState | SetState:
        """Put a copy of a chain or set in its place, and return it."""
        if ref.is_set:
            set_copy = self.sets[ref.name] = self.sets[ref.name].copy()
            return set_copy
        chain_copy = self.chains[ref.name] = self.chains[ref.name].copy()
        return chain_copy

    def heads_only(self) -> Iterator[ObjectRef]:
        """The chains and sets of which only the heads are known."""
        yield from (ObjectRef(False, name) for name, chain in self.chains.items() if not chain.kept)
        yield from (ObjectRef(True, name) for name, found in self.sets.items() if not found.kept)

    def references(self, ref: ObjectRef) -> Iterable[ObjectRef]:
        """What the rules of a chain, or the verdicts of a map, refer to."""
        if not ref.is_set:
            return self.chains[ref.name].leads
        found = self.sets[ref.name]
        if not found.is_map or not found.kept:
            return ()
        given = [each.data for each in found.elements] + [found.catch_all or b""]
        return {ObjectRef(False, name) for data in given for name in jump_targets(data)}

    def copy(self) -> TableState:
        """An independent table; its chains and sets are shared."""
        return TableState(self.family, self.name, self.dormant, dict(self.chains), dict(self.sets), self.top)


class Chains(Mapping[str, Chain]):
    """The chains of a table, decoded when they are read."""

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
        """Their names and hooks; nothing is decoded."""
        if self._table.dormant:
            return ()
        return tuple((name, chain.hook) for name, chain in self._table.chains.items() if chain.hook is not None)

    def rules_for(self, name: str, header: PacketHeader) -> Sequence[tuple[int, Rule]]:
        """The rules of a chain that may match a packet with this header, with their numbers."""
        return self._table.chains[name].candidates(self._table, header)

    def specific_rules(self, name: str, header: PacketHeader) -> tuple[int, ...]:
        """Those of them that compare a field of the header, by handle."""
        return self._table.chains[name].specific_rules(header)

    def header_parts_used(self, name: str) -> frozenset[str]:
        """The parts of a header on which decoding its rules has depended."""
        return self._table.chains[name].header_parts_used(self._table)

    def version(self, name: str) -> object:
        """Equal for chains that certainly do the same."""
        return self._table.chains[name].version(self._table)

    def calls(self, name: str) -> Collection[str]:
        """The chains that its rules call; of a long one perhaps some more."""
        chain = self._table.chains[name]
        if chain.decoded_whole(self._table):
            return model_jump_targets(self[name])
        sets = (ref for ref in chain.leads if ref.is_set and ref.name in self._table.sets)
        leads = set(chain.leads).union(*(self._table.references(ref) for ref in sets))
        return {ref.name for ref in leads if not ref.is_set}

    def size(self, name: str) -> int:
        """How many rules a chain has, without decoding them."""
        chain = self._table.chains[name]
        return len(chain.rules) if chain.kept else 1

    def sets_used(self, name: str) -> frozenset[str]:
        """The sets that were looked up when chain ``name`` was decoded."""
        chain = self._table.chains.get(name)
        return frozenset() if chain is None else chain.sets_used


def unread_state(generation: int, families: Iterable[int]) -> State:
    """A substitute for rules that could not be read: base chains that may do anything."""
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
        """Tables as values of the model; those of ``previous`` are reused where nothing in them changed."""
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
