"""A kernel's rules in memory: atomic, with generations, and with the real one's errors.

Problem: adoption from any state, and death at any point, need thousands of runs. Promise: ``FakeKernel`` is a
``AgentRulesPort``; it executes the exact texts that the real programs would get (``restore_text``), atomically; every
committed generation is kept in ``history``; ``fail_next`` makes the next commits fail, ``die_at`` stops the caller
before or after a chosen commit. Values are shared: what a commit did not change is the same object before and after it,
and each text is parsed and checked once. One suite (tests/contract) runs on it and on a real kernel.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import lru_cache

from hitless.errors import ProgramError
from hitless.kernel import rule_text
from hitless.model.families import Backend, Family
from hitless.model.rules import Chain, Goto, Hook, Jump, Rule, Ruleset, Table
from hitless.model.state import Holding, NodeState, Place, Purpose, is_owned
from hitless.plan import PlannedTransaction, canonical
from hitless.testing.restore_text import TextRefused, hook_of, native_rule, restore_lines, rule_of

__all__ = ["Death", "FakeKernel"]

TableKey = tuple[Backend, Family, str]

_BUILT_IN: dict[str, dict[str, Hook]] = {
    "nat": {"POSTROUTING": Hook("nat", "postrouting", 100)},
    "filter": {"FORWARD": Hook("filter", "forward", 0)},
    "mangle": {},
}


class Death(BaseException):
    """The caller was killed here; no handler of ordinary errors sees it."""


_PLACES = {family: [Place(backend, family, purpose) for backend in Backend for purpose in Purpose] for family in Family}


_NO_CHAINS: Mapping[str, Chain] = {}


@lru_cache(4096)
def _lines(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((table, tuple(tokens)) for table, tokens in restore_lines(text))


@lru_cache(4096)
def _rule_of(tokens: tuple[str, ...], family: Family) -> Rule:
    return rule_of(list(tokens), family)


@lru_cache(4096)
def _native_rule(tokens: tuple[str, ...], family: Family) -> Rule:
    return native_rule(list(tokens), family)


_check = lru_cache(4096)(rule_text.check)


class FakeKernel:
    """Rules of one node. ``commits`` counts transactions; ``history`` has the rules after each, the first included."""

    def __init__(self, *, random_fully: bool = True, detected: Backend = Backend.NFT) -> None:
        self._tables: dict[TableKey, dict[str, Chain]] = {}
        self._values: dict[TableKey, tuple[dict[str, Chain], Table]] = {}  # of the last ruleset
        self._foreign: dict[TableKey, tuple[dict[str, Chain], Table | None]] = {}  # of the last ``foreign``
        self._holdings: dict[Place, tuple[Mapping[str, Chain], Holding]] = {}
        self._handle = 0
        self._random_fully = random_fully
        self._detected = detected
        self._failures: list[ProgramError] = []
        self._die: tuple[int, bool] | None = None
        self.commits = 0
        self.history: list[Ruleset] = [Ruleset()]

    # --- RulesPort

    def observe(self, families: Collection[Family]) -> NodeState:
        """The rules at every place."""
        found: dict[Place, Holding] = {}
        for family in families:
            for place in _PLACES[family]:
                found[place] = self._holding(place)
        return NodeState(found)

    def apply(self, transaction: PlannedTransaction) -> None:
        """Commit a transaction's text atomically; as in the real port, only texts that a plan may contain."""
        number = self.commits
        if self._die == (number, True):
            raise Death(f"before commit {number}")
        if self._failures:
            raise self._failures.pop(0)
        _check(transaction.program, transaction.text)
        self.write(transaction.backend, transaction.family, transaction.text)
        if self._die == (number, False):
            raise Death(f"after commit {number}")

    def egress(self, families: Collection[Family]) -> Ruleset:
        """All rules of these families."""
        tokens = {family.nft for family in families}
        return Ruleset(tuple(table for table in self.ruleset().tables if table.family in tokens))

    def detect(self) -> Backend:
        """As given to the constructor."""
        return self._detected

    def knows_random_fully(self, backend: Backend) -> bool:
        """As given to the constructor."""
        return self._random_fully

    # --- for tests

    def fail_next(self, error: ProgramError, times: int = 1) -> None:
        """Make the next commits fail."""
        self._failures += [error] * times

    def die_at(self, commit: int | None, *, before: bool = True) -> None:
        """Raise ``Death`` before or after the commit of that number; ``None``: never."""
        self._die = None if commit is None else (commit, before)

    def write(self, backend: Backend, family: Family, text: str) -> None:
        """Execute a text as the backend's program would; ``ProgramError`` (and no change) when it is refused."""
        before = self._tables
        self._tables = {key: dict(chains) for key, chains in before.items()}
        try:
            if backend.native:
                for line in text.splitlines():
                    self._native(backend, family, line.split())
            else:
                for table, tokens in _lines(text):
                    self._restore((backend, family, table), tokens)
            self._check_jumps(before)
        except (TextRefused, KeyError, ValueError, IndexError) as error:
            self._tables = before
            raise ProgramError((f"fake-{backend.value}",), 1, f"{type(error).__name__}: {error}") from error
        self._tables = {
            key: old if (old := before.get(key)) is not None and _same(old, chains) else chains
            for key, chains in self._tables.items()
        }
        self.commits += 1
        self.history.append(self._committed())

    def ruleset(self) -> Ruleset:
        """The committed rules."""
        return self.history[-1]

    def foreign(self) -> Ruleset:
        """All rules that are not ours, to compare them before and after."""
        known, self._foreign = self._foreign, {}
        for key, chains in self._tables.items():
            last = known.get(key)
            self._foreign[key] = last if last is not None and last[0] is chains else (chains, _foreign(key, chains))
        found = (table for _, (_, table) in sorted(self._foreign.items(), key=_by_key))
        return Ruleset(tuple(table for table in found if table is not None))

    # --- execution

    def _committed(self) -> Ruleset:
        known, self._values = self._values, {}
        for key, chains in sorted(self._tables.items(), key=_by_key):
            last = known.get(key)
            if last is None or last[0] is not chains:
                backend, family, name = key
                last = chains, Table(family.nft, name, chains, legacy=backend.legacy)
            self._values[key] = last
        return Ruleset(tuple(table for _, table in self._values.values()))

    def _holding(self, place: Place) -> Holding:
        chains = self._tables.get((place.backend, place.family, place.names.table), _NO_CHAINS)
        known = self._holdings.get(place)
        if known is None or known[0] is not chains:
            known = self._holdings[place] = chains, _held(place, chains)
        return known[1]

    def _table(self, key: TableKey) -> dict[str, Chain]:
        if key not in self._tables:
            built_in = _BUILT_IN.get(key[2], {}) if not key[0].native else {}
            self._tables[key] = {name: Chain(name, (), hook) for name, hook in built_in.items()}
        return self._tables[key]

    def _numbered(self, rule: Rule) -> Rule:
        self._handle += 1
        return replace(rule, handle=self._handle)

    def _restore(self, key: TableKey, tokens: tuple[str, ...]) -> None:
        chains = self._table(key)
        action, name = tokens[0], tokens[1] if len(tokens) > 1 else ""
        if action.startswith(":"):
            self._declare(chains, action[1:], name)
            return
        if name not in chains:
            raise TextRefused(f"{name}: no such chain")
        rules = chains[name].rules
        if action == "-A":
            rules = (*rules, self._numbered(_rule_of(tokens[2:], key[1])))
        elif action == "-I":
            number = int(tokens[2])
            if not 1 <= number <= len(rules) + 1:
                raise TextRefused(f"{name} {number}: index of insertion too big")
            rules = _inserted(rules, number - 1, self._numbered(_rule_of(tokens[3:], key[1])))
        elif action == "-D" and len(tokens) == 3:
            rules = _without(rules, int(tokens[2]) - 1)
        elif action == "-D":
            wanted = canonical(_rule_of(tokens[2:], key[1]))
            at = next((n for n, rule in enumerate(rules) if canonical(rule) == wanted), None)
            if at is None:
                raise TextRefused(f"{' '.join(tokens)}: no such rule")
            rules = _without(rules, at)
        elif action == "-F":
            rules = ()
        elif action == "-X":
            if rules or chains[name].hook is not None:
                raise TextRefused(f"{name}: not empty, or built in")
            del chains[name]
            return
        else:
            raise TextRefused(f"unknown line {' '.join(tokens)}")
        chains[name] = Chain(name, rules, chains[name].hook)

    @staticmethod
    def _declare(chains: dict[str, Chain], name: str, policy: str) -> None:
        """``:NAME POLICY``: a user-defined chain is flushed, a built-in one gets its policy and keeps its rules."""
        held = chains.get(name)
        if held is None or held.hook is None:
            chains[name] = Chain(name)
        elif policy in ("ACCEPT", "DROP"):
            chains[name] = replace(held, hook=replace(held.hook, policy=policy.lower()))

    def _native(self, backend: Backend, family: Family, tokens: list[str]) -> None:
        match tokens:
            case ["add", "table", _, table]:
                self._table((backend, family, table))
                return
            case ["delete", "table", _, table]:
                del self._tables[backend, family, table]
                return
            case ["add", "chain", _, table, chain, *hook]:
                self._tables[backend, family, table].setdefault(chain, Chain(chain, (), hook_of(hook)))
                return
            case ["delete", "chain", _, table, chain]:
                if self._tables[backend, family, table].pop(chain).rules:
                    raise TextRefused(f"{chain}: not empty")
                return
            case [_, _, _, table, chain, *rest]:
                chains = self._tables[backend, family, table]
            case _:
                raise TextRefused(f"unknown line {' '.join(tokens)}")
        rules = chains[chain].rules
        match tokens[:2], rest:
            case ["flush", "chain"], []:
                rules = ()
            case ["delete", "rule"], ["handle", handle]:
                rules = _without(rules, [rule.handle for rule in rules].index(int(handle)))
            case ["add", "rule"], ["handle", handle, *rest]:
                at = [rule.handle for rule in rules].index(int(handle))
                rules = _inserted(rules, at + 1, self._numbered(_native_rule(tuple(rest), family)))
            case ["add", "rule"], _:
                rules = (*rules, self._numbered(_native_rule(tuple(rest), family)))
            case ["insert", "rule"], _:
                rules = _inserted(rules, 0, self._numbered(_native_rule(tuple(rest), family)))
            case _:
                raise TextRefused(f"unknown line {' '.join(tokens)}")
        chains[chain] = Chain(chain, rules, chains[chain].hook)

    def _check_jumps(self, before: dict[TableKey, dict[str, Chain]]) -> None:
        """The kernel refuses jumps to missing chains; unchanged tables were checked already."""
        for key, chains in self._tables.items():
            old = before.get(key, {})
            if _same(old, chains):
                continue
            for step in (step for chain in chains.values() for rule in chain.rules for step in rule.steps):
                if isinstance(step, Jump | Goto) and step.chain not in chains:
                    raise TextRefused(f"{step.chain}: no such chain to jump to")


