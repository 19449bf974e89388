"""Rules in the notation of their tools: for reasons, plans and logs.

Problem: an operator looks for a rule in the output of ``iptables-save`` or ``nft list ruleset``, so it must be shown in
that notation. Promise: ``rule`` and ``conditions`` use iptables' notation for rules that iptables wrote, and nft's for
native ones. What a decoder could not express in the model carries its tool's text. The texts are never parsed again;
``hitless.plan`` makes what hitless writes into the kernel. Next stage: everything that shows rules to users.
"""

from __future__ import annotations

from collections.abc import Callable

from hitless.model.notation import iptables as _iptables
from hitless.model.notation import nft as _nft
from hitless.model.rules import Comment, Destination, Match, Rule, SetMember, Source, Step

__all__ = ["Names", "condition", "conditions", "rule"]

_FEW = 64  # members of a set that are looked at

Names = Callable[[int], str | None]
"""The name of the ipset that rules know by a number."""


def rule(each: Rule, *, iptables: bool, names: Names | None = None) -> str:
    """The whole rule, without its chain."""
    steps = _named(_clean(each.steps), names)
    return _iptables.text(steps) if iptables else _nft.text(steps)


def conditions(each: Rule, *, iptables: bool, names: Names | None = None) -> str:
    """The rule's conditions without its comment; empty if there are none."""
    steps: list[Step] = [
        step for step in _clean(each.steps) if isinstance(step, Match) and not isinstance(step, Comment)
    ]
    return _iptables.text(_named(steps, names)) if iptables else _nft.text(_named(steps, names))


def condition(step: Step, *, iptables: bool, names: Names | None = None, of: Rule | None = None) -> str:
    """One condition; ``of``: its rule, which determines the protocol of ports."""
    (named,) = _named([step], names)
    around = of.steps if of is not None else ()
    return _iptables.text([named], around) if iptables else _nft.text([named], around)


def _clean(steps: tuple[Step, ...]) -> list[Step]:
    """Without redundant steps: nft writes the family before it compares an address."""
    found: list[Step] = []
    for number, step in enumerate(steps):
        if isinstance(step, Source) and step.network.prefixlen == 0 and not step.negated:
            others = (*steps[:number], *steps[number + 1 :])
            if any(step.network.version in _versions(other) for other in others):
                continue
        if step not in found:
            found.append(step)
    return found


def _versions(step: Step) -> set[int]:
    """The IP versions that a condition's own text names."""
    if isinstance(step, Source | Destination):
        return {step.network.version}
    return {network.version for network in step.networks(_FEW) or ()} if isinstance(step, SetMember) else set()


def _named(steps: list[Step], names: Names | None) -> list[Step]:
    """The steps with the names of ipsets instead of their numbers."""
    return [_with_name(step, names) if isinstance(step, SetMember) else step for step in steps]


def _with_name(step: SetMember, names: Names | None) -> SetMember:
    known = names(step.number) if names is not None and step.number is not None else None
    return step if not known else SetMember(known, step.direction, step.elements, step.negated)
