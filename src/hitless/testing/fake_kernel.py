"""A kernel's rules in memory: atomic, with generations, and failing as the real one does.

Problem: adoption from any state, and death at any point, need thousands of runs. Promise: ``FakeKernel`` is a
``RulesPort``; it executes the exact texts that the real programs would get (``restore_text``), whole or not at all;
every committed generation is kept in ``history``; ``fail_next`` makes the next commits fail, ``die_at`` stops the
caller before or after a chosen commit. It is trusted because one suite (tests/contract) runs on it and on a real
kernel.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from hitless.errors import ProgramError
from hitless.kernel import rule_text
from hitless.model.families import Backend, Family
from hitless.model.rules import Chain, Goto, Hook, Jump, Rule, Ruleset, Table
from hitless.model.state import Holding, NodeState, Place, Purpose, is_owned
from hitless.plan import Transaction, canonical
from hitless.testing.restore_text import Refused, hook_of, native_rule, restore_lines, rule_of

__all__ = ["Death", "FakeKernel"]

TableKey = tuple[Backend, Family, str]

_BUILT_IN: dict[str, dict[str, Hook]] = {
    "nat": {"POSTROUTING": Hook("nat", "postrouting", 100)},
    "filter": {"FORWARD": Hook("filter", "forward", 0)},
    "mangle": {},
}


class Death(BaseException):
    """The caller was killed here; no handler of ordinary errors sees it."""


@dataclass(slots=True)
class _Chain:
    rules: list[Rule] = field(default_factory=list)
    hook: Hook | None = None


class FakeKernel:
    """Rules of one node. ``commits`` counts transactions; ``history`` has the rules after each, the first included."""

    def __init__(self, *, random_fully: bool = True, detected: Backend = Backend.NFT) -> None:
        self._tables: dict[TableKey, dict[str, _Chain]] = {}
        self._handle = 0
        self._random_fully = random_fully
        self._detected = detected
        self._failures: list[ProgramError] = []
        self._die: tuple[int, bool] | None = None
        self.commits = 0
        self.history: list[Ruleset] = [self.ruleset()]

    # --- RulesPort

    def observe(self, families: Collection[Family]) -> NodeState:
        """What stands at every place."""
        found: dict[Place, Holding] = {}
        for family in families:
            for backend in Backend:
                for purpose in Purpose:
                    place = Place(backend, family, purpose)
                    found[place] = self._holding(place)
        return NodeState(found)

    def apply(self, transaction: Transaction) -> None:
        """Commit a transaction's text, whole or not at all; as the real one, only what a plan of ours may say."""
        number = self.commits
        if self._die == (number, True):
            raise Death(f"before commit {number}")
        if self._failures:
            raise self._failures.pop(0)
        rule_text.check(transaction.program, transaction.text)
        self.write(transaction.backend, transaction.family, transaction.text)
        if self._die == (number, False):
            raise Death(f"after commit {number}")

    def egress(self, families: Collection[Family]) -> Ruleset:
        """All rules of these families."""
        words = {family.nft for family in families}
        return Ruleset(tuple(table for table in self.ruleset().tables if table.family in words))

    def detect(self) -> Backend:
        """As told."""
        return self._detected

    def knows_random_fully(self, backend: Backend) -> bool:
        """As told."""
        return self._random_fully

    # --- for tests

    def fail_next(self, error: ProgramError, times: int = 1) -> None:
        """Make the next commits fail."""
        self._failures += [error] * times

    def die_at(self, commit: int | None, *, before: bool = True) -> None:
        """Raise ``Death`` before or after the commit of that number; ``None``: live on."""
        self._die = None if commit is None else (commit, before)

    def write(self, backend: Backend, family: Family, text: str) -> None:
        """Execute a text as the backend's program would; ``ProgramError`` (and no change) when it is refused."""
        before = copy.deepcopy(self._tables)
        try:
            if backend is Backend.NFTABLES:
                for line in text.splitlines():
                    self._native(family, line.split())
            else:
                for table, words in restore_lines(text):
                    self._restore((backend, family, table), words)
            self._check_jumps()
        except (Refused, KeyError, ValueError, IndexError) as error:
            self._tables = before
            raise ProgramError((f"fake-{backend.value}",), 1, f"{type(error).__name__}: {error}") from error
        self.commits += 1
        self.history.append(self.ruleset())

    def ruleset(self) -> Ruleset:
        """The committed rules."""
        return Ruleset(
            tuple(
                Table(
                    family.nft,
                    name,
                    {chain: Chain(chain, tuple(held.rules), held.hook) for chain, held in chains.items()},
                    legacy=backend is Backend.LEGACY,
                )
                for (backend, family, name), chains in sorted(self._tables.items())
            )
        )

    def foreign(self) -> Ruleset:
        """Everything that is nobody's of ours: for comparing before and after."""
        tables: list[Table] = []
        for (backend, family, name), chains in sorted(self._tables.items()):
            kept: dict[str, Chain] = {}
            for chain, held in chains.items():
                places = [
                    place
                    for purpose in Purpose
                    for place in (Place(backend, family, purpose),)
                    if place.names.table == name and chain in (place.names.base, place.names.chain)
                ]
                rules = tuple(rule for rule in held.rules if not any(_owned(rule, place, chain) for place in places))
                own = any(place.names.chain == chain for place in places)
                if rules or not own:
                    kept[chain] = Chain(chain, rules, held.hook)
            built_in = set(_BUILT_IN.get(name, {}))
            if any(chain.rules or chain_name not in built_in for chain_name, chain in kept.items()):
                kept = {key: chain for key, chain in kept.items() if chain.rules or key not in built_in}
                tables.append(Table(family.nft, name, kept, legacy=backend is Backend.LEGACY))
        return Ruleset(tuple(tables))

    # --- execution

    def _holding(self, place: Place) -> Holding:
        names = place.names
        chains = self._tables.get((place.backend, place.family, names.table), {})
        own = chains.get(names.chain)
        chain = None if own is None else tuple(own.rules)
        if place.backend is Backend.NFTABLES:
            return Holding((), chain, own.hook if own else None, len(chains) if own else 0)
        base = chains.get(names.base)
        policy = base.hook.policy if base and base.hook else "accept"
        return Holding(tuple(base.rules) if base else (), chain, policy=policy)

    def _table(self, key: TableKey) -> dict[str, _Chain]:
        if key not in self._tables:
            built_in = _BUILT_IN.get(key[2], {}) if key[0] is not Backend.NFTABLES else {}
            self._tables[key] = {name: _Chain(hook=hook) for name, hook in built_in.items()}
        return self._tables[key]

    def _numbered(self, rule: Rule) -> Rule:
        self._handle += 1
        return replace(rule, handle=self._handle)

    def _restore(self, key: TableKey, words: list[str]) -> None:
        chains = self._table(key)
        action, name = words[0], words[1] if len(words) > 1 else ""
        if action.startswith(":"):
            self._declare(chains, action[1:], name)
            return
        if name not in chains:
            raise Refused(f"{name}: no such chain")
        rules = chains[name].rules
        if action == "-A":
            rules.append(self._numbered(rule_of(words[2:], key[1])))
        elif action == "-I":
            number = int(words[2])
            if not 1 <= number <= len(rules) + 1:
                raise Refused(f"{name} {number}: index of insertion too big")
            rules.insert(number - 1, self._numbered(rule_of(words[3:], key[1])))
        elif action == "-D" and len(words) == 3:
            del rules[int(words[2]) - 1]
        elif action == "-D":
            wanted = canonical(rule_of(words[2:], key[1]))
            at = next((n for n, rule in enumerate(rules) if canonical(rule) == wanted), None)
            if at is None:
                raise Refused(f"{' '.join(words)}: no such rule")
            del rules[at]
        elif action == "-F":
            rules.clear()
        elif action == "-X":
            if rules or chains[name].hook is not None:
                raise Refused(f"{name}: not empty, or built in")
            del chains[name]
        else:
            raise Refused(f"unknown line {' '.join(words)}")

    @staticmethod
    def _declare(chains: dict[str, _Chain], name: str, policy: str) -> None:
        """``:NAME POLICY``: a chain of one's own is emptied, a built-in one gets its policy and keeps its rules."""
        held = chains.get(name)
        if held is None or held.hook is None:
            chains[name] = _Chain()
        elif policy in ("ACCEPT", "DROP"):
            held.hook = replace(held.hook, policy=policy.lower())

    def _native(self, family: Family, words: list[str]) -> None:
        match words:
            case ["add", "table", _, table]:
                self._table((Backend.NFTABLES, family, table))
            case ["delete", "table", _, table]:
                del self._tables[Backend.NFTABLES, family, table]
            case ["add", "chain", _, table, chain, *hook]:
                self._tables[Backend.NFTABLES, family, table].setdefault(chain, _Chain(hook=hook_of(hook)))
            case ["flush", "chain", _, table, chain]:
                self._tables[Backend.NFTABLES, family, table][chain].rules.clear()
            case ["delete", "chain", _, table, chain]:
                if self._tables[Backend.NFTABLES, family, table].pop(chain).rules:
                    raise Refused(f"{chain}: not empty")
            case ["delete", "rule", _, table, chain, "handle", handle]:
                rules = self._tables[Backend.NFTABLES, family, table][chain].rules
                del rules[[rule.handle for rule in rules].index(int(handle))]
            case ["add", "rule", _, table, chain, "handle", handle, *rest]:
                rules = self._tables[Backend.NFTABLES, family, table][chain].rules
                at = [rule.handle for rule in rules].index(int(handle))
                rules.insert(at + 1, self._numbered(native_rule(rest, family)))
            case ["add", "rule", _, table, chain, *rest]:
                rules = self._tables[Backend.NFTABLES, family, table][chain].rules
                rules.append(self._numbered(native_rule(rest, family)))
            case ["insert", "rule", _, table, chain, *rest]:
                rules = self._tables[Backend.NFTABLES, family, table][chain].rules
                rules.insert(0, self._numbered(native_rule(rest, family)))
            case _:
                raise Refused(f"unknown line {' '.join(words)}")

    def _check_jumps(self) -> None:
        for chains in self._tables.values():
            for held in chains.values():
                for step in (step for rule in held.rules for step in rule.steps):
                    if isinstance(step, Jump | Goto) and step.chain not in chains:
                        raise Refused(f"{step.chain}: no such chain to jump to")


def _owned(rule: Rule, place: Place, chain: str) -> bool:
    if place.backend is Backend.NFTABLES and chain != place.names.chain:
        return False
    return is_owned(rule, place)
