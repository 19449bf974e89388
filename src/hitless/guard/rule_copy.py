"""A primary's base chain, copied rule for rule into a standby, or refused.

Problem: the standby must translate exactly what the whole primary would, so everything that runs in front of the
primary's decision counts: an ACCEPT, a RETURN, a mark that is tested. Promise: ``copy`` follows the base chain through
every chain that it calls and keeps what decides about translation, in order, in the same chain structure: what the
copy does to a flow is what the original does. Three liberties, all in the direction of translating less: rules that
cannot change the answer are left out; a translation (or a chain of nothing but translations) behind a condition that
has no exact form is left out and named, because the primary itself makes it; marks that no rule tests are not set.
Anything else that has no exact form raises ``Unclear``. It never guesses. Next stage: ``standby_rules``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hitless.errors import HitlessError
from hitless.kernel.nftables import encoding
from hitless.model import notation
from hitless.model.reachability import reachable
from hitless.model.rules import (
    Accept,
    AnyOf,
    Chain,
    Comment,
    ConntrackTemplate,
    Dnat,
    Drop,
    Goto,
    Hook,
    Jump,
    Mark,
    Masquerade,
    MoveMark,
    OneOf,
    OpaqueAction,
    Reject,
    Return,
    Rule,
    SetConnMark,
    SetMark,
    SetProperty,
    Silent,
    Snat,
    Step,
    Table,
    UnknownMark,
    jump_targets,
)

__all__ = ["Copy", "LeftOut", "Unclear", "Unread", "copy", "disturbance", "tested_bits"]

_MOST_RULES = 2000  # a nat postrouting path has tens; thousands mean that something else is wrong
_DEEPEST = 15  # nf_tables allows 16 nested jumps
_VERDICTS = (Accept, Drop, Reject, Return, Jump, Goto, Masquerade, Snat, Dnat, OneOf, OpaqueAction)
_TRANSLATIONS = (Masquerade, Snat)


class Unclear(HitlessError):
    """The primary's rules cannot be copied exactly, so that their effect is not known. ``at``: the table and chain."""

    def __init__(self, message: str, at: tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.at = at


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A translation that has no exact form: at which rule, why, and the chains that it is about: the rule's own, one
    that the rule calls and that is left out ``whole``, and one that stopped the copy further down."""

    table: str
    chain: str
    rule: int
    problem: str
    whole: str = ""
    within: tuple[str, str] | None = None

    def concerns(self, table: str, chain: str) -> bool:
        """Whether it is a rule of this chain, or a call of it."""
        return (table, chain) in ((self.table, self.chain), (self.table, self.whole), self.within)

    def __str__(self) -> str:
        where = f"{self.table} {self.chain} rule {self.rule}"
        return f"{where}, all of {self.whole} ({self.problem})" if self.whole else f"{where} ({self.problem})"


class Unread(Unclear):
    """The rules could not be read just now; what they mean is for later."""


@dataclass(frozen=True, slots=True)
class Copy:
    """``chains`` in the standby's names, the base chain first; what was ``left_out``."""

    chains: tuple[Chain, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(slots=True)
class _Part:
    """A copied chain: its rules, and what can come of calling it."""

    rules: list[Rule] = field(default_factory=list)
    translates: bool = False
    ends: bool = False  # it can end the base chain without translating

    @property
    def neutral(self) -> bool:
        return not self.rules or not (self.translates or self.ends)


def _reachable(table: Table, name: str) -> Iterator[Chain]:
    return (table.chains[each] for each in table.reachable(name))


def tested_bits(table: Table, base: str) -> int:
    """The bits of the packet's mark that a rule reachable from ``base`` tests."""
    bits = 0
    for chain in _reachable(table, base):
        for rule in chain.rules:
            for step in rule.steps:
                bits |= _tested(step)
    return bits


def _tested(step: Step) -> int:
    if isinstance(step, AnyOf):
        bits = 0
        for each in (each for group in step.alternatives for each in group):
            bits |= _tested(each)
        return bits
    return step.mask if isinstance(step, Mark) else 0


def disturbance(table: Table, base: str, bits: int) -> str:
    """The rule of another nat base chain that changes mark bits which a standby tests, as text; empty if there is none.

    A change is harmless when the packet is translated right behind it: the standby is not called then.
    """
    for chain in _reachable(table, base):
        for number, rule in enumerate(chain.rules):
            for step in rule.steps:
                touched = _touched(step)
                if touched & bits and not _translated_next(chain, number):
                    return f"{table.name} {chain.name} rule {number + 1} changes mark bits {touched & bits:#x}"
    return ""


def _touched(step: Step) -> int:
    """The mark bits that a step may change."""
    if isinstance(step, SetMark):
        return step.mask | step.value
    if isinstance(step, MoveMark):
        return step.cleared | step.taken | step.value if step.restore else 0
    return step.mask if isinstance(step, UnknownMark) and not step.connection else 0


def _sets(step: Step) -> bool:
    return isinstance(step, SetMark | UnknownMark | MoveMark)


def _verdict(rule: Rule) -> Step | None:
    return next((step for step in rule.steps if isinstance(step, _VERDICTS)), None)


def _translated_next(chain: Chain, number: int) -> bool:
    """Whether whatever passes rule ``number`` is translated by that rule or the next."""
    rule = chain.rules[number]
    if isinstance(_verdict(rule), _TRANSLATIONS):
        return True
    if number + 1 >= len(chain.rules):
        return False
    after = chain.rules[number + 1]
    conditions = {step for step in rule.steps if not _sets(step)}
    needed = [step for step in after.steps if not isinstance(step, _TRANSLATIONS)]
    return isinstance(_verdict(after), _TRANSLATIONS) and all(
        isinstance(step, Comment) or (step in conditions and not isinstance(step, Mark)) for step in needed
    )


def copy(table: Table, base: Chain, prefix: str, priority: int, version: int) -> Copy:
    """Copy the base chain and what it calls; chains are named ``prefix`` + name. Raises ``Unclear``."""
    if base.hook is None or base.hook.policy != "accept":
        raise Unclear(f"{table.name} {base.name} does not accept by policy")
    copier = _Copier(table, tested_bits(table, base.name), prefix, version)
    part = copier.chain(base.name, ())
    found = {prefix + name: Chain(prefix + name, tuple(each.rules)) for name, each in copier.parts.items()}
    first = Chain(prefix + base.name, tuple(part.rules), Hook("nat", "postrouting", priority))
    found[first.name] = first
    chains = reachable((first.name,), lambda name: jump_targets(found[name]))
    return Copy(tuple(found[name] for name in chains), tuple(copier.left_out))


class _Copier:
    def __init__(self, table: Table, bits: int, prefix: str, version: int) -> None:
        self.table = table
        self.bits = bits
        self.prefix = prefix
        self.version = version
        self.parts: dict[str, _Part] = {}
        self.left_out: list[LeftOut] = []
        self._count = 0

    def chain(self, name: str, stack: tuple[str, ...]) -> _Part:
        if name in self.parts:
            return self.parts[name]
        source = self.table.chains.get(name)
        if source is None or name in stack or len(stack) > _DEEPEST:
            raise Unclear(
                f"{self.table.name} {name}: " + ("no such chain" if source is None else "jumps nest too deep"),
                (self.table.name, name),
            )
        part = _Part()
        for number, rule in enumerate(source.rules):
            self._count += 1
            if self._count > _MOST_RULES:
                raise Unclear(f"{self.table.name}: more than {_MOST_RULES} rules can be reached")
            self._rule(part, source, number, rule, (*stack, name))
        self.parts[name] = part
        return part

    def _rule(self, part: _Part, chain: Chain, number: int, rule: Rule, stack: tuple[str, ...]) -> None:
        rule = Rule(tuple(step for step in rule.steps if not self._without_effect(step)))
        verdict = _verdict(rule)
        if verdict is None and not any(_sets(step) for step in rule.steps):
            return
        self._check_marks(chain, number, rule)
        match verdict:
            case Jump(target):
                self._jump(part, chain, number, rule, target, stack)
                return
            case Goto(target):
                called = self.chain(target, stack)
                if called.neutral:
                    rule = _with_verdict(rule, Return())
                else:
                    part.translates, part.ends = part.translates or called.translates, part.ends or called.ends
                    rule = _with_verdict(rule, Goto(self.prefix + target))
            case Masquerade() | Snat():
                if problem := self._inexact(rule):
                    self.left_out.append(LeftOut(self.table.name, chain.name, number + 1, problem))
                    return
                part.translates = True
            case Accept():
                part.ends = True
            case Return() | None:
                pass
            case _:
                raise self._unclear(chain, number, notation.rule(Rule((verdict,)), iptables=self.table.iptables))
        if problem := self._inexact(rule):
            raise self._unclear(chain, number, problem)
        part.rules.append(rule)

    def _without_effect(self, step: Step) -> bool:
        """A change of mark bits that no rule asks for has no effect on translation; nor have a log, and changes of what
        only rules without an exact form ask for (connection marks, labels, sets that packets fill)."""
        if isinstance(step, Silent | SetConnMark | SetProperty | ConntrackTemplate):
            return True
        return _sets(step) and not _touched(step) & self.bits

    def _check_marks(self, chain: Chain, number: int, rule: Rule) -> None:
        """The standby sees the mark as the primary left it: a change counts only if the primary translates then."""
        if not any(_sets(step) for step in rule.steps):
            return
        after = chain.rules[number : number + 2]
        if not _translated_next(chain, number) or any(self._inexact(each) for each in after):
            raise self._unclear(chain, number, "changes mark bits that rules test, and goes on")

    def _unclear(self, chain: Chain, number: int, problem: str) -> Unclear:
        table = self.table.name
        return Unclear(f"{table} {chain.name} rule {number + 1}: {problem}", (table, chain.name))

    def _jump(self, part: _Part, chain: Chain, number: int, rule: Rule, target: str, stack: tuple[str, ...]) -> None:
        if self._neutral(target):
            return
        noted = len(self.left_out)
        stopped: Unclear | None = None
        try:
            called = self.chain(target, stack)
            problem = "" if called.neutral else self._inexact(rule)
        except Unclear as unclear:
            called, problem, stopped = None, str(unclear), unclear
        if called is not None and called.neutral:
            return
        if problem:
            if not self._only_translates(target):
                raise stopped if stopped is not None else self._unclear(chain, number, problem)
            del self.left_out[noted:]
            within = None if stopped is None else stopped.at
            self.left_out.append(LeftOut(self.table.name, chain.name, number + 1, problem, target, within))
            return
        assert called is not None
        part.translates, part.ends = part.translates or called.translates, part.ends or called.ends
        part.rules.append(_with_verdict(rule, Jump(self.prefix + target)))

    def _neutral(self, name: str) -> bool:
        """Whether a called chain, whatever its conditions, comes back with nothing decided."""
        return name in self.table.chains and all(
            isinstance(_verdict(rule), Return | Jump | None)
            and all(self._without_effect(s) for s in rule.steps if _sets(s))
            for chain in _reachable(self.table, name)
            for rule in chain.rules
        )

    def _only_translates(self, name: str) -> bool:
        """Whether a called chain either translates or comes back with the packet as it was."""
        harmless = (Return, Jump, Masquerade, Snat)
        return all(
            (verdict is None or isinstance(verdict, harmless))
            and all(self._without_effect(step) or _translated_next(chain, number) for step in rule.steps if _sets(step))
            for chain in _reachable(self.table, name)
            for number, rule in enumerate(chain.rules)
            for verdict in (_verdict(rule),)
        )

    def _inexact(self, rule: Rule) -> str:
        try:
            list(encoding.expressions(rule, self.version))
        except encoding.Inexact as error:
            return str(error)
        return ""


def _with_verdict(rule: Rule, verdict: Step) -> Rule:
    return replace(rule, steps=tuple(verdict if isinstance(step, _VERDICTS) else step for step in rule.steps))