def _held(place: Place, chains: Mapping[str, Chain]) -> Holding:
    names = place.names
    own = chains.get(names.chain)
    chain = None if own is None else own.rules
    if place.backend.native:
        return Holding((), chain, own.hook if own else None, len(chains) if own else 0)
    base = chains.get(names.base)
    policy = base.hook.policy if base and base.hook else "accept"
    return Holding(base.rules if base else (), chain, policy=policy)


def _by_key(item: tuple[TableKey, object]) -> TableKey:
    return item[0]


def _same(old: dict[str, Chain], new: dict[str, Chain]) -> bool:
    """Whether these are the same objects, in the same order."""
    return len(old) == len(new) and all(
        one == other and old[one] is new[other] for one, other in zip(old, new, strict=True)
    )


def _inserted(rules: tuple[Rule, ...], at: int, rule: Rule) -> tuple[Rule, ...]:
    return (*rules[:at], rule, *rules[at:])


def _without(rules: tuple[Rule, ...], at: int) -> tuple[Rule, ...]:
    kept = list(rules)
    del kept[at]  # as for lists: an index out of range is an error
    return tuple(kept)


def _foreign(key: TableKey, chains: dict[str, Chain]) -> Table | None:
    """A table without what is ours; ``None`` where nothing of others is left."""
    backend, family, name = key
    kept: dict[str, Chain] = {}
    for chain, held in chains.items():
        places = [
            place
            for place in _PLACES[family]
            if place.backend is backend and place.names.table == name and chain in (place.names.base, place.names.chain)
        ]
        rules = tuple(rule for rule in held.rules if not any(_owned(rule, place, chain) for place in places))
        own = any(place.names.chain == chain for place in places)
        if rules or not own:
            kept[chain] = Chain(chain, rules, held.hook)
    built_in = set(_BUILT_IN.get(name, {}))
    if not any(chain.rules or chain_name not in built_in for chain_name, chain in kept.items()):
        return None
    kept = {key: chain for key, chain in kept.items() if chain.rules or key not in built_in}
    return Table(family.nft, name, kept, legacy=backend.legacy)


def _owned(rule: Rule, place: Place, chain: str) -> bool:
    if place.backend.native and chain != place.names.chain:
        return False
    return is_owned(rule, place)
